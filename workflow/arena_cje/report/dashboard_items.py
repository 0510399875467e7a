"""Items of the dashboard: numbers of the listed rows, and texts of as many as the page can hold.

Rows are in one order, which alternates between the most influential remaining row and the next one of a seeded shuffle.
Where the page cannot hold all rows (more rows than `LISTED`, more texts than `TEXT_BYTES`, points of a figure) it holds the
first ones of that order: half of them are the most influential, half are a random sample. The page states their number.

    share_i = max over policies of influence_i^2 / sum influence^2,   weight_i = exp(d_i) / mean(exp(d))

Influence values of a refused policy are included: they are centred, and its level cannot be derived from them.
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
    from collections.abc import Collection, Mapping, Sequence

    from arena_cje.results.record import ResultRecord

LISTED = 20_000  # largest number of rows, since browsers open larger pages slowly
TEXT_BYTES = 1_400_000  # bytes of texts in the page, which is then under 3 MB for 200 prompts and 6 policies
CUTS = (8000, 4000, 2000)  # characters of a text: the first with which the texts of all rows fit, else the last
BEGINNING = 90  # characters of the prompt that the list shows
DRAW_TEXTS = 2  # draws per policy with a text; all draws have their scores
OUTSIDE = "outside"  # in JSON, for a log ratio of -inf
SHUFFLE = 0  # seed

# Characters that end a script element, start a comment or end a line of old JavaScript, escaped as in JSON.
ESCAPES = str.maketrans({c: f"\\u{ord(c):04x}" for c in "<>&\u2028\u2029"})


def script_json(value: Any) -> str:
    """The value as JSON that is safe inside a script element."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return valid_unicode(text).translate(ESCAPES)


def valid_unicode(text: str) -> str:
    """The text as valid Unicode: lone surrogates become the replacement character."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def analysed_rows(result: ResultRecord, logged: Sequence[Response]) -> list[Response]:
    """The responses from which the result was computed, in its order."""
    rows = [response for response in logged if response.judge_score is not None]
    ids = [response.prompt_id for response in rows]
    if result.prompt_id is not None and ids != result.prompt_id.tolist():
        raise UserError(
            f"{result.name}: the logged rows are not those of the results file ({len(ids)} rows with a judge score, "
            f"{len(result.prompt_id)} in the result); give the data set that was analysed"
        )
    return rows


def weights_of(logged: Sequence[Response], policies: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Log ratios (n, p), -inf outside the support and NaN where not scored, and the log of their mean ratio (p,)."""
    ratio = np.array([log_ratios(response, policies) for response in logged], dtype=float)
    ratio = ratio.reshape(len(logged), len(policies))
    return ratio, np.array([_log_mean(column[~np.isnan(column)]) for column in ratio.T])


def _log_mean(ratio: np.ndarray) -> float:
    """Log of the mean of exp(ratio) (n,), NaN if there is no finite ratio."""
    largest = ratio.max(initial=-np.inf)
    return math.nan if largest == -np.inf else float(largest + np.log(np.mean(np.exp(ratio - largest))))


def influence_shares(influence: np.ndarray) -> np.ndarray:
    """Largest share of a row in the sampling variance of a policy; (n,) from influence values (n, p).

    NaN for a row without influence values.
    """
    squared = np.nan_to_num(influence) ** 2
    total = squared.sum(axis=0)
    share = np.divide(squared, total, out=np.zeros_like(squared), where=total > 0).max(axis=1, initial=0.0)
    return np.where(np.isnan(influence).all(axis=1), np.nan, share)


def display_order(share: np.ndarray) -> np.ndarray:
    """Order of the rows: alternately the most influential remaining row and the next one of a shuffle; (n,) int."""
    by_influence = np.argsort(-share, kind="stable")
    shuffled = np.random.default_rng(SHUFFLE).permutation(len(share))
    alternating = chain.from_iterable(zip(by_influence.tolist(), shuffled.tolist(), strict=True))
    return np.array(list(dict.fromkeys(alternating)), dtype=int)


def listed_prompts(result: ResultRecord) -> Collection[str] | None:
    """Prompts of the rows that the page lists; None where it lists all."""
    if result.prompt_id is None or len(result.prompt_id) <= LISTED:
        return None
    share = influence_shares(_influence(result, len(result.prompt_id)))
    return frozenset(result.prompt_id[display_order(share)[:LISTED]].tolist())


