"""Single items for the dashboard: every listed row in numbers, texts for as many as a page bears.

Rows stand in one order, by turns the most influential one left and the next of a seeded shuffle. Whatever a page cannot
hold for all rows (the rows themselves above `LISTED`, texts above `TEXT_BYTES`, points of a figure) is a beginning of
that order: half of it matters most, half of it is a sample of everything. The page says each time how many that is.

    share_i = max over policies of influence_i^2 / sum influence^2,   weight_i = exp(d_i) / mean(exp(d))

A refused policy keeps its influence values here: they are centred and tell nothing of its level.
"""

from __future__ import annotations

import json
import math
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from arena_cje.data.rows import Response, log_ratios
from arena_cje.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from arena_cje.results.record import ResultRecord

LISTED = 20_000  # rows; more would make a page that browsers open slowly
TEXT_BYTES = 1_400_000  # of texts in the page, so that it stays under 3 MB for 200 prompts and 6 policies
CUTS = (8000, 4000, 2000)  # characters of a text: the longest at which all listed rows have theirs, else the last
BEGINNING = 90  # characters of its prompt that every row shows
DRAW_TEXTS = 2  # draws of a policy whose text is kept with an item; all have their scores
OUTSIDE = "outside"  # stands for a log ratio of -inf, which JSON cannot hold
SHUFFLE = 0  # seed

# Characters that end a script element, start a comment or end a line of old JavaScript; JSON may spell them so.
ESCAPES = str.maketrans({c: f"\\u{ord(c):04x}" for c in "<>&\u2028\u2029"})


def embedded(value: Any) -> str:
    """JSON that may stand inside a script element, whatever it holds."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return whole(text).translate(ESCAPES)


def whole(text: str) -> str:
    """Text that UTF-8 can hold: halves of surrogate pairs become the replacement character."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def usable(result: ResultRecord, logged: Sequence[Response]) -> list[Response]:
    """The responses that the result was computed from, in its order."""
    kept = [response for response in logged if response.judge_score is not None]
    ids = [response.prompt_id for response in kept]
    if result.prompt_id is not None and ids != result.prompt_id.tolist():
        raise UserError(
            f"{result.name}: the logged rows are not those of the results file ({len(ids)} rows with a judge score, "
            f"{len(result.prompt_id)} in the result); give the data set that was analysed"
        )
    return kept


