"""`mig show`, `plan`, `apply` and `restore`: how GPUs are cut into slices."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from heteromig.cli.command import Command
from heteromig.cli.printing import say
from heteromig.core.units import format_bytes

if TYPE_CHECKING:
    from heteromig.slices.mig.access import Closed, ShownGpu
    from heteromig.slices.mig.applying import Outcome, Planned
    from heteromig.slices.mig.journal import JournalFile
    from heteromig.slices.mig.partition import Replacement

_SCHEMA_VERSION = 1

_Slices = Annotated[
    str, typer.Option("--slices", envvar="HETEROMIG_SLICES", help="mig, or sim:[<n>x]<board>[/<layout>][;...].")
]
_RunsDir = Annotated[
    Path, typer.Option("--runs-dir", envvar="HETEROMIG_RUNS_DIR", help="Simulated GPUs are found in it.")
]
_Gpu = Annotated[
    Optional[str],  # noqa: UP045 - Typer evaluates it at run time, on 3.10 too
    typer.Option("--gpu", envvar="HETEROMIG_GPU", metavar="GPU", help="UUID, or index as in nvidia-smi."),
]
_Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
_Layout = Annotated[
    str,
    typer.Argument(
        metavar="LAYOUT",
        help="7x1g.10gb; 3g.40gb,2g.20gb,2x1g.10gb; with the memory slice to begin at, 3g.40gb@4; or FILE.yaml:CONFIG "
        "of nvidia-mig-parted.",
    ),
]
_EnableMigMode = Annotated[
    bool, typer.Option("--enable-mig-mode", help="Turn MIG on where it is off, unless that takes a reset of the GPU.")
]


def register(app: typer.Typer) -> None:
    """Add the group."""
    group = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
    group.command("show", cls=Command)(_show)
    group.command("plan", cls=Command)(_plan)
    group.command("apply", cls=Command)(_apply)
    group.command("restore", cls=Command)(_restore)
    app.add_typer(group, name="mig", help="Show how GPUs are cut into MIG slices, cut one, and cut it back.")


def _show(slices: _Slices = "mig", runs_dir: _RunsDir = Path("runs"), gpu: _Gpu = None, *, json: _Json = False) -> None:
    """Show how each GPU is cut and may be cut; changes nothing. Not all of it is told to users without privileges."""
    from heteromig.slices.mig.access import machine_of, show_gpus  # noqa: PLC0415 - keeps `--help` quick, as all imports here

    machine = machine_of(slices, runs_dir)
    shown = show_gpus(machine, gpu)
    if json:
        _say_json({"simulated": machine.simulated, "gpus": shown.gpus, "unusable": shown.unusable})
    else:
        told = [_shown(one, simulated=machine.simulated) for one in shown.gpus]
        say("\n\n".join([*told, *(f"GPU {one.index}  not usable: {one.message}" for one in shown.unusable)]))


def _plan(
    layout: _Layout,
    slices: _Slices = "mig",
    runs_dir: _RunsDir = Path("runs"),
    gpu: _Gpu = None,
    *,
    json: _Json = False,
) -> None:
    """Show what `apply` would do to the GPU; changes nothing."""
    from heteromig.slices.mig.access import machine_of, plan_layout_on  # noqa: PLC0415

    machine = machine_of(slices, runs_dir)
    planned = plan_layout_on(machine, gpu, layout)
    if json:
        _say_json({"simulated": machine.simulated, "plan": planned})
    else:
        say(planned_text(planned, simulated=machine.simulated))


def _apply(
    layout: _Layout,
    slices: _Slices = "mig",
    runs_dir: _RunsDir = Path("runs"),
    gpu: _Gpu = None,
    journal: Annotated[
        Optional[Path],  # noqa: UP045 - as above
        typer.Option(
            "--journal", metavar="PATH", help="File or run directory for the way back. [a place of this machine]"
        ),
    ] = None,
    *,
    enable_mig_mode: _EnableMigMode = False,
    json: _Json = False,
) -> None:
    """Cut one GPU that nobody uses, after writing down how to cut it back.

    It is cut back at once when that fails half-way, and by `mig restore` in any other case. Slices that stay where they
    are keep their UUIDs, all others have new ones.
    """
    from heteromig.slices.mig.access import apply_layout, machine_of  # noqa: PLC0415

    machine = machine_of(slices, runs_dir)
    outcome, path = apply_layout(machine, gpu, layout, journal, enable_mig_mode=enable_mig_mode)
    if json:
        _say_json({"simulated": machine.simulated, "outcome": outcome, "journal": str(path)})
        return
    what = _outcome(outcome, simulated=machine.simulated)
    if outcome.changed:
        say(f"{what}\nIt is cut back with: heteromig mig restore {shlex.quote(str(path))}")
    else:
        say(f"{what}\nIt was cut so before: nothing was changed.")


def _restore(
    journals: Annotated[
        Optional[list[Path]],  # noqa: UP045 - as above
        typer.Argument(metavar="[JOURNAL]...", help="Files or run directories. [every open journal of this machine]"),
    ] = None,
    slices: _Slices = "mig",
    runs_dir: _RunsDir = Path("runs"),
    gpu: _Gpu = None,
    *,
    enable_mig_mode: _EnableMigMode = False,
    forget: Annotated[
        bool, typer.Option("--forget", help="Leave the GPU as it is now, and forget how it was.")
    ] = False,
    json: _Json = False,
) -> None:
    """Cut GPUs as they were before `mig apply`, wherever that was interrupted; does nothing the second time."""
    from heteromig.core.errors import HeteromigError, UsageError  # noqa: PLC0415
    from heteromig.slices.mig.access import close_journal, journal_of, machine_of, open_journals  # noqa: PLC0415
    from heteromig.views.text import sentence  # noqa: PLC0415

    if journals and gpu is not None:
        raise UsageError("A journal is of one GPU: name journals or --gpu, not both.")
    files = [journal_of(path) for path in journals] if journals else open_journals(machine_of(slices, runs_dir), gpu)

    def close(file: JournalFile) -> Closed | HeteromigError:
        try:
            return close_journal(file, forget=forget, enable_mig_mode=enable_mig_mode)
        except HeteromigError as failure:  # the others may still be cut back
            typer.echo(f"heteromig: {sentence(str(failure))}", err=True)
            return failure

    results = [close(file) for file in files]
    closed = [one for one in results if not isinstance(one, HeteromigError)]
    failures = [one for one in results if isinstance(one, HeteromigError)]
    if json:
        _say_json({"restored": closed})
    elif closed or not files:
        say("\n".join(map(_closed, closed)) or "Nothing to restore: heteromig cut no GPU.")
    if failures:
        raise typer.Exit(failures[0].exit_code)


def _say_json(content: dict[str, Any]) -> None:
    import msgspec  # noqa: PLC0415

    say(msgspec.json.format(msgspec.json.encode({"schema_version": _SCHEMA_VERSION, **content}), indent=2))


def _shown(one: ShownGpu, *, simulated: bool) -> str:
    lines = [f"GPU {one.index}  {one.gpu.name}  {one.gpu.uuid}  {_mode(one)}{_mark(simulated=simulated)}"]
    if one.unknown is not None:
        lines.append(f"  Not all of it is known: {one.unknown}")
    if one.cut is not None:
        lines.append(f"  cut into  {one.cut}")
    for device in one.devices:
        start = "?" if device.start is None else device.start
        ids = f"GI {device.gpu_instance_id:>2}  CI {device.compute_instance_id}"
        lines.append(f"    {device.profile:<12}  @{start}  {ids}  {device.uuid}")
    if one.profiles:
        lines.append("  may be cut into")
    for profile in one.profiles or ():
        starts = ",".join(map(str, profile.starts))
        lines.append(
            f"    {profile.name:<12}  id {profile.profile_id:>2}  at most {profile.max_instances}  at {starts:<13}  "
            f"{profile.sm_count:>3} SMs  {format_bytes(profile.memory_bytes)}"
        )
    if one.journal is not None:
        lines.append(
            f"  heteromig cut it ({one.journal.progress}); heteromig mig restore {shlex.quote(one.journal.path)} cuts "
            f"it back into {one.journal.before}"
        )
    return "\n".join(lines)


def _mark(*, simulated: bool) -> str:
    return "  SIMULATED" if simulated else ""


def _mode(one: ShownGpu) -> str:
    gpu = one.gpu
    if gpu.mig_current is None:
        return "no MIG"
    now = "MIG on" if gpu.mig_current else "MIG off"
    return now if gpu.mig_current == gpu.mig_pending else f"{now}, the other way after a reset"


def planned_text(planned: Planned, *, simulated: bool) -> str:
    """How a GPU is cut and would be cut, and the steps from one to the other."""
    from heteromig.slices.mig.partition import partition_text  # noqa: PLC0415

    lines = [
        f"GPU {planned.index}  {planned.gpu.name}  {planned.gpu.uuid}{_mark(simulated=simulated)}",
        f"  is cut into       {partition_text(planned.present)}",
        f"  would be cut into {partition_text(planned.wanted)}",
    ]
    if not planned.gpu.mig_current:
        lines.append("  after MIG is turned on")
    lines += [f"    {number}. {step}" for number, step in enumerate(planned.steps, start=1)]
    if not planned.steps:
        lines.append("  which is the same: nothing to do")
    return "\n".join(lines)


def _outcome(outcome: Outcome, *, simulated: bool) -> str:
    from heteromig.slices.mig.partition import partition_text  # noqa: PLC0415

    gpu = outcome.gpu
    mode = "" if gpu.mig_current else ", and MIG is off"
    head = f"{gpu.name} ({gpu.uuid}) is cut into {partition_text(outcome.cut)}{mode}.{_mark(simulated=simulated)}"
    return "\n".join([head, *(f"  {_replacement(one)}" for one in outcome.replaced)])


def _replacement(one: Replacement) -> str:
    place = f"{one.profile}@{one.start}"
    if one.after is None:
        return f"{place:<14}  gone, was {one.before}"
    if one.before is None:
        return f"{place:<14}  {one.after}  new"
    return f"{place:<14}  {one.after}  {'as before' if one.before == one.after else f'was {one.before}'}"


def _closed(one: Closed) -> str:
    if one.outcome is not None:
        return _outcome(one.outcome, simulated=one.simulated)
    if one.forgotten:
        return f"The GPU stays as it is, and {one.journal} is closed."
    return f"Nothing to restore: {one.journal} was closed before."
