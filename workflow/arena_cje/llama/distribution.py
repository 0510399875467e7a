"""The distribution a token is drawn from, as logits, temperature and nucleus define it; the one place that computes it.

    p(a) = 1[a in N] exp(l_a / T) / sum_{b in N} exp(l_b / T),   N the nucleus, T = 0 the most probable token for sure

N is the smallest set of most probable tokens (after temperature) whose mass reaches top_p, equals ordered by token id
(Holtzman et al. 2020, "The Curious Case of Neural Text Degeneration", ICLR). Sampling and scoring share this
definition: an importance weight needs the probability with which the text was in fact drawn.

An engine's logits differ a little between generating (many sequences a pass) and scoring (one sequence a pass): by
about 0.01 with 16-bit weights, 0.3 with 4-bit ones. So a token drawn at the edge of the nucleus may lie just outside
when scored. Tokens near the edge are counted; for the policy that drew the text (`drawn`) they count as inside, and for
no other, since its probabilities would then sum to more than one.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np

ROUNDING = 1e-6  # a mass this close to top_p has reached it: more than the rounding of 32-bit exponentials
BOUNDARY = 0.05  # mass; a token this close to the edge of the nucleus is on its boundary
COLDEST = 1e-3  # temperature; below it 32-bit logits overflow
MARGIN = 0.5  # nats between the two best tokens, below which the greedy choice is on the boundary


@dataclass(frozen=True)
class Sampling:
    """Temperature and nucleus mass; temperature 0 is greedy."""

    temperature: float = 1.0
    top_p: float = 1.0

    def __post_init__(self) -> None:
        if self.temperature != 0 and not COLDEST <= self.temperature < np.inf:
            raise ValueError(f"temperature must be 0 (greedy) or at least {COLDEST}, got {self.temperature}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be in (0, 1], got {self.top_p}")


def log_probs(logits: np.ndarray, sampling: Sampling) -> np.ndarray:
    """Log probability of every token, (t, V) nats, -inf outside the nucleus, from logits (t, V)."""
    bounded = sampling.temperature == 0 or sampling.top_p < 1
    result = np.full(logits.shape, -np.inf)  # (t, V)
    buffer = np.empty(logits.shape[-1], dtype=np.float32)
    for row, out in zip(logits, result, strict=True):
        weight = _weights(row, sampling, buffer)
        inside = weight > 0 if bounded else slice(None)
        shifted = row[inside].astype(np.float64) - np.float64(row.max())
        scaled = shifted / sampling.temperature if sampling.temperature > 0 else shifted
        out[inside] = scaled - np.log(weight.sum(dtype=np.float64))
    return result


def token_log_probs(
    logits: np.ndarray, ids: np.ndarray, sampling: Sampling, *, is_sampled: bool = False
) -> tuple[np.ndarray, int]:
    """Log probability of token `ids[i]` under row i, (t,) nats, and how many of these lie on the nucleus' boundary.

    With `is_sampled` the text was sampled from this very distribution, so a token on the boundary counts as inside.
    """
    one = _one_greedy if sampling.temperature == 0 else _one_nucleus if sampling.top_p < 1 else _one_full
    buffer = np.empty(logits.shape[-1], dtype=np.float32)
    result = np.empty(len(ids))  # (t,) nats
    n_boundary = 0
    for i, (row, token) in enumerate(zip(logits, ids, strict=True)):
        logprob, inside, on_boundary = one(row, token, sampling, buffer)
        result[i] = logprob if inside or (is_sampled and on_boundary) else -np.inf
        n_boundary += int(on_boundary)
    return result, n_boundary


def sample(logits: np.ndarray, sampling: Sampling, uniforms: np.ndarray) -> np.ndarray:
    """One token a row, (s,) int, by inverting the distribution function at `uniforms` (s,) in [0, 1)."""
    buffer = np.empty(logits.shape[-1], dtype=np.float32)
    ids = np.empty(len(logits), dtype=np.int64)
    # Row by row: each fits the processor's cache, and no row can change another's bits.
    for i, (row, uniform) in enumerate(zip(logits, uniforms, strict=True)):
        cumulative = np.cumsum(_weights(row, sampling, buffer), dtype=np.float64)  # (V,)
        total = cumulative[-1]
        if not np.isfinite(total):
            raise ValueError("logits are not finite numbers: the model file or the accelerator is at fault")
        ids[i] = np.searchsorted(cumulative, uniform * total, side="right")
    return ids


def stream(seed: int, policy: str, prompt_id: str, draw: int) -> np.random.Generator:
    """The random stream of one response: the same whoever shares the batch, the shard or the run."""
    digest = blake2b(json.dumps([seed, policy, prompt_id, draw]).encode(), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "little")))


def _weights(row: np.ndarray, sampling: Sampling, buffer: np.ndarray) -> np.ndarray:
    """Unnormalised probabilities, (V,) float32 in `buffer`: 1 for the best token, 0 outside the nucleus."""
    if sampling.temperature == 0:
        buffer[:] = 0
        buffer[row.argmax()] = 1
        return buffer
    _exponentials(row, sampling.temperature, buffer)
    if sampling.top_p < 1:
        ordered, cumulative = _ordered(buffer)
        n_kept = _nucleus_size(cumulative, sampling.top_p)
        least = ordered[n_kept - 1]  # its equals with the lowest ids are inside
        tied = np.flatnonzero(buffer == least)
        buffer[buffer < least] = 0
        buffer[tied[n_kept - _n_above(ordered, least) :]] = 0
    return buffer


def _exponentials(row: np.ndarray, temperature: float, buffer: np.ndarray) -> None:
    np.subtract(row, row.max(), out=buffer)
    if temperature != 1:
        buffer /= np.float32(temperature)
    np.exp(buffer, out=buffer)


def _ordered(weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The weights from large to small, and their cumulative sums in 64 bits."""
    ordered = np.sort(weight)[::-1]
    return ordered, np.cumsum(ordered, dtype=np.float64)


