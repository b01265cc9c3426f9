from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from heteromig.core.errors import UsageError
from heteromig.slices.mig.parted import names_file, read_layout
from heteromig.slices.mig.planning import Wanted

H100, A100 = 0x233010DE, 0x20B210DE

CONFIGS: dict[str, Any] = {
    "mixed": [{"devices": "all", "mig-enabled": True, "mig-devices": {"3g.40gb": 1, "1g.10gb": 3}}],
    "by-index": [
        {"devices": [0, 1], "mig-enabled": True, "mig-devices": {"1g.10gb": 7}},
        {"devices": [2], "mig-enabled": False},
        {"devices": [3], "mig-enabled": True, "mig-devices": {}},
    ],
    "by-model": [
        {
            "device-filter": ["0x233010DE", "0x233110DE"],
            "devices": "all",
            "mig-enabled": True,
            "mig-devices": {"1g.10gb+me": 1},
        },
        {"device-filter": "0x20B210DE", "devices": [0], "mig-enabled": True, "mig-devices": {"2g.20gb": 3}},
    ],
    "twice": [
        {"devices": "all", "mig-enabled": True, "mig-devices": {"1g.10gb": 7}},
        {"devices": [0], "mig-enabled": True, "mig-devices": {"1g.10gb": 6}},
    ],
}

YAML = """\
# comments, flow and block style, quotes: as nvidia-mig-parted's own files have them
version: v1
mig-configs:
  mixed:
    - devices: all
      mig-enabled: true
      mig-devices:
        "3g.40gb": 1
        1g.10gb: 3

  by-model:
    - device-filter: ["0x233010DE", "0x233110DE"]   # H100
      devices: [0,1]
      mig-enabled: true
      mig-devices: {"1g.10gb+me": 1}
"""

yaml_installed = pytest.mark.skipif(
    importlib.util.find_spec("yaml") is None, reason="PyYAML is not installed, which the extra yaml has"
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "configs.json"
    path.write_text(json.dumps({"version": "v1", "mig-configs": CONFIGS}))
    return path


def read(path: Path, config: str, index: int = 0, pci_id: int | None = A100) -> tuple[Wanted, ...]:
    return read_layout(f"{path}:{config}", index, pci_id).items


def refusal(text: str, path: Path, config: str = "mixed") -> str:
    path.write_text(text)
    with pytest.raises(UsageError) as refused:
        read(path, config)
    return str(refused.value)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("a.yaml:x", True),
        ("/etc/nvidia-mig-manager/config.yml:all-1g.5gb", True),
        ("c:d/a b.json:x y", True),
        ("7x1g.10gb", False),
        ("a.yaml", False),
        ("a.yaml:", False),
        ("a.toml:x", False),
        ("3g.40gb@4,1g.10gb", False),
    ],
)
def test_a_file_is_told_from_a_layout(text: str, named: bool) -> None:  # noqa: FBT001 - a table
    assert names_file(text) == named


def test_what_it_says_of_the_gpu_is_taken(file: Path) -> None:
    assert read(file, "mixed", index=5, pci_id=None) == (Wanted("3g.40gb", 1), Wanted("1g.10gb", 3))
    assert read(file, "by-index", index=1) == (Wanted("1g.10gb", 7),)
    assert read(file, "by-model", pci_id=H100) == (Wanted("1g.10gb+me", 1),)
    assert read(file, "by-model", pci_id=A100) == (Wanted("2g.20gb", 3),)
    assert read_layout(f"{file}:mixed", 0, A100).text == f"{file}:mixed"


@pytest.mark.parametrize(
    ("config", "index", "pci_id", "says"),
    [
        ("by-index", 2, A100, "wants MIG off on GPU 2"),
        ("by-index", 3, A100, "wants no slices on GPU 3"),
        ("by-index", 4, A100, "says nothing of GPU 4"),
        ("by-model", 1, A100, "says nothing of GPU 1"),
        ("by-model", 0, None, "says nothing of GPU 0"),
        ("twice", 0, A100, "says two different things of GPU 0"),
        ("mixd", 0, A100, "has no configuration 'mixd': did you mean 'mixed'? All of them: mixed, by-index,"),
    ],
)
def test_what_gives_no_layout_is_refused(file: Path, config: str, index: int, pci_id: int | None, says: str) -> None:
    with pytest.raises(UsageError) as refused:
        read(file, config, index, pci_id)
    assert says in str(refused.value)


