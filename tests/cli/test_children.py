"""What only a child process shows: exit codes of errors, of signals, and a plan beside the run that it foretold."""

from __future__ import annotations

import json
from pathlib import Path

from tests.e2e.conftest import FLAGS
from tests.e2e.product import Command, RunCommand


def test_plan_foretells_the_commands_of_the_run(tmp_path: Path) -> None:
    flags = (*FLAGS, "--harness", "quick", "--main-benchmark-duration", "300ms", "--background-benchmarks", "dlrm,rnnt")
    plan = Command(tmp_path, ("plan", *flags, "--json"), environ={}, module="tests.e2e.quick", name="plan").finish()
    assert plan.exit_code == 0, plan.stderr
    assert not (tmp_path / "runs").exists()
    foretold = json.loads(plan.stdout)
    run = RunCommand(tmp_path, ("run", *flags), environ={}, module="tests.e2e.quick")
    try:
        record = run.expect(0)
    finally:
        run.close()
    assert [place["uuid"] for place in foretold["slices"]] == [place.uuid for place in record.slices]
    for worker in foretold["workers"]:
        command = json.loads((run.run_dir / worker["directory"] / "command.json").read_text())
        real = json.loads(json.dumps(worker).replace("<run>", run.run_dir.name))
        assert command["argv"] == real["argv"]
        assert command["env"] == real["env"]
        assert command["cpus"] == real["cpus"]
        assert command["cwd"] == real["cwd"]
        assert tuple(real["argv"]) == record.workers[worker["index"]].command


def test_errors_are_one_sentence(tmp_path: Path) -> None:
    finished = Command(tmp_path, ("run", "--config", "none.toml"), environ={}, module="heteromig").finish()
    assert finished.exit_code == 2
    assert finished.stderr == "heteromig: The configuration none.toml cannot be read: No such file or directory.\n"
    assert finished.stdout == ""


def test_bug_is_called_one(tmp_path: Path) -> None:
    (tmp_path / "bug.py").write_text(
        "import heteromig.core.machine, heteromig.cli.main as cli\ndel heteromig.core.machine.diagram\ncli.main()\n"
    )
    finished = Command(tmp_path, ("states",), environ={}, module="bug").finish()
    assert finished.exit_code == 1
    assert "Traceback" in finished.stderr
    assert finished.stderr.endswith("heteromig: This is a bug in heteromig. Please report it with the lines above.\n")
