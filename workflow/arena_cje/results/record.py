"""The record of a result: the content of a results file, and the influence values of the file beside it.

Every property is read from the content, so that a result that was computed and one that was loaded are the same. A refused
policy has null among the estimates, and its number, interval and reasons under `refused`.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from arena_cje.data.reading import Reading
from arena_cje.errors import UserError, did_you_mean
from arena_cje.estimation.decision import JUDGE, judge_only, may_decide
from arena_cje.estimation.folds import clusters
from arena_cje.estimation.records import Estimate, Floor, Options, Reason, Verdict
from arena_cje.files import json_text

if TYPE_CHECKING:
    import polars as pl

    from arena_cje.estimation.contrasts import Contrast


SCHEMA_VERSION = 2
WEIGHT_COLUMNS = ("ess_raw", "max_weight_raw", "effective_labels", "label_share")


@dataclass(frozen=True, eq=False, repr=False)
class ResultRecord:
    """Policy values with their intervals and verdicts; arrays in declared order of the p target policies."""

    document: dict[str, Any]  # the content of the results file
    prompt_id: np.ndarray | None = None  # (n,) str
    # (n, p), rows as in `prompt_id`, NaN where a row is not used; None where the file of influence values is missing
    influence: np.ndarray | None = None
    base_influence: np.ndarray | None = None  # (n,)
    cluster_id: np.ndarray | None = None  # (n,) str; None where the data have no clusters of prompts

    @property
    def policies(self) -> tuple[str, ...]:
        """The p target policies, in declared order."""
        return tuple(self.document["metadata"]["target_policies"])

    @property
    def name(self) -> str:
        """The name of the result: that of the estimator, or of the configured variant."""
        return self.document["metadata"]["variant"]

    @property
    def base_policy(self) -> str:
        """The name of the base policy."""
        return self.document["base_policy"]["policy"]

    @property
    def judge(self) -> str | None:
        """The further judge whose scores were read; None for the judge of every row."""
        return self.document["metadata"]["data"].get("judge")

    @property
    def reading(self) -> Reading:
        """How the rows of the data set are read."""
        return replace(Reading.from_summary(self.document["metadata"]["data"]), covariates=self.options.covariates)

    @property
    def all_policies(self) -> tuple[str, ...]:
        """The base policy, then the targets."""
        return (self.base_policy, *self.policies)

    @property
    def options(self) -> Options:
        """The options of the estimate."""
        options = {"correction": "plain"} | self.document["metadata"][
            "options"
        ]  # files of earlier versions have no entry
        return Options(**options | {name: float(options[name]) for name in ("clip", "var_cap")})  # infinity is text

    @property
    def estimates(self) -> np.ndarray:
        """(p,) in [0, 1], NaN where refused."""
        return np.array(self.document["estimates"], dtype=float)

    @property
    def standard_errors(self) -> np.ndarray:
        """(p,), NaN where refused."""
        return np.array(self.document["standard_errors"], dtype=float)

    @property
    def confidence_intervals(self) -> np.ndarray:
        """(p, 2) lower and upper ends, NaN where refused."""
        return np.array(self.document["confidence_intervals"], dtype=float).reshape(-1, 2)

    @property
    def refused(self) -> dict[str, dict[str, Any]]:
        """By refused policy, its number, interval and the reasons why they are not published."""
        refused = self.document["refused"]
        return {policy: refused[policy] for policy in self.all_policies if policy in refused}

    @property
    def verdicts(self) -> dict[str, Verdict]:
        """By policy, the base policy first."""
        verdicts = self.document["verdicts"]
        return {
            policy: Verdict(tuple(Reason(**reason) for reason in verdicts[policy]["reasons"]))
            for policy in self.all_policies
        }

    @property
    def decision(self) -> dict[str, Any]:
        """What is decided about each policy, the base policy first, and the headline; empty in files of earlier versions."""
        decision = self.document.get("decision")
        if not decision:
            return {}
        entries = decision["policies"]
        return decision | {"policies": {policy: entries[policy] for policy in self.all_policies if policy in entries}}

    def remedies(self, policy: str) -> list[str]:
        """What would lift the level of a policy's verdict, a sentence each; none where it is ok, and in earlier files.

        Raises a `UserError` for a policy that is not in the result.
        """
        self._check_policy(policy)
        codes = {reason.code for reason in self.verdicts[policy].reasons if reason.level == self.verdicts[policy].level}
        remedies = self.document.get("remedies", {}).get(policy, [])
        return list(dict.fromkeys(remedy["text"] for remedy in remedies if remedy["reason"] in codes))

    def summary(self, policy: str) -> dict[str, float]:
        """Estimate, se, ci_lower, ci_upper and df of a policy, refused or not; NaN where unknown.

        Raises a `UserError` for a policy that is not in the result.
        """
        self._check_policy(policy)
        entries = self.document["refused"].get(policy) or self._published_entries(policy)
        low, high = entries["confidence_interval"]
        numbers = {"estimate": entries["estimate"], "se": entries["se"], "ci_lower": low, "ci_upper": high}
        numbers["df"] = self.document["se_components"][policy]["df"]
        return {name: math.nan if value is None else value for name, value in numbers.items()}

    def _check_policy(self, policy: str) -> None:
        if policy not in self.all_policies:
            raise UserError(
                f"{self.name}: there is no policy {policy!r} in this result{did_you_mean(policy, self.all_policies)}; "
                f"its policies: {', '.join(self.all_policies)}"
            )

    def _published_entries(self, policy: str) -> dict[str, Any]:
        """The published entries of a policy, null where it is refused."""
        if policy == self.base_policy:
            return self.document["base_policy"]
        k = self.policies.index(policy)
        names = {"estimate": "estimates", "se": "standard_errors", "confidence_interval": "confidence_intervals"}
        return {name: self.document[field][k] for name, field in names.items()}

    def estimate(self, policy: str) -> Estimate:
        """The estimate of a policy, refused or not; the difference of two is a paired contrast.

        Raises a `UserError` for a policy that is not in the result, and where the influence values were not loaded.
        """
        self._check_policy(policy)
        if self.influence is None or self.prompt_id is None or self.base_influence is None:
            raise UserError(
                f"{self.name}: this result was loaded without its influence values, which differences need; put "
                "ESTIMATOR.influence.parquet into the folder of the results file"
            )
        components, value = self.document["se_components"][policy], self.summary(policy)["estimate"]
        column = self.base_influence if policy == self.base_policy else self.influence[:, self.policies.index(policy)]
        used = ~np.isnan(column)
        return Estimate(
            value,
            np.where(used, column, 0.0),
            self._cluster,
            jackknife=np.array(components["jackknife_deviations"], dtype=float),
            used=used,
            bias=components["cap_bias"],
            replicates=value + np.array(components.get("bootstrap_deviations", []), dtype=float),
            floor=Floor(  # files of earlier versions have none
                policy, components.get("label_floor", 0.0), components.get("label_floor_of_difference", {})
            ),
            bounds=(0.0, 1.0),
        )

    @cached_property
    def _cluster(self) -> np.ndarray:
        return clusters(self.prompt_id if self.cluster_id is None else self.cluster_id)

    def comparisons(self) -> pl.DataFrame:
        """Paired differences of all pairs of policies, a row each, those to the base policy first.

        The columns are those of `Contrast`: difference, raw and corrected interval and p-values; and whether the difference
        rests on the judge alone (`judge_only`), and whether the policies are apart (`apart`), which the corrected interval
        does. They are null where either policy is refused.
        """
        return self._comparisons

    @cached_property
    def _comparisons(self) -> pl.DataFrame:
        import polars as pl

        from arena_cje.estimation.contrasts import corrected_contrasts, with_p_values

        estimates = {policy: self.estimate(policy) for policy in self.all_policies}
        alpha = self.document["metadata"]["alpha"]
        reference = self.decision.get("against")
        pairs = corrected_contrasts(
            estimates, base=self.base_policy, reference=reference, refused=self.refused, alpha=alpha
        )
        rows = [asdict(one) | self._evidence(one) for one in with_p_values(pairs)]
        return pl.DataFrame(rows).with_columns(pl.col(pl.Float64).fill_nan(None))

    def _evidence(self, pair: Contrast) -> dict[str, bool | None]:
        """Whether the difference of a pair rests on the judge, and whether the two are apart; None where it is refused.

        Policies whose difference rests on the judge are not apart unless it may decide (`arena_cje.results.decision`).
        """
        if math.isnan(pair.difference):
            return {"judge_only": None, "apart": None}
        diagnostics = self.document["metadata"]["diagnostics"]
        rests_on = [diagnostics[policy].get("rests_on", JUDGE) for policy in (pair.first, pair.second)]
        decides = may_decide(rests_on, self.decision.get("assume_transport", False))
        return {
            "judge_only": judge_only(rests_on),
            "apart": decides and (pair.corrected_lower > 0 or pair.corrected_upper < 0),
        }

    @property
    def best(self) -> str | None:
        """The policy, base or target, with the highest published value; None where all are refused."""
        return self.document["best_policy"]["policy"]

    def to_json(self) -> str:
        """The results file: indented, keys sorted, missing values null."""
        return json_text(self.document)

    def to_frame(self) -> pl.DataFrame:
        """One row for each policy, the base policy last; a refused policy has its number in `refused_estimate` alone."""
        import polars as pl

        numbers = ("estimate", "se", "ci_lower", "ci_upper", "ess", "max_weight")
        schema = {"policy": pl.String} | dict.fromkeys(numbers, pl.Float64)
        schema |= dict.fromkeys(("role", "status", "reasons", "transport"), pl.String)
        schema |= {"refused_estimate": pl.Float64, "n_used": pl.Int64, "df": pl.Float64}
        schema |= dict.fromkeys(WEIGHT_COLUMNS, pl.Float64)
        rows = [_frame_row(self, policy) for policy in (*self.policies, self.base_policy)]
        return pl.DataFrame(rows, schema=schema).with_columns(pl.col(pl.Float64).fill_nan(None))


def _frame_row(result: ResultRecord, policy: str) -> dict[str, Any]:
    """The row of a policy, with the columns of `to_frame`."""
    summary, verdict = result.summary(policy), result.verdicts[policy]
    diagnostics = result.document["metadata"]["diagnostics"].get(policy, {})
    row = {
        "policy": policy,
        "ess": diagnostics.get("ess"),
        "max_weight": diagnostics.get("max_weight"),
        "role": "base" if policy == result.base_policy else "target",
        "status": verdict.level,
        "reasons": ";".join(reason.code for reason in verdict.reasons),
        "transport": (diagnostics.get("transport") or {}).get("status"),
        "n_used": result.document["n_used"][policy],
        "df": summary["df"],
    } | {name: diagnostics.get(name) for name in WEIGHT_COLUMNS}
    if policy in result.refused:
        return row | {"refused_estimate": summary["estimate"]}
    return row | {name: summary[name] for name in ("estimate", "se", "ci_lower", "ci_upper")}
