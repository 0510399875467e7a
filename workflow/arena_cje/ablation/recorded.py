"""The population of an ablation on a configuration's own data, from its files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from arena_cje.ablation.populations import Recorded
from arena_cje.data.names import policy_of
from arena_cje.data.schemas import GRADES
from arena_cje.estimation.records import Options, Reason
from arena_cje.results.analyze import Settings, read_arrays
from arena_cje.results.validation import truth_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from arena_cje.data.sources import Source
    from arena_cje.diagnostics.thresholds import Thresholds
    from arena_cje.results.analyze import Cautions
    from arena_cje.results.validation import Truth


def load(
    logged: Source,
    fresh_draws: str | Path | Mapping[str, Source] | None,
    *,
    probes: str | Path | Mapping[str, Source] | None = None,
    covariates: tuple[str, ...] = (),
    thresholds: Thresholds | None = None,
    cautions: Cautions | None = None,
    truths: Mapping[str, Truth] | None = None,
    **reading: Any,
) -> Recorded:
    """The population of a data set with all its labels; sources as those of `arena_cje.analyze`.

    cautions: further reasons about log probabilities; truths: where their labels are in files of their own; reading:
    base_policy, judge, scale, judge_scale and label_scale, as in `arena_cje.analyze`.
    """
    options = Options(covariates=covariates, calibration="auto" if covariates else "monotone")
    more = {} if thresholds is None else {"thresholds": thresholds}
    rows, draws, reasons = read_arrays(logged, fresh_draws, Settings(options, **reading, **more), probes=probes)
    for policy, of_policy in (cautions or {}).items():
        reasons.setdefault(policy, []).extend(Reason(*reason) for reason in of_policy)
    return Recorded.of(rows, draws, covariates=covariates, weight_reasons=reasons, truths=truths)


def draws_by_policy(paths: Iterable[str | Path]) -> dict[str, str | Path]:
    """Files of fresh draws, POLICY.jsonl, by policy."""
    return {policy_of(Path(path).stem): path for path in paths}


def graded_truths(judge: Iterable[str | Path], oracle: Iterable[str | Path]) -> dict[str, Truth]:
    """The truth of each policy of the workflow's own, from its grades: judge/POLICY.jsonl, oracle/POLICY/*.jsonl."""
    scores = {Path(path).stem: path for path in judge}
    labels = {Path(path).parent.name: path for path in oracle}
    return {policy: truth_of(GRADES.read(scores[policy]), GRADES.read(path)) for policy, path in labels.items()}
