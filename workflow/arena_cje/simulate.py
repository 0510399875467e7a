"""Worlds whose truth is known: to test estimators, plan studies and teach.

A response has a quality A and a style B, both standard normal under the base policy; a target shifts them.

    A = sqrt(c) P + sqrt(1 - c) Q,   P ~ N(0, 1) the prompt's share,   Q ~ N(shift, 1),   B ~ N(style, 1)
    log ratio = shift Q - shift^2 / 2 + style B - style^2 / 2,        so E_base[W] = 1
    S = Phi(t + u A + l B),   Y = Phi(a + b A + d B - drop + sigma e),   e ~ N(0, 1)
    V = Phi((a + b mu + d style - drop) / sqrt(1 + b^2 + d^2 + sigma^2)),   mu = sqrt(1 - c) shift

In the plainest world (t = l = d = drop = 0, u = 1) the judge sees quality and nothing else, so that the label's mean at a
score is the same for every policy and calibration transports. Style costs overlap without touching value; a shift of
quality costs overlap and moves scores to where base responses have few labels. Each other world changes one thing:

    t, u       The score is a distortion of quality, monotone and saturating.
    l          The judge is moved by style, say by length, which the records then carry as a covariate. The label's mean
               at score and covariate is the same for every policy, at the score alone it is not.
    d          The label sees style, the judge does not: no calibration transports, while E_base[W Y] = V holds.
    drop       The target's labels fall by as much at every score. Neither scores nor weights tell, as the base never
               says what its raters dislike: E_base[W Y] is off by the drop too.
    tail       A style U that is uniform under the base, with W = (1 - 1/tail) U^(-1/tail): E_base[W] = 1 and
               P(W > w) ~ w^-tail. The target's is U^(tail / (tail - 1)), U uniform again, and B = -Phi^-1(U).
    binary     Y is 1 with the probability that was Y, else 0: the same V.
    levels     Quality is cut at the normal quantiles of the masses given. The label sees the cell k, with z_k the
               quantile at the middle of its mass, instead of A, and the judge scores the cell, so that calibration
               transports exactly:  V = sum_k p_k Phi((a + b z_k + d style - drop) / sqrt(1 + d^2 + sigma^2)),
               p_k = Phi(x_k - mu) - Phi(x_(k-1) - mu),  x_k the upper edge of cell k.
    spread     The judge gives three scores, Phi(t + u A + l B + spread (-sqrt 3, 0, sqrt 3)), with mass 1/6, 2/3, 1/6:
               the three-point Gauss-Hermite rule, of mean 0 and variance spread^2. S is their mean, which rises with A.
    prompts    Logged rows repeat a prompt as often as `rows_per_prompt` says, in turn. They share P, its fresh draws
               and whether they are labelled.

Labels fall on a simple random sample of the prompts, those of a target on one of its fresh draws. At the same seed a
higher share of either adds labels and changes nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import log_ndtr, ndtr, ndtri

from arena_cje.estimation.records import Draws, Logged

if TYPE_CHECKING:
    from collections.abc import Mapping

SPREAD = np.sqrt(3) * np.array([-1.0, 0.0, 1.0])  # three-point Gauss-Hermite rule
SPREAD_MASS = np.array([1 / 6, 2 / 3, 1 / 6])

# Scores of a thousand answers to Chatbot Arena prompts, by a judge asked for a number between 0 and 1.
ARENA_LEVELS = (
    (0.1, 6), (0.2, 7), (0.3, 3), (0.45, 5), (0.5, 14), (0.55, 16), (0.65, 6),
    (0.7, 79), (0.75, 2), (0.85, 608), (0.9, 50), (0.95, 123), (1.0, 81),
)  # fmt: skip


@dataclass(frozen=True)
class Target:
    """How a target policy differs from the base, in standard deviations."""

    shift: float = 0.0  # of quality given the prompt
    style: float = 0.0  # of what the label does not see, unless `label_style` is set
    tail: float | None = None  # tail index of the weights, above 1: style then differs by a power law, not by a shift
    drop: float = 0.0  # of the label on its latent scale, at the same quality and style

    def __post_init__(self) -> None:
        if self.tail is not None and not self.tail > 1:
            raise ValueError(f"tail must be above 1, or the weights have no mean, got {self.tail}")
        if self.tail is not None and self.style:
            raise ValueError(f"a target has a style or a tail, got style {self.style} and tail {self.tail}")


@dataclass(frozen=True)
class World:
    """A population of prompts, a judge, an oracle and target policies."""

    targets: Mapping[str, Target] = field(default_factory=lambda: {"clone": Target(), "better": Target(0.4, 0.3)})
    coverage: float = 0.25  # prompts whose logged rows have an oracle label: a share up to 1, above that their number
    target_labels: float = 0.0  # labelled fresh draws of each target: likewise
    rows_per_prompt: tuple[int, ...] = (1,)  # logged rows of the first prompt, of the second ..., then over again
    draws_per_prompt: int = 1
    prompt_share: float = 0.5  # c: variance of quality that is the prompt's
    intercept: float = 0.3  # a
    slope: float = 0.8  # b
    noise: float = 0.5  # sigma
    label_style: float = 0.0  # d
    binary: bool = False  # labels are 0 or 1
    judge_intercept: float = 0.0  # t
    judge_slope: float = 1.0  # u
    judge_style: float = 0.0  # l; unless 0, style is a covariate
    judge_spread: float = 0.0  # of the judge's distribution; 0 gives one score
    levels: tuple[tuple[float, float], ...] | None = None  # (score, mass), rising: the only scores the judge gives

    def __post_init__(self) -> None:
        judge = (self.judge_intercept, self.judge_slope, self.judge_style, self.judge_spread)
        if self.levels is not None and judge != (0, 1, 0, 0):
            raise ValueError(f"levels fix the judge's scores; leave the other judge_* fields alone, got {judge}")
        if self.label_style and any(target.tail is not None for target in self.targets.values()):
            raise ValueError("the truth is known for label_style or for a target with a tail, not for both at once")


WORLDS: dict[str, World] = {
    "healthy": World(),
    "nonlinear": World({"better": Target(0.4, 0.3), "worse": Target(-0.4, 0.3)}, judge_intercept=1.0, judge_slope=2.0),
    "covariate_bias": World({"better": Target(0.4, 0.8), "worse": Target(-0.4, 0.8)}, judge_style=0.5),
    "style_matters": World({"worse": Target(0.3, 0.5)}, label_style=-0.6),
    "no_transport": World({"better": Target(0.4, 0.3), "unhelpful": Target(-3.0, 2.0, drop=0.5)}),
    "no_transport_hidden": World({"worse": Target(0.0, 0.3, drop=0.6)}),
    "poor_overlap": World({"better": Target(0.2, 2.0)}),
    "heavy_tails": World({"better": Target(0.3, tail=1.5)}),
    "few_scores": World({"better": Target(0.5, 0.3), "worse": Target(-0.5, 0.3)}, levels=ARENA_LEVELS),
    "judge_noise": World({"better": Target(0.4, 0.3), "worse": Target(-0.4, 0.3)}, judge_spread=0.3),
    "clustered": World({"better": Target(0.6, 0.3)}, rows_per_prompt=(2, 3, 4), draws_per_prompt=3, prompt_share=0.8),
    "binary": World(binary=True),
}


def truth(world: World) -> dict[str, float]:
    """Value of the base policy, under "base", and of every target."""
    return {policy: _value(world, target) for policy, target in [("base", Target()), *world.targets.items()]}


def draw(world: World, n: int, seed: int) -> tuple[Logged, dict[str, Draws], dict[str, float]]:
    """n logged base responses, fresh draws of every target, and the true values."""
    rng = np.random.default_rng(seed)
    prompt_id, row = _prompts(n, world.rows_per_prompt)
    prompt = rng.standard_normal(row[-1] + 1)  # one for each prompt
    own, style = rng.standard_normal(n), rng.standard_normal(n)  # of the base responses
    quality = _quality(world, prompt[row], own)
    chosen = _chosen(len(prompt), world.coverage, rng)[row]
    logged = Logged(
        base_policy="base",
        policies=tuple(world.targets),
        prompt_id=prompt_id,
        log_ratio=np.column_stack([_log_ratio(target, own, style) for target in world.targets.values()]),
        oracle_label=np.where(chosen, _label(world, quality, style, rng), np.nan),
        **_judge(world, quality, style),
    )
    fresh = {policy: _fresh(world, policy, target, prompt, row, rng) for policy, target in world.targets.items()}
    return logged, fresh, truth(world)


def _value(world: World, target: Target) -> float:
    mean = np.sqrt(1 - world.prompt_share) * target.shift  # mu
    variance = 1 + world.label_style**2 + world.noise**2
    if world.levels is None:
        quality, mass, variance = np.array([mean]), np.ones(1), variance + world.slope**2
    else:
        _, edge, quality = _cells(world.levels)
        mass = np.diff(ndtr(edge - mean), prepend=0, append=1)
    latent = world.intercept + world.slope * quality + world.label_style * target.style - target.drop
    return float(mass @ ndtr(latent / np.sqrt(variance)))


@lru_cache(maxsize=8)  # n strings take longer than all else that is drawn
def _prompts(n: int, rows_per_prompt: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Prompt ids (n,), and which prompt each row is of, (n,) int."""
    row = np.repeat(np.arange(n), np.resize(rows_per_prompt, n))[:n]
    prompt_id = np.array([f"prompt-{i}" for i in range(row[-1] + 1)])[row]
    prompt_id.setflags(write=False)  # every draw of this size has the same array
    return prompt_id, row


