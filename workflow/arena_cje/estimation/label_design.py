"""Where to buy labels: more of them where the target policies' judge scores lie, with known probabilities.

    d_i  =  a + (1 - a) q_i / mean q,   q_i = max_t p_t(b_i) / p_0(b_i)     density of prompt i, of mean one
    pi_i = min(1, s d_i),   s such that sum pi_i = m                      probability of a label, of m in all

b_i is the cell of the base response's score, p_t(b) the share of policy t's scores in cell b, p_0 that of the base, which is
one of the policies t. Labels at a score serve a policy by its share of responses there, so that the m_b labels of a cell
are best about proportional to max_t p_t(b), if residuals spread alike in all cells, which is unknown before there are
labels. a is the least share of the uniform design, from .2 on, with

    sum_b p_t(b)^2 / (p_0(b) d_b)  <=  1.15 sum_b p_t(b)^2 / p_0(b)     for every policy t.

These sums are the variances of values with this design and with the uniform one; for the base they are those of a mean
of labels, too. So no standard error is more than a tenth larger than under the uniform design.

A prompt has a permanent random number u_i, and the m prompts with the smallest u_i / d_i get labels: more labels only add
to fewer, and a design that changes keeps most of them. All policies have the same d_i, so that labels of one prompt stay
together. Probabilities of inclusion are pi_i to a good approximation.

Neyman (1934), "On the two different aspects of the representative method", JRSS; Zrnic & Candes (2024), "Active statistical
inference" (arXiv 2403.03208), for weights 1 / pi; Fisch et al. (2024), "Stratified prediction-powered inference" (arXiv
2406.04291), for cells of scores; Li, Zrnic & Candes (2025), "Robust sampling for active statistical inference" (arXiv
2511.08991), for the mixture with the uniform design; Ohlsson (1998), "Sequential Poisson sampling", Journal of Official
Statistics, for the permanent random numbers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from arena_cje.estimation.fresh import prompt_weights
from arena_cje.estimation.label_floor import Cells

if TYPE_CHECKING:
    from collections.abc import Sequence

UNIFORM = 0.2  # least share of the uniform design
LOSS = 1.15  # largest variance of a policy's value, relative to that under the uniform design
SHARES = np.linspace(UNIFORM, 1.0, 81)  # of the uniform design


def densities(base_score: np.ndarray, target_scores: Sequence[np.ndarray]) -> np.ndarray:
    """The densities d (n,), of mean one, from scores of the base (n,) and of targets' draws (n, m), NaN where there is none.

    A prompt whose base response has no score has the mean.
    """
    scored, density = ~np.isnan(base_score), np.ones(len(base_score))
    if not scored.any():
        return density
    cells = Cells.of(np.concatenate([base_score, *(score.reshape(-1) for score in target_scores)]))
    masses = [cells.mass(base_score, scored.astype(float))]
    masses += [cells.mass(score, prompt_weights(score)) for score in target_scores]
    has_base = masses[0] > 0  # cells with a base response, which alone can be labelled more often
    share = np.array([mass[has_base] / mass.sum() for mass in masses if mass[has_base].sum() > 0])  # (1 + targets, b)
    ideal = share.max(axis=0) / share[0]
    by_cell = np.ones(len(has_base))
    by_cell[has_base] = _with_uniform(ideal / (share[0] @ ideal), share)
    density[scored] = by_cell[np.searchsorted(cells.edges, base_score[scored], side="right")]
    return density


def _with_uniform(ideal: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Densities (b,) of the cells, mixed with the uniform design; share: of each policy's scores in them, the base's first."""
    variance = share**2 / share[0]  # (policies, b) under the uniform design
    for uniform in SHARES:
        density = uniform + (1 - uniform) * ideal
        if np.max(np.sum(variance / density, axis=1) / variance.sum(axis=1)) <= LOSS:
            break
    return density


def probabilities(density: np.ndarray, labels: int) -> np.ndarray:
    """The probabilities pi (n,) of a label, which sum to the number of labels; density: (n,), above zero."""
    if labels >= len(density):
        return np.ones(len(density))
    falling = np.sort(density)[::-1]
    certain = np.arange(len(density))  # how many of the highest densities have a probability of one
    rest = np.cumsum(falling[::-1])[::-1]  # (n,) sum of the others
    scale = np.maximum(labels - certain, 0) / rest
    fits = np.flatnonzero(scale * falling <= 1)
    return np.minimum(1.0, scale[fits[0]] * density)


def chosen(density: np.ndarray, number: np.ndarray, labels: int) -> np.ndarray:
    """The prompts (n,) bool that get a label, from permanent random numbers (n,) in [0, 1)."""
    mask = np.zeros(len(density), dtype=bool)
    mask[np.argsort(number / density, kind="stable")[:labels]] = True
    return mask