ENTRY: dict[str, Any] = {"devices": "all", "mig-enabled": True, "mig-devices": {"1g.10gb": 1}}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"version": "v1"}, "mig-configs"),
        ({"version": "v2", "mig-configs": {}}, "v2"),
        ({"mig-configs": {"mixed": [ENTRY]}}, "version"),
        ({"version": "v1", "mig-configs": {"mixed": [ENTRY]}, "mig-config": {}}, "mig-config"),
        ({"version": "v1", "mig-configs": {"mixed": [{**ENTRY, "placement": 4}]}}, "placement"),
        ({"version": "v1", "mig-configs": {"mixed": [{"devices": "all"}]}}, "mig-enabled"),
        ({"version": "v1", "mig-configs": {"mixed": [{**ENTRY, "devices": "some"}]}}, "some"),
        ({"version": "v1", "mig-configs": {"mixed": [{**ENTRY, "mig-devices": {"1g.10gb": 0}}]}}, ">= 1"),
        ({"version": "v1", "mig-configs": {"mixed": [{**ENTRY, "mig-devices": {"1g.10gb": "7"}}]}}, "str"),
        ([], "array"),
        ({"version": "v1", "mig-configs": {}}, "it has none"),
    ],
)
def test_fields_are_those_of_nvidia_mig_parted_and_no_others(content: object, says: str, tmp_path: Path) -> None:
    assert says in refusal(json.dumps(content), tmp_path / "x.json")


def test_what_is_no_file_of_the_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        read(tmp_path / "none.json", "mixed")
    (tmp_path / "folder.json").mkdir()
    with pytest.raises(UsageError, match="cannot be read: Is a directory"):
        read(tmp_path / "folder.json", "mixed")
    assert "is none of nvidia-mig-parted" in refusal("{", tmp_path / "x.json")
    assert "more than" in refusal(" " * (1 << 21), tmp_path / "x.json")


@yaml_installed
def test_yaml_is_read_like_json(tmp_path: Path) -> None:
    path = tmp_path / "configs.yaml"
    path.write_text(YAML)
    assert read(path, "mixed") == (Wanted("3g.40gb", 1), Wanted("1g.10gb", 3))
    assert read(path, "by-model", 1, H100) == (Wanted("1g.10gb+me", 1),)


@yaml_installed
@pytest.mark.parametrize(
    ("text", "says"),
    [
        (YAML.replace("1g.10gb: 3", '"3g.40gb": 3'), "says '3g.40gb' twice"),
        (YAML.replace("  mixed:", "  by-model:"), "says 'by-model' twice"),
        (YAML.replace("mig-enabled: true", "mig-enabled: !!python/object/apply:os.getpid []"), "is no YAML"),
        (YAML.replace("all", "["), "is no YAML"),
        (YAML.replace("devices: all", "devices: all\n      mig-count: 3"), "mig-count"),
        ("? [1]\n: 2\n", "is no"),
        ("- 1\n", "array"),
        ("", "null"),
    ],
)
def test_yaml_that_is_not_what_it_seems_is_refused(text: str, says: str, tmp_path: Path) -> None:
    assert says in refusal(text, tmp_path / "x.yaml")


def test_without_pyyaml_it_says_what_to_install(tmp_path: Path) -> None:
    path = tmp_path / "configs.yaml"
    path.write_text(YAML)
    program = (
        "import sys; sys.modules['yaml'] = None\n"
        "from heteromig.slices.mig.parted import read_layout\n"
        "try: read_layout(sys.argv[1], 0, None)\n"
        "except Exception as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", program, f"{path}:mixed"], capture_output=True, check=True, text=True)
    assert "install heteromig[yaml], or write the same as JSON" in done.stdout
