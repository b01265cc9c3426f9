"""Benchmarks, scenarios and configuration versions, and the names of files that come of them.

Figures are MLPerf Inference's accuracy targets of v2.1; names of directories and engines those of NVIDIA's v2.x.
"""

from __future__ import annotations

from typing import NamedTuple

SCENARIOS = ("Offline", "Server", "SingleStream", "MultiStream")
_HETERO_SCENARIOS = ("Offline", "Server")
_HIGH_ACCURACY_ONLY = ("3d-unet", "dlrm")
"""Benchmarks whose engine for 99.9 % serves both targets, so that there is no configuration `hetero`."""

RNNT_ENGINES = ("encoder", "decoder", "fc1_a", "fc1_b", "igather", "isel", "joint_backend")
"""RNN-T has an engine for each part, whose names say nothing of the configuration."""


class Benchmark(NamedTuple):
    """`family` is the harness binary; `two_accuracies`: it is submitted for 99 % and 99.9 % of the target."""

    name: str
    family: str
    scenarios: tuple[str, ...]
    accuracy_target: float
    batch_size: int
    two_accuracies: bool = False


BENCHMARKS = {
    benchmark.name: benchmark
    for benchmark in (
        Benchmark("resnet50", "default", SCENARIOS, 76.46, 256),
        Benchmark("retinanet", "default", SCENARIOS, 37.5, 2),
        Benchmark("ssd-resnet34", "default", SCENARIOS, 20.0, 16),
        Benchmark("ssd-mobilenet", "default", ("Offline", "SingleStream", "MultiStream"), 22.0, 192),
        Benchmark("3d-unet", "3dunet", ("Offline", "SingleStream"), 0.8617, 1, two_accuracies=True),
        Benchmark("rnnt", "rnnt", ("Offline", "Server", "SingleStream"), 92.54775, 512),
        Benchmark("bert", "bert", ("Offline", "Server", "SingleStream"), 90.874, 64, two_accuracies=True),
        Benchmark("dlrm", "dlrm", ("Offline", "Server"), 80.25, 65500, two_accuracies=True),
    )
}
FAMILIES = ("default", "3dunet", "rnnt", "bert", "dlrm", "triton")
"""The harness binaries."""


class Setting(NamedTuple):
    """What a configuration version says: kind of harness, accuracy, power."""

    harness: str
    accuracy: str
    power: str

    @property
    def name(self) -> str:
        """Its part of the names of engines: `hetero_k_99_MaxP`."""
        return f"{self.harness}_k_{self.accuracy.replace('.', '_')}_{self.power}"


def setting(config_ver: str, benchmark: Benchmark) -> Setting:
    """Told by what the version's name contains; Triton comes before hetero."""
    plain = "lwis" if benchmark.family in {"default", "3dunet"} else "custom"
    return Setting(
        harness="triton" if "triton" in config_ver else "hetero" if "hetero" in config_ver else plain,
        accuracy="99.9" if "high_accuracy" in config_ver else "99",
        power="MaxQ" if "maxq" in config_ver else "MaxP",
    )


class Workload(NamedTuple):
    """One benchmark in one scenario with one configuration on one system."""

    benchmark: Benchmark
    scenario: str
    setting: Setting
    system: str

    @property
    def is_registered(self) -> bool:
        """Whether there is a configuration for it."""
        benchmark, scenario, accuracy = self.benchmark, self.scenario, self.setting.accuracy
        if self.setting.harness == "hetero" and (
            scenario not in _HETERO_SCENARIOS or (accuracy == "99" and benchmark.name in _HIGH_ACCURACY_ONLY)
        ):
            return False
        return scenario in benchmark.scenarios and (accuracy == "99" or benchmark.two_accuracies)

    @property
    def family(self) -> str:
        """The harness binary that runs it."""
        return "triton" if self.setting.harness == "triton" else self.benchmark.family

    @property
    def system_name(self) -> str:
        """The directory that its results are in: `<system>_TRT_HeteroMultiUse`."""
        words = [self.system, "TRT"]
        if self.setting.harness == "triton":
            words.append("Triton")
        if self.setting.power == "MaxQ":
            words.append("MaxQ")
        if self.setting.harness == "hetero":
            words.append("HeteroMultiUse")
        return "_".join(words)

    @property
    def submission_name(self) -> str:
        """The benchmark's directory: `resnet50`, `bert-99`, `bert-99.9`."""
        name = self.benchmark.name
        return f"{name}-{self.setting.accuracy}" if self.benchmark.two_accuracies else name

    @property
    def directory(self) -> str:
        """Where LoadGen's logs go below LOG_DIR, and results, measurements and compliance files likewise."""
        return f"{self.system_name}/{self.submission_name}/{self.scenario}"

    @property
    def engine_files(self) -> tuple[str, ...]:
        """Paths of its engines below the tree."""
        name, batch_size = self.benchmark.name, self.benchmark.batch_size
        directory = f"build/engines/{self.system}/{name}/{self.scenario}"
        if name == "rnnt":
            return tuple(f"{directory}/{part}.plan" for part in RNNT_ENGINES)
        precision = "fp16" if self.setting.accuracy == "99.9" and name == "bert" else "int8"
        shape = f"{precision}_S_384_B_{batch_size}_P_2_vs" if name == "bert" else f"b{batch_size}-{precision}"
        return (f"{directory}/{name}-{self.scenario}-gpu-{shape}.{self.setting.name}.plan",)


def workloads(benchmarks: str, scenarios: str, config_vers: str, system: str) -> list[Workload]:
    """The cross product of what a command line names, with those that are not registered.

    Raises:
        RuntimeError: a name is not known.
    """
    return [
        Workload(benchmark, scenario, setting(config_ver, benchmark), system)
        for benchmark in (_benchmark(name) for name in benchmarks.split(","))
        for scenario in (_scenario(name) for name in scenarios.split(","))
        for config_ver in config_vers.split(",")
    ]


def _benchmark(name: str) -> Benchmark:
    found = BENCHMARKS.get(name.lower())
    if found is None:
        raise RuntimeError(f"'{name}' is not a valid benchmark name.")
    return found


def _scenario(name: str) -> str:
    for scenario in SCENARIOS:
        if scenario.lower() == name.lower().replace("_", "").replace("-", ""):
            return scenario
    raise RuntimeError(f"'{name}' is not a valid scenario name.")