def weights_of(logged: Sequence[Response], policies: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Log ratios (n, p), -inf outside the support and NaN where not scored, and the log of their mean ratio (p,)."""
    ratio = np.array([log_ratios(response, policies) for response in logged], dtype=float)
    ratio = ratio.reshape(len(logged), len(policies))
    return ratio, np.array([_log_mean(column[~np.isnan(column)]) for column in ratio.T])


def _log_mean(ratio: np.ndarray) -> float:
    largest = ratio.max(initial=-np.inf)
    return math.nan if largest == -np.inf else float(largest + np.log(np.mean(np.exp(ratio - largest))))


def shares(influence: np.ndarray) -> np.ndarray:
    """How much of its policy's sampling variance a row makes, by the policy where it makes most; (n,) from (n, p).

    NaN where no influence of the row is known.
    """
    squared = np.nan_to_num(influence) ** 2
    total = squared.sum(axis=0)
    share = np.divide(squared, total, out=np.zeros_like(squared), where=total > 0).max(axis=1, initial=0.0)
    return np.where(np.isnan(influence).all(axis=1), np.nan, share)


def turns(share: np.ndarray) -> np.ndarray:
    """Rows by turns: the most influential one left, then the next one of a shuffle; (n,) int."""
    by_influence = np.argsort(-share, kind="stable")
    shuffled = np.random.default_rng(SHUFFLE).permutation(len(share))
    alternating = chain.from_iterable(zip(by_influence.tolist(), shuffled.tolist(), strict=True))
    return np.array(list(dict.fromkeys(alternating)), dtype=int)


def items(result: ResultRecord, logged: Sequence[Response], draws: Mapping[str, Sequence[Response]]) -> dict[str, Any]:
    """Columns of all listed rows, and texts of the first of them. Policies are numbered: no name becomes a key."""
    rows = usable(result, logged)
    policies = result.policies
    influence = _influence(result, len(rows))
    share = shares(influence)
    order = turns(share)[:LISTED]
    ratio, log_mean = weights_of(rows, policies)
    listed = [rows[k] for k in order]
    drawn = _draws_of(listed, [draws.get(policy, ()) for policy in policies])
    texts, cut = _texts(listed, drawn)
    return {
        "n_rows": len(rows),
        "cut": cut,
        "id": [response.prompt_id for response in listed],
        "draw": [response.draw_idx for response in listed] if any(r.draw_idx for r in listed) else None,
        "begin": [_beginning(response) if k >= len(texts) else None for k, response in enumerate(listed)],
        "score": _rounded([response.judge_score for response in listed]),
        "label": _rounded([response.oracle_label for response in listed]),
        "share": _rounded(share[order]),
        "ratio": [_rounded(np.round(column, 3), digits=9) for column in ratio[order].T],
        "log_mean": [None if math.isnan(value) else value for value in log_mean.tolist()],
        "move": [_rounded(column) for column in influence[order].T / max(len(rows), 1)],  # the base policy first
        "draws": [
            [[[_short(draw.judge_score), _short(draw.oracle_label)] for draw in of_row[k]] for of_row in drawn]
            for k in range(len(policies))
        ],
        "texts": texts,
    }


def _influence(result: ResultRecord, n: int) -> np.ndarray:
    """Influence values (n, 1 + p), the base policy first; NaN throughout where their file is gone."""
    if result.influence is None or result.base_influence is None:
        return np.full((n, 1 + len(result.policies)), np.nan)
    return np.column_stack([result.base_influence, result.influence])


def _draws_of(rows: Sequence[Response], draws: Sequence[Sequence[Response]]) -> list[list[list[Response]]]:
    """For each row the fresh draws of each policy to its prompt, none where there are none."""
    by_prompt: list[dict[str, list[Response]]] = []
    for of_policy in draws:
        by_prompt.append({})
        for draw in of_policy:
            by_prompt[-1].setdefault(draw.prompt_id, []).append(draw)
    return [[known.get(row.prompt_id, []) for known in by_prompt] for row in rows]


def _texts(rows: Sequence[Response], drawn: Sequence[list[list[Response]]]) -> tuple[list[Any], int]:
    """Texts of the first rows, as many as fit, and the length that each text is cut at."""
    for cut in CUTS:
        found, size = [], 0
        for row, draws in zip(rows, drawn, strict=True):
            entry = _entry(row, draws, cut)
            size += len(embedded(entry).encode())
            if size > TEXT_BYTES:
                break
            found.append(entry)
        if len(found) == len(rows):
            break
    return found, cut


def _entry(row: Response, draws: list[list[Response]], cut: int) -> list[Any]:
    """[prompt, response, draws by policy]; a text is itself, or [its beginning, its length] where it was cut."""
    fresh = [[_cut(draw.row.get("response"), cut) for draw in of_policy[:DRAW_TEXTS]] for of_policy in draws]
    return [_cut(row.row.get("prompt"), cut), _cut(row.row.get("response"), cut), fresh]


def _cut(text: str | None, length: int) -> Any:
    return text if text is None or len(text) <= length else [text[:length], len(text)]


def _beginning(response: Response) -> str | None:
    prompt = response.row.get("prompt")
    return None if prompt is None else " ".join(prompt[: 2 * BEGINNING].split())[:BEGINNING]


def _rounded(values: Any, digits: int = 4) -> list[Any]:
    return [_short(value, digits) for value in (values.tolist() if isinstance(values, np.ndarray) else values)]


def _short(value: float | None, digits: int = 4) -> Any:
    """Four digits: what a reader of the page can use, at a third of the bytes."""
    if value is None or math.isnan(value):
        return None
    if math.isinf(value):
        return OUTSIDE
    return float(f"{value:.{digits}g}") if value != int(value) else int(value)
