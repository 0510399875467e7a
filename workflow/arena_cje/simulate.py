"""Simulated data sets with known policy values, for tests, study planning and teaching.

A response has a quality A and a style B, both standard normal under the base policy; a target policy shifts them.

    A = sqrt(c) P + sqrt(1 - c) Q,   P ~ N(0, 1) for each prompt,   Q ~ N(shift, 1),   B ~ N(style, 1)
    log ratio = shift Q - shift^2 / 2 + style B - style^2 / 2,        so E_base[W] = 1
    S = Phi(t + u A + l B),   Y = Phi(a + b A + d B - drop + sigma e),   e ~ N(0, 1)
    V = Phi((a + b mu + d style - drop) / sqrt(1 + b^2 + d^2 + sigma^2)),   mu = sqrt(1 - c) shift

S is the judge score, Y the oracle label, W the importance weight. In the simplest world (t = l = d = drop = 0, u = 1) the
score is a function of quality alone, so that the mean label at a score is the same for every policy and calibration
transports. A shift of style reduces overlap and leaves V as it is; a shift of quality reduces overlap and moves scores to
where base responses have few labels. Each other world changes one property:

    t, u       The score is a monotone, saturating function of quality.
    l          The score depends on style, for example on length, which is then a covariate of the records. The mean label
               at score and covariate is the same for every policy, at the score alone it is not.
    d          The label depends on style, the score does not: no calibration transports, while E_base[W Y] = V.
    drop       The latent labels of the target are lower by this amount at every score. Neither scores nor weights show
               it, since no base response has the drop: E_base[W Y] has the same bias.
    unseen     A shift of the target's quality that no base response has: its log ratios do not depend on it, its draws, scores
               and labels have it, and V has  mu = sqrt(1 - c) (shift + unseen).  E_base[W Y] is without it.
    tail       A style U that is uniform under the base, with W = (1 - 1/tail) U^(-1/tail): E_base[W] = 1 and
               P(W > w) ~ w^-tail. The target's is U^(tail / (tail - 1)), U uniform again, and B = -Phi^-1(U).
    binary     Y is 1 with the probability above, else 0; V is the same.
    levels     Quality is divided into cells at the normal quantiles of the given masses. The label depends on the cell k
               by z_k, the quantile at the middle of its mass, in place of A, and the score is that of the cell, so that
               calibration transports exactly:  V = sum_k p_k Phi((a + b z_k + d style - drop) / sqrt(1 + d^2 + sigma^2)),
               p_k = Phi(x_k - mu) - Phi(x_(k-1) - mu),  x_k the upper edge of cell k.
    spread     The judge's distribution has three scores, Phi(t + u A + l B + spread (-sqrt 3, 0, sqrt 3)), with masses
               1/6, 2/3, 1/6: the three-point Gauss-Hermite rule, of mean 0 and variance spread^2. S is their mean, which
               increases with A.
    strictness The share of e that is the same for all responses to a prompt: e = sqrt(h) U + sqrt(1 - h) e', U ~ N(0, 1) for
               each prompt. Labels of different policies then go together beyond what quality explains; V is the same.
    paired     The labelled fresh draws are those of the first prompts in the order in which logged rows are labelled, their
               first draws before any second ones.
    prompts    Prompt i has `rows_per_prompt[i]` logged rows, cyclically. They have the same P and fresh draws, and all
               or none of them have a label.

The labelled logged rows are those of a simple random sample of the prompts, the labelled fresh draws of a target are a
simple random sample of its draws, unless the world is paired. With the same seed, a higher share of either adds labels
and changes nothing else.
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

# (score, count) of a thousand responses to Chatbot Arena prompts, by a judge that gives a number between 0 and 1.
ARENA_LEVELS = (
    (0.1, 6), (0.2, 7), (0.3, 3), (0.45, 5), (0.5, 14), (0.55, 16), (0.65, 6),
    (0.7, 79), (0.75, 2), (0.85, 608), (0.9, 50), (0.95, 123), (1.0, 81),
)  # fmt: skip


@dataclass(frozen=True)
class Target:
    """The difference of a target policy to the base, in standard deviations.

    Raises a `ValueError` for a tail index of at most 1, and for a style beside a tail.
    """

    shift: float = 0.0  # of quality given the prompt
    style: float = 0.0  # of style, on which labels depend only where `World.label_style` is set
    tail: float | None = None  # tail index of the weights, above 1: style then has a power law in place of a shift
    drop: float = 0.0  # of the latent label, at the same quality and style
    unseen: float = 0.0  # shift of quality given the prompt that the log ratios do not show

    def __post_init__(self) -> None:
        if self.tail is not None and not self.tail > 1:
            raise ValueError(f"tail must be above 1, or the weights have no mean, got {self.tail}")
        if self.tail is not None and self.style:
            raise ValueError(f"a target has a style or a tail, got style {self.style} and tail {self.tail}")


@dataclass(frozen=True)
class World:
    """A population of prompts, with a judge, an oracle and target policies.

    Raises a `ValueError` for fields that exclude each other.
    """

    targets: Mapping[str, Target] = field(default_factory=lambda: {"clone": Target(), "better": Target(0.4, 0.3)})
    coverage: float = 0.25  # prompts whose logged rows have an oracle label: a share up to 1, a number above
    target_labels: float = 0.0  # labelled fresh draws of each target: a share up to 1, a number above
    rows_per_prompt: tuple[int, ...] = (1,)  # logged rows of the first prompt, of the second ..., repeated cyclically
    draws_per_prompt: int = 1
    prompt_share: float = 0.5  # c: share of the prompt in the variance of quality
    intercept: float = 0.3  # a
    slope: float = 0.8  # b
    noise: float = 0.5  # sigma
    strictness: float = 0.0  # h: share of the prompt in the variance of the noise
    paired: bool = False  # whether the labels of all policies lie on the same prompts
    label_style: float = 0.0  # d
    binary: bool = False  # labels are 0 or 1
    judge_intercept: float = 0.0  # t
    judge_slope: float = 1.0  # u
    judge_style: float = 0.0  # l; if not 0, style is a covariate
    judge_spread: float = 0.0  # of the judge's distribution; with 0 the judge gives one score
    levels: tuple[tuple[float, float], ...] | None = None  # (score, mass), increasing: the only scores of the judge

    def __post_init__(self) -> None:
        judge = (self.judge_intercept, self.judge_slope, self.judge_style, self.judge_spread)
        if self.levels is not None and judge != (0, 1, 0, 0):
            raise ValueError(f"levels fix the judge's scores; leave the other judge_* fields alone, got {judge}")
        if not 0 <= self.strictness <= 1:
            raise ValueError(f"strictness must lie in [0, 1], got {self.strictness}")
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
    "useless_judge": World({"better": Target(0.6, 0.3), "worse": Target(-0.6, 0.3)}, judge_slope=0.0, judge_style=1.0),
    "barely_useful_judge": World(noise=1.65),
}


def pass_rate_world(rate: float, *, sharp: bool = False) -> World:
    """A world of pass-or-fail labels with the given value of the base policy.

    sharp: the label is all but a function of the score; otherwise the score predicts it badly.
    """
    slope = 20.0 if sharp else 0.8
    intercept = float(ndtri(rate) * np.sqrt(1 + slope**2 + World.noise**2))
    return World(
        {"clone": Target(), "better": Target(0.4, 0.3), "worse": Target(-0.4, 0.3)},
        binary=True,
        intercept=intercept,
        slope=slope,
    )


def truth(world: World) -> dict[str, float]:
    """The value V of the base policy, named "base", and of every target."""
    return {policy: _value(world, target) for policy, target in [("base", Target()), *world.targets.items()]}


def draw(world: World, n: int, seed: int) -> tuple[Logged, dict[str, Draws], dict[str, float]]:
    """n logged responses of the base policy, the fresh draws of every target, and the true values."""
    rng = np.random.default_rng(seed)
    prompt_id, code = _prompts(n, world.rows_per_prompt)
    prompt = rng.standard_normal(code[-1] + 1)  # P
    response, style = rng.standard_normal(n), rng.standard_normal(n)  # Q and B of the base responses
    quality = _quality(world, prompt[code], response)
    order = rng.permutation(len(prompt))
    labelled = _first_of(order, world.coverage)[code]
    noise = _prompt_noise(world, len(prompt), seed)  # (G,)
    logged = Logged(
        base_policy="base",
        policies=tuple(world.targets),
        prompt_id=prompt_id,
        log_ratio=np.column_stack([_log_ratio(target, response, style) for target in world.targets.values()]),
        oracle_label=np.where(labelled, _label(world, quality, style, rng, noise[code]), np.nan),
        **_judge(world, quality, style),
    )
    paired = order if world.paired else None
    draws = {
        policy: _draws(world, policy, target, prompt, noise, paired, code, rng)
        for policy, target in world.targets.items()
    }
    return logged, draws, truth(world)


def _value(world: World, target: Target) -> float:
    """V of a target, by the formulas of the module."""
    mean = np.sqrt(1 - world.prompt_share) * (target.shift + target.unseen)  # mu
    variance = 1 + world.label_style**2 + world.noise**2
    if world.levels is None:
        quality, mass, variance = np.array([mean]), np.ones(1), variance + world.slope**2
    else:
        _, edge, quality = _level_cells(world.levels)
        mass = np.diff(ndtr(edge - mean), prepend=0, append=1)
    latent = world.intercept + world.slope * quality + world.label_style * target.style - target.drop
    return float(mass @ ndtr(latent / np.sqrt(variance)))


@lru_cache(maxsize=8)  # n strings take longer than all random numbers
def _prompts(n: int, rows_per_prompt: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Prompt ids (n,) of the rows, and the index of each row's prompt, (n,) int."""
    code = np.repeat(np.arange(n), np.resize(rows_per_prompt, n))[:n]
    prompt_id = np.array([f"prompt-{i}" for i in range(code[-1] + 1)])[code]
    prompt_id.setflags(write=False)  # the array is shared by all data sets of this size
    return prompt_id, code


