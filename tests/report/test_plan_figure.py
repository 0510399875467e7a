"""The figure of a plan shows the numbers of the plan, for any names and numbers of targets."""

from __future__ import annotations

import io

import pytest
from matplotlib import image, pyplot
from matplotlib.text import Text

from arena_cje.planning.plan import Prices, document
from arena_cje.planning.sample_size import Variance
from arena_cje.planning.study import Difference, Goal, Pilot
from arena_cje.report import theme
from arena_cje.report.plan_figure import MOST_PANELS, plan

HOSTILE = "<script>alert('x')</script>_{{7*7}}_$\\frac{1}{0}$_%s_\n"


def pilot(names: list[str], **labels: int) -> Pilot:
    parts = {name: Difference(Variance(0.05, 0.03 + 0.001 * k), 200, 60) for k, name in enumerate(names)}
    return Pilot("base", "direct", 400, dict.fromkeys(("base", *names), 60) | labels, parts)


def plan_of(*names: str, difference: float | None = 0.05, **labels: int):
    return document(pilot(list(names), **labels), Goal(difference=difference), Prices(0.01, 0.1), budget=60.0)


def texts(figure) -> str:
    drawing = figure.draw()
    try:
        return "\n".join(text.get_text() for text in drawing.findobj(Text))
    finally:
        pyplot.close(drawing)


@pytest.mark.parametrize("names", [("one",), ("one", HOSTILE, "three", "four")])
def test_the_figure_renders_for_any_names_of_targets(names):
    picture = image.imread(io.BytesIO(theme.png(plan(plan_of(*names)))))
    assert min(picture.shape[:2]) > 400


def test_curves_are_those_of_the_plan():
    plan_document = plan_of("one", "two")
    table = plan(plan_document).data
    for row in plan_document["curves"]:
        part = table[(table["policy"] == row["policy"]) & (table["n"] == row["n"])]
        assert part["m"].tolist() == row["m"] and part["detectable"].tolist() == row["detectable"]
    assert len(table) == sum(len(row["m"]) for row in plan_document["curves"])


def test_the_caption_describes_the_cheapest_study():
    plan_document = plan_of("one")
    caption = texts(plan(plan_document)).replace("\n", " ")
    assert f"{plan_document['cheapest']['n']} prompts and {plan_document['cheapest']['total_labels']} labels" in caption
    assert "best for the budget" in caption and "the difference of 0.05 that is asked for" in caption
    assert "asked for" not in texts(plan(plan_of("one", difference=None)))


def test_labels_in_unequal_proportions_are_described():
    assert "labelled prompts of base, others in proportion" in texts(plan(plan_of("one", base=120)))


def test_targets_beyond_the_number_of_panels_are_counted_in_the_caption():
    names = [f"t{k}" for k in range(MOST_PANELS + 2)]
    figure = plan(plan_of(*names))
    assert set(figure.data["policy"]) == set(names[:MOST_PANELS])
    assert "2 more targets are in plan.json" in texts(figure).replace("\n", " ")


def test_the_figure_of_a_plan_without_targets_shows_the_reason():
    empty = Pilot("base", "direct", 400, {}, {}, {"one": "none of its own responses has a label"})
    assert "one: none of its own responses has a label" in texts(plan(document(empty, Goal(), Prices()))).replace(
        "\n", " "
    )
