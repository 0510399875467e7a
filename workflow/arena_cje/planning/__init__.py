"""The numbers of prompts and labels of a study."""

from arena_cje.planning.sample_size import Costs, Fit, Plan, Variance, allocate, fit, for_effect, mde, pilot, power

__all__ = ["Costs", "Fit", "Plan", "Variance", "allocate", "fit", "for_effect", "mde", "pilot", "power"]