def _nucleus_size(cumulative: np.ndarray, top_p: float) -> int:
    """How many tokens the nucleus holds."""
    return int(np.searchsorted(cumulative, (top_p - ROUNDING) * cumulative[-1])) + 1


def _n_above(ordered: np.ndarray, weight: np.float32) -> int:
    """How many tokens are more probable than one of this weight."""
    return len(ordered) - int(np.searchsorted(ordered[::-1], weight, side="right"))


def _one_full(row: np.ndarray, token: int, sampling: Sampling, buffer: np.ndarray) -> tuple[float, bool, bool]:
    """(log probability, inside the nucleus, on its boundary) of one token without a nucleus."""
    _exponentials(row, sampling.temperature, buffer)
    scaled = (np.float64(row[token]) - np.float64(row.max())) / sampling.temperature
    return scaled - np.log(buffer.sum(dtype=np.float64)), True, False


def _one_nucleus(row: np.ndarray, token: int, sampling: Sampling, buffer: np.ndarray) -> tuple[float, bool, bool]:
    _exponentials(row, sampling.temperature, buffer)
    ordered, cumulative = _ordered(buffer)
    n_kept = _nucleus_size(cumulative, sampling.top_p)
    weight = buffer[token]
    rank = _n_above(ordered, weight) + int(np.count_nonzero(buffer[:token] == weight))
    before = cumulative[rank - 1] / cumulative[-1] if rank > 0 else 0.0  # mass of the tokens that go first
    scaled = (np.float64(row[token]) - np.float64(row.max())) / sampling.temperature
    return scaled - np.log(cumulative[n_kept - 1]), rank < n_kept, abs(before - sampling.top_p) < BOUNDARY


def _one_greedy(row: np.ndarray, token: int, _: Sampling, buffer: np.ndarray) -> tuple[float, bool, bool]:
    np.copyto(buffer, row)
    buffer[token] = -np.inf
    return 0.0, row.argmax() == token, abs(row[token] - buffer.max()) < MARGIN
