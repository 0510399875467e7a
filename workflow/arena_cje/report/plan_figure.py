"""The figure of a plan: the difference that a study detects against its labels, a curve for each number of prompts."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pandas as pd
import plotnine as p9

from arena_cje.report import theme
from arena_cje.report.theme import INK, in_order, look, name, panel_titles, plain, titles

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

TITLE = "Size of the next study: prompts, labels and what they detect"
STYLES = ("dotted", "dashdot", "solid", "dashed", (0, (6, 1)))
MOST_PANELS = 9  # of differences; more are left out, with a note in the figure
KEYS = ("detectable", "low", "high")  # values of a curve
LABEL_STEPS, VALUE_STEPS = (1, 3), (1, 2, 5)  # of the logarithmic axes


def plan(plan: Mapping[str, Any]) -> p9.ggplot:
    """One panel a target; plan: the content of results/planning/plan.json."""
    pilot, goal = plan["pilot"], plan["goal"]
    policies = list(pilot["differences"])
    if not policies:
        reasons = "; ".join(f"{policy}: {reason}" for policy, reason in pilot["omitted"].items())
        return theme.message(TITLE, f"No difference can be planned from these data. {reasons}"[:400])
    panel_policies = policies[:MOST_PANELS]
    rows = [row for row in plan["curves"] if row["policy"] in panel_policies]
    counts = sorted({row["n"] for row in rows})
    labels = {n: f"{n:,}".replace(",", " ") for n in counts}
    table = pd.DataFrame(
        [
            {"policy": row["policy"], "prompts": labels[row["n"]], "n": row["n"], "m": m}
            | dict(zip(KEYS, values, strict=True))
            for row in rows
            for m, *values in zip(row["m"], *(row[key] for key in KEYS), strict=True)
        ]
    )
    table = in_order(in_order(table, "policy", panel_policies), "prompts", list(labels.values()))
    ends = table[table["n"] == table["m"]]  # every prompt has labels
    own = table[table["n"] == pilot["prompts"]]
    now = pd.DataFrame([row for row in plan["now"] if row["policy"] in panel_policies]).assign(
        m=max(pilot["labels"].values())
    )
    now = in_order(now, "policy", panel_policies)
    columns = min(len(panel_policies), 3)
    panel_rows = math.ceil(len(panel_policies) / columns)
    width = max(1.6 + 2.6 * columns, 6.5)
    colors = theme.cycle(theme.CYCLE, len(counts))
    return (
        p9.ggplot(table, p9.aes("m", "detectable"))
        + p9.facet_wrap(
            "policy", ncol=columns, labeller=panel_titles({policy: name(policy, 32) for policy in panel_policies})
        )
        + p9.geom_ribbon(p9.aes(ymin="low", ymax="high"), data=own, fill="#9A9A9A", alpha=0.28)
        + _limits(goal, plan)
        + p9.geom_line(p9.aes(color="prompts", linetype="prompts"), size=0.9)
        + p9.geom_point(p9.aes(color="prompts"), data=ends, size=1.8, show_legend=False)
        + p9.geom_point(
            p9.aes("m", "detectable"), data=now, size=3, shape="D", color=INK, fill="white", inherit_aes=False
        )
        + p9.scale_color_manual(colors, limits=list(labels.values()), name="prompts")
        + p9.scale_linetype_manual(theme.cycle(STYLES, len(counts)), limits=list(labels.values()), name="prompts")
        + p9.scale_x_log10(breaks=_log_ticks(*_ends(table["m"]), LABEL_STEPS), minor_breaks=[], labels=_whole)
        + p9.scale_y_log10(breaks=_log_ticks(*_ends(table[list(KEYS)]), VALUE_STEPS), minor_breaks=[], labels=plain)
        + p9.labs(x=_label_axis(pilot["labels"]), y=f"difference to {pilot['base']} that is detected")
        + titles(TITLE, _explanation(plan, len(policies) - len(panel_policies)), width, notes=list(_notes(plan)))
        + look(width, 2.5 + 2.2 * panel_rows)
        + p9.theme(legend_key_width=32)
    )


def _label_axis(labels: Mapping[str, int]) -> str:
    """Title of the axis of labelled prompts."""
    if len(set(labels.values())) == 1:
        return "labelled prompts, with a label of every policy"
    return f"labelled prompts of {max(labels, key=labels.get)}, others in proportion"


def _limits(goal: Mapping[str, Any], plan: Mapping[str, Any]) -> list[p9.layer]:
    """Lines at the difference that is asked for, and at the labels of the cheapest study that detects it."""
    layers = []
    if goal["difference"] is not None:
        layers.append(p9.geom_hline(yintercept=goal["difference"], color=INK, size=0.7, linetype="dashed"))
    if plan["cheapest"] is not None:
        layers.append(p9.geom_vline(xintercept=plan["cheapest"]["m"], color=INK, size=0.6))
    if plan["best_for_budget"] is not None:
        layers.append(p9.geom_vline(xintercept=plan["best_for_budget"]["m"], color=INK, size=0.6, linetype="dotted"))
    return layers


def _explanation(plan: Mapping[str, Any], left_out: int) -> str:
    """How to read the figure."""
    pilot, goal = plan["pilot"], plan["goal"]
    count = len(pilot["differences"])
    correction = f", corrected over {count} targets" if count > 1 else ""
    text = (
        f"Difference detected with power {goal['power']:g} at the level {pilot['alpha']:g}{correction}, as it would be planned. "
        f"Diamond: the pilot, {pilot['prompts']} prompts; grey: what it leaves open, without the margin that plans have for it. "
    )
    if goal["difference"] is not None:
        text += f"Dashed: the difference of {goal['difference']:g} that is asked for. "
    if left_out:
        text += f"{left_out} more targets are in plan.json."
    return text


def _notes(plan: Mapping[str, Any]) -> Iterable[str]:
    """The cheapest study and the best for a budget, in words."""
    for key, title in (
        ("cheapest", "Upright line, the cheapest"),
        ("best_for_budget", "Dotted upright line, the best for the budget"),
    ):
        if (study := plan[key]) is not None:
            yield (
                f"{title}: {study['n']} prompts and {study['total_labels']} labels for ${study['cost']:,.2f}; detects "
                f"{study['detectable']:.3f}, intervals of ± {study['half_width']:.3f}."
            )


def _log_ticks(low: float, high: float, steps: Sequence[int]) -> list[float]:
    """Round numbers between two, for a logarithmic axis."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [float(f"{step}e{power}") for power in powers for step in steps if low <= float(f"{step}e{power}") <= high]


def _ends(values: pd.Series | pd.DataFrame) -> tuple[float, float]:
    """Lowest and highest value."""
    numbers = values.to_numpy(dtype=float)
    return float(numbers.min()), float(numbers.max())


def _whole(values: Iterable[float]) -> list[str]:
    return [f"{value:.0f}" for value in values]
