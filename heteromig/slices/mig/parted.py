"""Layouts out of the files of `nvidia-mig-parted`: `FILE.yaml:CONFIG`.

Such a file gives names to configurations of a whole machine; what it says of the one GPU in question is taken, and the
rest is left alone. The fields are those of its `v1`, and any other is refused, as it refuses them itself. Counts only:
the format knows no places.

YAML needs PyYAML, which nothing else here does, so it is an extra; the same file written as JSON needs nothing.
"""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import Annotated, Any, Literal, Union

import msgspec
from msgspec import Meta, Struct

from heteromig.core.errors import UsageError
from heteromig.slices.mig.planning import Wanted, WantedLayout

_FILE = re.compile(r"(?P<path>.*\.(?:yaml|yml|json)):(?P<config>[^:]+)", re.DOTALL)
_BYTES_MAX = 1 << 20
"""The default configuration of nvidia-mig-parted, which knows every board, has 10 kB."""

_Count = Annotated[int, Meta(ge=1)]


class _Entry(Struct, frozen=True, forbid_unknown_fields=True, rename="kebab"):
    """What a configuration says of some GPUs.

    `device_filter` are PCI device ids, such as `0x233010DE`; `devices` are `all` or indices.
    """

    devices: Union[Literal["all"], tuple[int, ...]]  # noqa: UP007 - msgspec reads it at run time on 3.10 too
    mig_enabled: bool
    device_filter: Union[str, tuple[str, ...]] = ()  # noqa: UP007 - as above
    mig_devices: dict[str, _Count] = {}

    def is_for(self, index: int, pci_id: int | None) -> bool:
        """Whether it is about the GPU of that index and PCI device id."""
        ids = (self.device_filter,) if isinstance(self.device_filter, str) else self.device_filter
        if ids and pci_id not in {_pci_id(one) for one in ids}:
            return False
        return self.devices == "all" or index in self.devices


class _File(Struct, frozen=True, forbid_unknown_fields=True, rename="kebab"):
    version: Literal["v1"]
    mig_configs: dict[str, tuple[_Entry, ...]]


def names_file(text: str) -> bool:
    """Whether the layout is to be read from a file."""
    return _FILE.fullmatch(text) is not None


def read_layout(text: str, index: int, pci_id: int | None) -> WantedLayout:
    """What the configuration wants of one GPU; `text` is `FILE.yaml:CONFIG`.

    Args:
        text: the file and the name of one of its configurations.
        index: NVML's index of the GPU, which is what `devices` means.
        pci_id: the PCI device id of the GPU, which is what `device-filter` means; None where it is not known.

    Raises:
        UsageError: there is no such file or configuration, a field is unknown, or it wants no slices on this GPU.
    """
    match = _FILE.fullmatch(text)
    assert match is not None  # noqa: S101 - see names_file
    path, name = Path(match["path"]), match["config"]
    configs = _parse(path).mig_configs
    if name not in configs:
        nearest = difflib.get_close_matches(name, configs, n=1, cutoff=0)
        hint = f"did you mean {nearest[0]!r}? All of them: {', '.join(configs)}" if nearest else "it has none"
        raise UsageError(f"The layout file {path} has no configuration {name!r}: {hint}.")
    entries = [entry for entry in configs[name] if entry.is_for(index, pci_id)]
    return _layout(path, name, f"GPU {index}", entries)


def _layout(path: Path, name: str, gpu: str, entries: list[_Entry]) -> WantedLayout:
    where = f"The configuration {name!r} in {path}"
    if not entries:
        raise UsageError(f"{where} says nothing of {gpu}: choose another one, or another GPU (--gpu).")
    first = entries[0]
    if any((one.mig_enabled, one.mig_devices) != (first.mig_enabled, first.mig_devices) for one in entries):
        raise UsageError(f"{where} says two different things of {gpu}: leave one of them.")
    if not first.mig_enabled:
        raise UsageError(
            f"{where} wants MIG off on {gpu}, where it would have no slices: turn it off with nvidia-smi -mig 0, or "
            "choose another one."
        )
    if not first.mig_devices:
        raise UsageError(f"{where} wants no slices on {gpu}: choose another one.")
    items = tuple(Wanted(profile, count) for profile, count in first.mig_devices.items())
    return WantedLayout(f"{path}:{name}", items)


def _pci_id(text: str) -> int | None:
    try:
        return int(text, 16)
    except ValueError:
        return None


def _parse(path: Path) -> _File:
    try:
        with path.open("rb") as file:
            data = file.read(_BYTES_MAX + 1)
    except OSError as error:
        raise UsageError(f"The layout file {path} cannot be read: {error.strerror}.") from None
    if len(data) > _BYTES_MAX:
        raise UsageError(f"The layout file {path} has more than {_BYTES_MAX} bytes: it is something else.")
    try:
        if path.suffix == ".json":
            return msgspec.json.decode(data, type=_File)
        return msgspec.convert(_from_yaml(path, data), type=_File)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(
            f"The layout file {path} is none of nvidia-mig-parted ({error}): it has version: v1 and mig-configs, each "
            "a list of devices, mig-enabled, mig-devices and perhaps device-filter."
        ) from None


def _from_yaml(path: Path, data: bytes) -> Any:
    try:
        import yaml  # noqa: PLC0415 - an extra, and only for these files
    except ImportError:
        raise UsageError(
            f"Reading {path} needs PyYAML, which is not installed: install heteromig[yaml], or write the same as "
            f"JSON, such as {path.with_suffix('.json')}."
        ) from None

    class Loader(yaml.SafeLoader):  # type: ignore[misc]  # PyYAML ships no types
        """Plain values only, and a key no more than once: otherwise the last one would win in silence."""

        def construct_mapping(self, node: Any, deep: bool = False) -> Any:  # noqa: FBT001, FBT002 - PyYAML's own
            keys = [self.construct_object(key, deep=True) for key, _ in node.value]
            twice = [key for key in keys if keys.count(key) > 1]
            if twice:
                raise UsageError(f"The layout file {path} says {twice[0]!r} twice in one place: leave one of them.")
            return super().construct_mapping(node, deep=deep)

    try:
        return yaml.load(data, Loader)  # noqa: S506 - a subclass of the safe loader
    # What is tagged as something that it is not, such as `!!bool x`, makes PyYAML stumble in ways of its own.
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError) as error:
        raise UsageError(f"The layout file {path} is no YAML: {' '.join(str(error).split())}.") from None
