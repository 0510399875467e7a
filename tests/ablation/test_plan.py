"""The ablation of a configuration: its cells, and one sentence for a grid that cannot be computed."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml

from arena_cje.ablation import plan as plans
from arena_cje.ablation.plan import plan, settings_of, truth_coverage
from arena_cje.config.parse import parse
from arena_cje.errors import UserError

ROOT = Path(__file__).parents[2]
SHIPPED = yaml.safe_load((ROOT / "config" / "config.yaml").read_text())


def config(**ablation: Any):
    raw = deepcopy(SHIPPED)
    top = {key: ablation.pop(key) for key in ("variants", "verdict", "oracle", "judges") if key in ablation}
    raw["ablation"] |= ablation
    return parse(raw | top)


def test_the_plan_of_the_shipped_configuration_has_its_settings_coverages_and_cells():
    planned = plan(config())
    assert [setting.name for setting in planned.settings] == SHIPPED["ablation"]["estimators"]
    assert planned.coverages == [0.05, 0.1, 0.25, 0.5]
    cells = sum(block.count for block in planned.blocks) * len(planned.coverages) * len(planned.settings)
    assert cells == 2 * 50 * 4 * 6
    assert planned.block(planned.blocks[-1].name) is planned.blocks[-1]


@pytest.mark.parametrize("path", sorted((ROOT / "config" / "ablations").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_shipped_ablations_can_be_computed(path):
    raw = deepcopy(SHIPPED)
    own = yaml.safe_load(path.read_text())
    raw["ablation"] |= own.pop("ablation")
    planned = plan(parse(raw | own))
    assert planned.blocks
    assert f"config/ablations/{path.name}" in path.read_text()  # the command that runs it


def test_a_variant_is_a_setting_with_its_options():
    variants = {"mine": {"estimator": "dr-cpo", "weights": "raw"}}
    planned = plan(config(variants=variants, estimators=["mine"]))
    assert [(one.name, one.estimator, one.options["weights"]) for one in planned.settings] == [
        ("mine", "dr-cpo", "raw")
    ]


def test_all_settings_that_change_a_block_are_in_its_parameters():
    def parameters(**changed: Any):
        one = config(**changed)
        planned = plan(one)
        return settings_of(one, planned, planned.blocks[0])

    same = parameters()
    changes = [
        {"world": "healthy"},
        {"coverages": ["0.1"]},
        {"estimators": ["direct"]},
        {"target_labels": 0.1},
        {"verdict": {"labels_caution": 50}},
    ]
    assert all(parameters(**changed) != same for changed in changes)
    # The summary alone depends on which policies are apart; more seeds leave a complete block as it is.
    assert parameters(apart=[]) == same == parameters(seeds=500)


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"world": "arean"}, "unknown world 'arean' (did you mean 'arena'?)"),
        ({"estimators": ["dirct"]}, "unknown estimator 'dirct' (did you mean 'direct'?)"),
        ({"covariates": [["style"]]}, "world 'arena' lacks 'style'"),
        ({"judge": ["distribution"]}, "the judge of world 'arena' has no distribution"),
        ({"n": [20], "coverages": ["0.05"]}, "20 prompts at coverage 0.05 have 1 labels"),
        ({"source": "results", "oracle": SHIPPED["oracle"] | {"truth": 0.0}}, "set `oracle.truth: all`"),
        (
            {"variants": {"mine": {"estimator": "direct", "judge": "other"}}, "estimators": ["mine"],
             "judges": {"other": {"provider": "llama_cpp", "model": "smollm2"}}},
            "variant 'mine' uses another judge",
        ),
    ],
)  # fmt: skip
def test_a_grid_that_cannot_be_computed_is_refused_with_one_sentence(changed, sentence):
    with pytest.raises(UserError) as error:
        plan(config(**changed))
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


def test_true_values_of_results_use_the_labels_at_the_truth_coverage_of_the_oracle():
    assert truth_coverage(config(source="results")) == "1.0"
    assert plans.FULL == "1.0"
    assert truth_coverage(config(source="results", oracle=SHIPPED["oracle"] | {"truth": 0.5})) == "0.5"
