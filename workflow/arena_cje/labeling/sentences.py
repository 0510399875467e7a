"""Sentences about votes, for logs and the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from arena_cje.numbers import decimal, interval

if TYPE_CHECKING:
    from collections.abc import Mapping

    from arena_cje.labeling.tasks import Batch


def of_batch(batch: Batch) -> str:
    """Size and price of a batch before it is labelled."""
    price = "price of a vote unknown" if batch.usd is None else f"{batch.usd:,.2f} US dollars"
    copies = len(batch.tasks) - batch.n_items
    return (
        f"batch {batch.name}: {batch.n_items} texts, {copies} of them shown twice, {batch.n_votes} votes, {price}; "
        f"together with earlier batches, {100 * batch.coverage:.1f} % of the prompts"
    )


def of_votes(report: Mapping[str, Any]) -> list[str]:
    """The main numbers of a report (`labels.make`), and what needs a look."""
    if not report["n_votes"]:
        return ["no votes yet", *report["notes"]]
    lines = [
        f"{report['n_votes']} votes of {report['n_raters']} raters on {report['n_items']} of {report['n_known']} texts",
        "Krippendorff's alpha: " + ", ".join(f"{level} {_number(value)}" for level, value in report["alpha"].items()),
        f"reliability (ICC): {_number(report['icc_1_1'])} for one vote, {_number(report['icc_1_k'])} for the mean of "
        f"{report['k']:.3g}",
    ]
    if report["noise_share"] is not None:
        lines.append(f"rater noise: {100 * report['noise_share']:.0f} % of the variance of labels")
        one = {row["votes"]: row["relative_variance"] for row in report["further_votes"]}
        if one.get(3) is not None:
            lines.append(
                "variance of labels relative to one vote per text: "
                + ", ".join(
                    f"{100 * variance:.0f} % with {votes} votes" for votes, variance in one.items() if votes > 1
                )
            )
    model = report["aggregation"] or report["aggregation_of_validation"]
    lines.append(
        "labels are " + ("means of votes" if model["model"] == "mean" else "means of votes without the raters' biases")
        + ("" if model["p_value"] is None else f" (test for biases: p = {model['p_value']:.2g})")
    )  # fmt: skip
    if model["n_clipped"]:
        lines.append(
            f"{model['n_clipped']} labels were outside the scale after the correction for biases and are set to its ends"
        )
    if model["panel_error"] is not None:
        lines.append(
            f"other raters would shift all labels together by about {model['panel_error']:.3f} (standard error)"
        )
    alphas = [value for value in report["alpha"].values() if value is not None]
    if alphas and max(alphas) <= 0:
        lines.append(
            "the raters agree no more than by chance: check the instructions and the votes before these labels are used"
        )
    odd = [f"rater {row['annotator_id']}: {row['odd']}" for row in report["raters"] if row["odd"]]
    return [*lines, *odd, *report["notes"]]


def of_judge(comparison: Mapping[str, Any]) -> str:
    """Agreement of a judge with people."""
    return (
        f"judge and people on {comparison['n_items']} texts: Spearman {_number(comparison['spearman'])}, weighted kappa "
        f"{_number(comparison['kappa'])}, judge minus people {_number(comparison['mean_difference'])}"
    )


def of_oracles(model: str, compared: Mapping[str, Any]) -> list[str]:
    """Agreement of a model with people, and whether it would compare policies as they do."""
    lines = [
        f"{model} and people on {compared['n_texts']} texts: Spearman {_number(compared['spearman'])}, {model} minus people "
        + _interval(compared["mean_difference"])
    ]
    for policy, row in compared["policies"].items():
        if (beyond := row.get("beyond_the_base")) and beyond["n_prompts"]:
            lines.append(f"{model} minus people is larger on {policy} than on the base by {_interval(beyond)}")
    return lines


def _interval(mean: Mapping[str, Any]) -> str:
    if mean["se"] is None:
        return _number(mean["estimate"])
    return f"{decimal(mean['estimate'])} {interval(mean['ci_lower'], mean['ci_upper'])}"


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3f}"
