"""Which cells an ablation has, and how they are divided among jobs."""

from __future__ import annotations

from arena_cje.ablation.grid import DISTRIBUTION, SCORE, Block, Switches, blocks, has_weight_option, settings

ANALYSES = {"direct": ("direct", {}), "dr-cpo": ("dr-cpo", {}), "tr-cpo": ("tr-cpo", {})}


def names(switches: Switches) -> list[str]:
    return [setting.name for setting in settings(ANALYSES, switches)]


def test_without_switches_there_is_a_setting_for_each_estimator():
    assert names(Switches()) == ["direct", "dr-cpo", "tr-cpo"]


def test_a_switch_that_an_estimator_lacks_makes_no_second_setting_of_it():
    assert names(Switches(weights=("calibrated", "raw"))) == ["direct", "dr-cpo", "dr-cpo, raw weights", "tr-cpo"]
    assert [name for name in ANALYSES if has_weight_option(name)] == ["dr-cpo"]


def test_switches_give_all_combinations_of_their_values():
    crossed = settings(
        {"dr-cpo": ("dr-cpo", {})},
        Switches(("calibrated", "judge"), ("calibrated", "raw"), ((), ("style",)), (SCORE, DISTRIBUTION)),
    )
    # Uncalibrated rewards are the judge's scores, which no covariate can change.
    assert len(crossed) == 2 * 2 * 2 + 2 * 2
    assert len({setting.name for setting in crossed}) == len(crossed)
    assert {setting.options["calibration"] for setting in crossed if setting.covariates} == {"two_stage"}


def test_a_variant_has_its_own_options_and_is_not_repeated_by_a_switch():
    analyses = {"dr-cpo": ("dr-cpo", {"weights": "calibrated"}), "mine": ("dr-cpo", {"weights": "raw"})}
    weights = {setting.name: setting.options["weights"] for setting in settings(analyses, Switches())}
    assert weights == {"dr-cpo": "calibrated", "mine": "raw"}
    both = settings(analyses, Switches(weights=("calibrated", "raw")))
    assert [setting.name for setting in both] == ["dr-cpo", "dr-cpo, raw weights"]


def test_blocks_hold_each_sample_once():
    job_blocks = blocks([100, 250], 7, cells_per_seed=10, cells_per_job=30)
    assert [(block.n, list(block.seeds)) for block in job_blocks] == [
        (n, seeds) for n in (100, 250) for seeds in ([0, 1, 2], [3, 4, 5], [6])
    ]
    assert len({block.name for block in job_blocks}) == len(job_blocks)


def test_more_seeds_leave_the_complete_blocks_as_they_are():
    few, many = (blocks([100], seeds, cells_per_seed=10, cells_per_job=30) for seeds in (7, 20))
    assert few[:2] == many[:2]
    assert few[2].name == many[2].name  # but with more seeds: its job runs again
    assert blocks([100], 2, cells_per_seed=99, cells_per_job=30) == [Block(100, 0, 1), Block(100, 1, 1)]
