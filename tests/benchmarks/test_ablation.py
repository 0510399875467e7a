"""The benchmark of ablations on a few cells."""

from __future__ import annotations

from arena_cje.ablation.grid import Switches, settings
from benchmarks import ablation


def test_seconds_of_a_cell_fall_where_settings_share_work():
    alone = settings({"calibrated-ips": ("calibrated-ips", {})}, Switches())
    together = settings({name: (name, {}) for name in ("calibrated-ips", "snips", "raw-ips", "ips")}, Switches())
    seconds = [ablation.seconds_of_a_cell("arena", chosen, n=300, seeds=3) for chosen in (alone, together)]
    assert 0 < seconds[1] < 0.7 * seconds[0]


def test_every_switch_is_in_the_grid():
    options = [setting.options for setting in ablation.SWITCHED]
    assert {one["rewards"] for one in options if "rewards" in one} == {"judge"}
    assert {one["weights"] for one in options if "weights" in one} == {"raw"}
    assert {setting.covariates for setting in ablation.SWITCHED} == {(), ("style",)}
    assert {setting.judge for setting in ablation.SWITCHED} == {"score", "distribution"}
