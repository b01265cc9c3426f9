"""The package runs no shell, evaluates no text, and loads no objects from files that could be programs.

Ruff's rules say most of that (S102, S301-S307, S506, S602-S605, S609, S614), and a `noqa` would silence them: this
looks at the source itself.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import heteromig

PACKAGE = Path(heteromig.__file__).parent

_BUILTINS = {"eval", "exec", "compile", "__import__"}
_CALLS = {
    *("os.system", "os.popen", "os.spawnl", "os.spawnv", "os.execl", "os.execlp", "pty.spawn"),
    *("subprocess.getoutput", "subprocess.getstatusoutput", "asyncio.create_subprocess_shell"),
    *("yaml.load", "yaml.unsafe_load", "yaml.full_load", "yaml.load_all", "torch.load", "runpy.run_path"),
}
_MODULES = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "telnetlib", "xml", "code", "codeop"}
_TRUE_KEYWORDS = {"shell", "allow_pickle"}


def _sins(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = {alias.name.partition(".")[0] for alias in node.names}
            yield from (f"{node.lineno}: import {name}" for name in names & _MODULES)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            if (node.module or "").partition(".")[0] in _MODULES:
                yield f"{node.lineno}: from {node.module} import"
            yield from (
                f"{node.lineno}: from {node.module} import {alias.name}"
                for alias in node.names
                if f"{node.module}.{alias.name}" in _CALLS
            )
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called in _BUILTINS | _CALLS:
                yield f"{node.lineno}: {called}(...)"
            for keyword in node.keywords:
                off = isinstance(keyword.value, ast.Constant) and keyword.value.value is False
                if keyword.arg in _TRUE_KEYWORDS and not off:
                    yield f"{node.lineno}: {called}({keyword.arg}=...)"


def test_the_package_has_none_of_it() -> None:
    sources = sorted(PACKAGE.rglob("*.py"))
    assert len(sources) > 100
    found = [
        f"{path.relative_to(PACKAGE)}:{sin}" for path in sources for sin in _sins(path.read_text(encoding="utf-8"))
    ]
    # The loader there is a subclass of PyYAML's SafeLoader; tests/slices/mig/test_parted.py has it refuse objects.
    assert [
        sin for sin in found if not (sin.startswith("slices/mig/parted.py:") and sin.endswith("yaml.load(...)"))
    ] == []
    assert "class Loader(yaml.SafeLoader)" in (PACKAGE / "slices" / "mig" / "parted.py").read_text(encoding="utf-8")


def test_each_would_be_seen() -> None:
    samples = (
        "eval('1')", "exec('1')", "os.system('true')", "subprocess.run('true', shell=True)", "import pickle",
        "from pickle import loads", "from os import system", "yaml.load(x)", "numpy.load(x, allow_pickle=True)",
        "subprocess.run('true', shell=flag)", "torch.load(x)", "import xml.etree",
    )  # fmt: skip
    assert [sample for sample in samples if not list(_sins(sample))] == []
    harmless = ("subprocess.run(['true'], shell=False)", "re.compile('x')", "yaml.safe_load(x)", "import json")
    assert [sample for sample in harmless if list(_sins(sample))] == []