@lru_cache
def _cells(levels: tuple[tuple[float, float], ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores (k,), the edges between their cells of quality (k - 1,) and the quality that stands for each (k,)."""
    score, mass = np.array(levels).T
    below = np.cumsum(mass) / mass.sum()
    return score, ndtri(below[:-1]), ndtri(below - mass / mass.sum() / 2)


def _chosen(n: int, wanted: float, rng: np.random.Generator) -> np.ndarray:
    """A simple random sample of n, (n,) bool: a share up to 1, above that a number."""
    chosen = np.zeros(n, bool)
    chosen[rng.permutation(n)[: round(wanted * n if wanted <= 1 else wanted)]] = True
    return chosen


def _log_ratio(target: Target, own: np.ndarray, style: np.ndarray) -> np.ndarray:
    quality = target.shift * own - target.shift**2 / 2
    if target.tail is None:
        return quality + target.style * style - target.style**2 / 2
    return quality + np.log1p(-1 / target.tail) - log_ndtr(-style) / target.tail  # U = Phi(-B)


def _quality(world: World, prompt: np.ndarray, own: np.ndarray) -> np.ndarray:
    quality = np.sqrt(world.prompt_share) * prompt + np.sqrt(1 - world.prompt_share) * own
    if world.levels is None:
        return quality
    _, edge, of_cell = _cells(world.levels)
    return of_cell[np.searchsorted(edge, quality)]


def _style(target: Target, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    if target.tail is None:
        return target.style + rng.standard_normal(shape)
    return -ndtri(rng.random(shape) ** (target.tail / (target.tail - 1)))


def _judge(world: World, quality: np.ndarray, style: np.ndarray) -> dict[str, np.ndarray]:
    """What the records hold of the judge and, where style moves it, of the covariate."""
    if world.levels is not None:
        score, _, of_cell = _cells(world.levels)
        return {"judge_score": score[np.searchsorted(of_cell, quality)]}
    latent = world.judge_intercept + world.judge_slope * quality + world.judge_style * style
    covariates = {"covariates": style[..., None]} if world.judge_style else {}
    if not world.judge_spread:
        return {"judge_score": ndtr(latent), **covariates}
    points = ndtr(latent[..., None] + world.judge_spread * SPREAD)  # (..., 3)
    mass = np.broadcast_to(SPREAD_MASS, points.shape)
    return {"judge_score": points @ SPREAD_MASS, "judge_points": points, "judge_mass": mass, **covariates}


def _label(
    world: World, quality: np.ndarray, style: np.ndarray, rng: np.random.Generator, drop: float = 0.0
) -> np.ndarray:
    latent = world.intercept + world.slope * quality + world.label_style * style - drop
    label = ndtr(latent + world.noise * rng.standard_normal(quality.shape))
    return (rng.random(label.shape) < label).astype(float) if world.binary else label


def _fresh(
    world: World, policy: str, target: Target, prompt: np.ndarray, row: np.ndarray, rng: np.random.Generator
) -> Draws:
    """Draws for each prompt, then given to each of its rows."""
    shape = (len(prompt), world.draws_per_prompt)  # prompts, m
    quality = _quality(world, prompt[:, None], target.shift + rng.standard_normal(shape))
    seen = world.judge_style or world.label_style
    style = _style(target, shape, rng) if seen else np.zeros(shape)
    label = np.full(shape, np.nan)
    if world.target_labels:
        of_labels = rng.spawn(1)[0]  # a stream of its own: labels leave what else is drawn as it is
        chosen = _chosen(label.size, world.target_labels, of_labels).reshape(shape)
        label = np.where(chosen, _label(world, quality, style, of_labels, target.drop), np.nan)
    judged = {name: values[row] for name, values in _judge(world, quality, style).items()}
    return Draws(policy, oracle_label=label[row], **judged)
