"""What labels of the targets' own responses can show, before they are bought."""

from __future__ import annotations

from typing import TYPE_CHECKING

from arena_cje.config.records.values import REFERENCE
from arena_cje.data.coverage import has_label
from arena_cje.diagnostics.audit_size import RESIDUAL_SD, chance_to_pass, labels_to_pass
from arena_cje.diagnostics.thresholds import with_overrides

if TYPE_CHECKING:
    from arena_cje.config.records import Config

FAIR_CHANCE = 0.5  # to pass where the calibration holds: with less, the audit is as good as lost before it begins


def notes(config: Config) -> list[str]:
    """A sentence where the labels that a run buys of each target can hardly pass the transport audit."""
    largest = max(config.coverages, key=float)
    target_coverage = config.oracle.target_coverage(largest)
    if config.logged_data is not None or config.oracle.provider == REFERENCE or not target_coverage:
        return []
    thresholds, share, draws = with_overrides(config.verdict), float(target_coverage), config.draws_per_prompt
    labels = sum(has_label(k, share, draw=d, draws=draws) for k in range(config.n_prompts) for d in range(draws))
    facts = {
        "family": len(config.targets),
        "base_labels": sum(has_label(k, float(largest)) for k in range(config.n_prompts)),
    }
    chance = chance_to_pass(labels, thresholds, **facts)
    if not labels or chance >= FAIR_CHANCE:
        return []
    needed = labels_to_pass(thresholds, **facts)
    total = config.n_prompts * draws
    if needed is None:
        remedy = f"with the {facts['base_labels']} base labels of coverage {largest}, no number is enough"
    elif needed > total:
        remedy = f"{needed} labels are needed, more than the {total} responses of a target: raise `n_prompts`"
    else:
        remedy = f"{needed} labels (`oracle.target_labels: {needed / total:.2g}`) give 80 %"
    use = (
        "`direct` and the doubly robust estimators are corrected by these labels and need no audit"
        if labels >= thresholds.own_labels
        else f"With {thresholds.own_labels:g} labels, `direct` and the doubly robust estimators need no audit"
    )
    return [
        f"`oracle.target_labels: {share:g}` buys {labels} labels of each target. If the calibration holds, the transport audit "
        f"establishes with a probability of {_percent(chance)} that its bias is within ±{thresholds.transport_margin:g} (for "
        f"labels with a standard deviation of {RESIDUAL_SD:g} around the calibrated scores, as on chats); {remedy}. {use}; "
        "estimators that use only weights stay at `caution`"
    ]


def _percent(chance: float) -> str:
    return f"{100 * chance:.0f} %" if chance >= 0.01 or not chance else "less than 1 %"