def items(result: ResultRecord, logged: Sequence[Response], draws: Mapping[str, Sequence[Response]]) -> dict[str, Any]:
    """Columns of all listed rows, and texts of the first of them. Policies are lists, so that no name is a key."""
    rows = analysed_rows(result, logged)
    policies = result.policies
    influence = _influence(result, len(rows))
    share = influence_shares(influence)
    order = display_order(share)[:LISTED]
    ratio, log_mean = weights_of(rows, policies)
    listed = [rows[k] for k in order]
    draws_by_row = _draws_by_row(listed, [draws.get(policy, ()) for policy in policies])
    texts, cut = _texts(listed, draws_by_row)
    return {
        "n_rows": len(rows),
        "cut": cut,
        "id": [response.prompt_id for response in listed],
        "draw": [response.draw_idx for response in listed] if any(r.draw_idx for r in listed) else None,
        "begin": [_beginning(response) if k >= len(texts) else None for k, response in enumerate(listed)],
        "score": _rounded([response.judge_score for response in listed]),
        "label": _rounded([response.oracle_label for response in listed]),
        "ratio": [_rounded(np.round(column, 3), digits=9) for column in ratio[order].T],
        "log_mean": [None if math.isnan(value) else value for value in log_mean.tolist()],
        # The base policy first; of a row's move and the sum of squares follows its share in the sampling variance.
        "move": [_rounded(column) for column in influence[order].T / max(len(rows), 1)],
        "squares": _rounded(np.nansum((influence / max(len(rows), 1)) ** 2, axis=0)),
        "draws": [
            [[[_short(draw.judge_score), _short(draw.oracle_label)] for draw in of_row[k]] for of_row in draws_by_row]
            for k in range(len(policies))
        ],
        "texts": texts,
    }


def _influence(result: ResultRecord, n: int) -> np.ndarray:
    """Influence values (n, 1 + p), the base policy first; all NaN without their file."""
    if result.influence is None or result.base_influence is None:
        return np.full((n, 1 + len(result.policies)), np.nan)
    return np.column_stack([result.base_influence, result.influence])


def _draws_by_row(rows: Sequence[Response], draws: Sequence[Sequence[Response]]) -> list[list[list[Response]]]:
    """For each row and policy, the fresh draws for the row's prompt."""
    by_prompt: list[dict[str, list[Response]]] = []
    for of_policy in draws:
        by_prompt.append({})
        for draw in of_policy:
            by_prompt[-1].setdefault(draw.prompt_id, []).append(draw)
    return [[draws_of_prompt.get(row.prompt_id, []) for draws_of_prompt in by_prompt] for row in rows]


def _texts(rows: Sequence[Response], draws_by_row: Sequence[list[list[Response]]]) -> tuple[list[Any], int]:
    """Texts of as many of the first rows as fit, and the length to which each text is shortened."""
    for cut in CUTS:
        texts, size = [], 0
        for row, draws in zip(rows, draws_by_row, strict=True):
            entry = _entry(row, draws, cut)
            size += len(script_json(entry).encode())
            if size > TEXT_BYTES:
                break
            texts.append(entry)
        if len(texts) == len(rows):
            break
    return texts, cut


def _entry(row: Response, draws: list[list[Response]], cut: int) -> list[Any]:
    """[prompt, response, draws by policy]; a shortened text is [its beginning, its length]."""
    fresh = [[_shorten(draw.row.get("response"), cut) for draw in of_policy[:DRAW_TEXTS]] for of_policy in draws]
    return [_shorten(row.row.get("prompt"), cut), _shorten(row.row.get("response"), cut), fresh]


def _shorten(text: str | None, length: int) -> Any:
    """The text, or [its beginning, its length] if it is too long."""
    return text if text is None or len(text) <= length else [text[:length], len(text)]


def _beginning(response: Response) -> str | None:
    """The first characters of the prompt, on one line."""
    prompt = response.row.get("prompt")
    return None if prompt is None else " ".join(prompt[: 2 * BEGINNING].split())[:BEGINNING]


def _rounded(values: Any, digits: int = 4) -> list[Any]:
    return [_short(value, digits) for value in (values.tolist() if isinstance(values, np.ndarray) else values)]


def _short(value: float | None, digits: int = 4) -> Any:
    """A number with few digits, which saves two thirds of the bytes; None for NaN, OUTSIDE for an infinite one."""
    if value is None or math.isnan(value):
        return None
    if math.isinf(value):
        return OUTSIDE
    return float(f"{value:.{digits}g}") if value != int(value) else int(value)
