"""What a tuning is asked, from the specification of its runs and the `[tune]` table."""

from __future__ import annotations

from heteromig.campaign.probes import OFFLINE, Side, TuneSettings
from heteromig.core.errors import UsageError
from heteromig.core.spec import Mode, RunSpec
from heteromig.core.units import parse_duration_ms
from heteromig.harnesses import harness_of
from heteromig.runner.config import TuneConfig

PROBE_S = 60.0
START_QPS = 100.0
"""Where nobody says better: the embedded benchmarks do 10 to 5000 a second on a core, and a start that is 40 times off
costs four runs."""


def tune_settings(spec: RunSpec, config: TuneConfig) -> TuneSettings:
    """The settings of the planner for runs of `spec`, whose duration is that of a full-length run.

    Raises:
        UsageError: the runs cannot be tuned, or a number is out of its range.
        PreflightError: the harness cannot tell by which rules.
    """
    _refuse(spec, isolated=bool(config.isolated))
    main = spec.main
    rules = harness_of(spec).rate_rules(spec)
    full_s = main.duration_ms / 1000
    usual = TuneSettings(OFFLINE)
    starts = (config.start_qps, main.target_qps, START_QPS)
    confirmations = usual.confirmations if config.confirm is None else config.confirm
    return TuneSettings(
        scenario=rules.scenario,
        start_qps=next(start for start in starts if start is not None),
        latency_limit_ms=rules.latency_limit_ms,
        percentile=rules.percentile,
        full_s=full_s,
        probe_s=min(PROBE_S, full_s) if config.probe_duration is None else _probe_s(config.probe_duration),
        min_queries=rules.min_queries,
        confirmations=confirmations,
        most_confirmations=max(usual.most_confirmations, 2 * confirmations),
        precision=usual.precision if config.precision is None else config.precision,
        sides=(Side.ISOLATED,) if config.isolated else (Side.ISOLATED, Side.BESIDE),
        verdicts_only=rules.verdicts_only,
        whole_rates=rules.whole_rates,
    )


def _probe_s(said: int | str) -> float:
    try:
        return parse_duration_ms(said) / 1000
    except UsageError as error:
        raise UsageError(f"--probe-duration: {error}") from None


def _refuse(spec: RunSpec, *, isolated: bool) -> None:
    if spec.main.mode is not Mode.PERFORMANCE:
        raise UsageError(f"tune looks for a rate, and --main-mode is {spec.main.mode.value}: leave it out.")
    if spec.lenient:
        raise UsageError("tune needs every background in every run, and --lenient goes on without: leave it out.")
    if spec.rebuild:
        raise UsageError(
            "Each run of a tuning has to have the same engines, and --rebuild makes new ones: leave it out here, and "
            "build them before with heteromig build --rebuild."
        )
    if not isolated and not spec.background.candidates:
        raise UsageError(
            "tune measures main alone and beside backgrounds, and --background-benchmarks is none: name some, or add "
            "--isolated for main alone."
        )