@lru_cache
def _level_cells(levels: tuple[tuple[float, float], ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores (k,), the edges x between the cells of quality (k - 1,), and the quality z of each cell (k,)."""
    score, mass = np.array(levels).T
    below = np.cumsum(mass) / mass.sum()
    return score, ndtri(below[:-1]), ndtri(below - mass / mass.sum() / 2)


def _first_of(order: np.ndarray, size: float) -> np.ndarray:
    """The first items in an order (n,) of all of them, (n,) bool; size: a share up to 1, a number above."""
    subset = np.zeros(len(order), bool)
    subset[order[: round(size * len(order) if size <= 1 else size)]] = True
    return subset


def _prompt_noise(world: World, prompts: int, seed: int) -> np.ndarray:
    """What the noise of all labels of a prompt has in common, (G,), of variance h."""
    if not world.strictness:
        return np.zeros(prompts)
    return np.sqrt(world.strictness) * np.random.default_rng([seed, 1]).standard_normal(prompts)  # a separate stream


def _log_ratio(target: Target, response: np.ndarray, style: np.ndarray) -> np.ndarray:
    """Log weights of base responses, from their Q and B, (n,) each."""
    quality = target.shift * response - target.shift**2 / 2
    if target.tail is None:
        return quality + target.style * style - target.style**2 / 2
    return quality + np.log1p(-1 / target.tail) - log_ndtr(-style) / target.tail  # U = Phi(-B)


def _quality(world: World, prompt: np.ndarray, response: np.ndarray) -> np.ndarray:
    """A (...), or the z of its cell, from P and Q."""
    quality = np.sqrt(world.prompt_share) * prompt + np.sqrt(1 - world.prompt_share) * response
    if world.levels is None:
        return quality
    _, edge, cell_quality = _level_cells(world.levels)
    return cell_quality[np.searchsorted(edge, quality)]


def _style(target: Target, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """B of responses of a target."""
    if target.tail is None:
        return target.style + rng.standard_normal(shape)
    return -ndtri(rng.random(shape) ** (target.tail / (target.tail - 1)))


def _judge(world: World, quality: np.ndarray, style: np.ndarray) -> dict[str, np.ndarray]:
    """The fields of the records for the judge and, where the score depends on style, for the covariate."""
    if world.levels is not None:
        score, _, cell_quality = _level_cells(world.levels)
        return {"judge_score": score[np.searchsorted(cell_quality, quality)]}
    latent = world.judge_intercept + world.judge_slope * quality + world.judge_style * style
    covariates = {"covariates": style[..., None]} if world.judge_style else {}
    if not world.judge_spread:
        return {"judge_score": ndtr(latent), **covariates}
    points = ndtr(latent[..., None] + world.judge_spread * SPREAD)  # (..., 3)
    mass = np.broadcast_to(SPREAD_MASS, points.shape)
    return {"judge_score": points @ SPREAD_MASS, "judge_points": points, "judge_mass": mass, **covariates}


def _label(
    world: World,
    quality: np.ndarray,
    style: np.ndarray,
    rng: np.random.Generator,
    prompt_noise: np.ndarray,
    drop: float = 0.0,
) -> np.ndarray:
    """Y (...) of responses with a quality, a style and a noise of their prompts (...)."""
    latent = world.intercept + world.slope * quality + world.label_style * style - drop
    own_noise = np.sqrt(1 - world.strictness) * rng.standard_normal(quality.shape)
    label = ndtr(latent + world.noise * (prompt_noise + own_noise))
    return (rng.random(label.shape) < label).astype(float) if world.binary else label


def _draws(
    world: World,
    policy: str,
    target: Target,
    prompt: np.ndarray,
    noise: np.ndarray,
    order: np.ndarray | None,
    code: np.ndarray,
    rng: np.random.Generator,
) -> Draws:
    """The fresh draws to each prompt, with P and noise (G,), repeated for each of its rows, with prompt indices (n,).

    order: the prompts (G,) in the order in which they are labelled; None labels draws at random.
    """
    shape = (len(prompt), world.draws_per_prompt)  # (G, m)
    quality = _quality(world, prompt[:, None], target.shift + target.unseen + rng.standard_normal(shape))
    has_style = world.judge_style or world.label_style
    style = _style(target, shape, rng) if has_style else np.zeros(shape)
    label = np.full(shape, np.nan)
    if world.target_labels:
        label_rng = rng.spawn(1)[0]  # a separate stream, so that labels do not change the other random numbers
        if order is None:
            labelled = _first_of(label_rng.permutation(label.size), world.target_labels).reshape(shape)
        else:
            by_draw = np.concatenate([order * shape[1] + draw for draw in range(shape[1])])
            labelled = _first_of(by_draw, world.target_labels).reshape(shape)
        own_label = _label(world, quality, style, label_rng, noise[:, None], target.drop)
        label = np.where(labelled, own_label, np.nan)
    fields = {name: values[code] for name, values in _judge(world, quality, style).items()}
    return Draws(policy, oracle_label=label[code], **fields)
