"""Worlds whose truth is known: to test estimators, plan studies and teach.

A response has a quality A and a style B, both standard normal under the base policy; a target shifts them.

    A = sqrt(c) P + sqrt(1 - c) Q,   P ~ N(0, 1) the prompt's share,   Q ~ N(shift, 1),   B ~ N(style, 1)
    log ratio = shift Q - shift^2 / 2 + style B - style^2 / 2,        so E_base[W] = 1
    S = Phi(A),   Y = Phi(a + b A + sigma e),   e ~ N(0, 1)
    V = Phi((a + b mu) / sqrt(1 + b^2 + sigma^2)),   mu = sqrt(1 - c) shift

The judge sees quality and nothing else, so the label's mean at a score is the same for every policy and calibration
transports. Style costs overlap without touching value; a shift of quality costs overlap and moves scores to where base
responses have few labels. Labels fall on a simple random sample of the prompts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from scipy.special import ndtr

from arena_cje.estimation.records import Draws, Logged


@dataclass(frozen=True)
class Target:
    """How a target policy differs from the base, in standard deviations."""

    shift: float = 0.0  # of quality given the prompt
    style: float = 0.0  # of what the label does not see


@dataclass(frozen=True)
class World:
    """A population of prompts, a judge, an oracle and target policies."""

    targets: Mapping[str, Target] = field(default_factory=lambda: {"clone": Target(), "better": Target(0.4, 0.3)})
    coverage: float = 0.25  # share of logged rows with an oracle label
    draws_per_prompt: int = 1
    prompt_share: float = 0.5  # c: variance of quality that is the prompt's
    intercept: float = 0.3  # a
    slope: float = 0.8  # b
    noise: float = 0.5  # sigma


def truth(world: World) -> dict[str, float]:
    """Value of the base policy, under "base", and of every target."""
    scale = np.sqrt(1 + world.slope**2 + world.noise**2)
    shifts = {"base": 0.0} | {policy: target.shift for policy, target in world.targets.items()}
    return {
        policy: float(ndtr((world.intercept + world.slope * np.sqrt(1 - world.prompt_share) * shift) / scale))
        for policy, shift in shifts.items()
    }


def draw(world: World, n: int, seed: int) -> tuple[Logged, dict[str, Draws], dict[str, float]]:
    """n prompts, one base response each, fresh draws of every target, and the true values."""
    rng = np.random.default_rng(seed)
    prompt = rng.standard_normal(n)
    own, style = rng.standard_normal(n), rng.standard_normal(n)  # of the base responses
    quality = _quality(world, prompt, own)
    label = np.full(n, np.nan)
    chosen = rng.permutation(n)[: round(world.coverage * n)]
    label[chosen] = _label(world, quality, rng)[chosen]
    log_ratio = [t.shift * own - t.shift**2 / 2 + t.style * style - t.style**2 / 2 for t in world.targets.values()]
    logged = Logged(
        base_policy="base",
        policies=tuple(world.targets),
        prompt_id=np.array([f"prompt-{i}" for i in range(n)]),
        log_ratio=np.column_stack(log_ratio),
        judge_score=ndtr(quality),
        oracle_label=label,
    )
    fresh = {policy: _fresh(world, policy, target, prompt, rng) for policy, target in world.targets.items()}
    return logged, fresh, truth(world)


def _quality(world: World, prompt: np.ndarray, own: np.ndarray) -> np.ndarray:
    return np.sqrt(world.prompt_share) * prompt + np.sqrt(1 - world.prompt_share) * own


def _label(world: World, quality: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return ndtr(world.intercept + world.slope * quality + world.noise * rng.standard_normal(quality.shape))


def _fresh(world: World, policy: str, target: Target, prompt: np.ndarray, rng: np.random.Generator) -> Draws:
    own = target.shift + rng.standard_normal((len(prompt), world.draws_per_prompt))  # (n, m)
    score = ndtr(_quality(world, prompt[:, None], own))
    return Draws(policy, score, np.full(score.shape, np.nan))
