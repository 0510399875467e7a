"""Blind tasks: which texts people label, in which order, and the files that platforms read.

Prompts enter in the order of the oracle slice (`data.coverage`), so that a larger batch, or a later one, holds the texts of the
smaller one and more: later batches show only what is new. A prompt enters with the base's response and those of its targets.
Prompts whose labels are for validation alone follow with the responses of all policies.
An id is an HMAC of the text: it reveals nothing without the key, and equal texts of two policies are one item with one label.

    place of the k-th of n items of a policy = (k + u) / n,    u uniform in [0, 1)

Tasks are sorted by place, so that every stretch of the list has about the same share of each policy. A share of the first
half comes again half a list later: raters who vote otherwise the second time are not sure of themselves.
"""

from __future__ import annotations

import hmac
import json
import math
import os
import secrets
from collections import defaultdict
from dataclasses import asdict, dataclass, fields
from hashlib import blake2b, sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from arena_cje.data.coverage import ONE, entry
from arena_cje.errors import UserError
from arena_cje.labeling.cells import csv_bytes, read_csv, write_private
from arena_cje.labeling.records import Answer, KeyRow, Task

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

Span = tuple[float, float]  # from, to: shares of the prompts in the order in which they enter

KEY_COLUMNS = tuple(field.name for field in fields(KeyRow))
TASK_COLUMNS = ("item_id", "batch", "position", "prompt", "response", "score", "comment")
PLATFORM_COLUMNS = ("item_id", "batch", "prompt", "response")  # what platforms show, and give back with each vote


@dataclass(frozen=True)
class Limit:
    """How large a batch is: by exactly one of its fields."""

    coverage: float | None = None  # share of the experiment's prompts, with those of the batches before
    labels: int | None = None  # votes of this batch
    usd: float | None = None  # price of this batch's votes

    def __post_init__(self) -> None:
        if sum(value is not None for value in asdict(self).values()) != 1:
            raise UserError("a labelling batch needs exactly one of `coverage`, `labels` and `usd`")


@dataclass(frozen=True)
class Terms:
    """What is the same for all batches of a study."""

    votes: int = 3  # of different raters on an item
    price: float | None = None  # US dollars for a vote; None: unknown
    duplicates: float = 0.05  # share of items that come twice

    def cost(self, n_items: int) -> tuple[int, float | None]:
        """Votes that some items take, copies included, and their price."""
        n_votes = (n_items + self.n_copies(n_items)) * self.votes
        return n_votes, None if self.price is None else n_votes * self.price

    def n_copies(self, n_items: int) -> int:
        """Items that come twice: at most half of them, since a copy comes half a list later."""
        return min(math.ceil(self.duplicates * n_items), n_items // 2)


@dataclass(frozen=True)
class Batch:
    """Tasks in the order in which raters see them, and whose responses they are."""

    name: str
    tasks: tuple[Task, ...]
    key: tuple[KeyRow, ...]
    n_items: int  # different texts
    n_votes: int
    usd: float | None
    coverage: float  # share of the experiment's prompts in this batch and those before

    @property
    def summary(self) -> dict[str, Any]:
        """What the batch is, without a word about policies."""
        names = ("name", "n_items", "n_votes", "usd", "coverage")
        return {name: getattr(self, name) for name in names} | {"n_tasks": len(self.tasks)}


def study_secret(path: str | Path) -> bytes:
    """The secret of a study's ids, made once: another one would make all tasks that are out unknown."""
    path = Path(path)
    if not path.exists():
        fresh = path.with_name(f".{path.name}.{os.getpid()}")
        write_private(fresh, secrets.token_hex(32).encode())
        try:
            os.link(fresh, path)  # fails where another job was first, whose secret then holds
        except FileExistsError:
            pass
        finally:
            fresh.unlink()
    secret = path.read_bytes().strip()
    if len(secret) < 32:
        raise UserError(
            f"{path}: is not the secret file of this labelling study; restore the file with which the tasks were made"
        )
    return secret


def plain(text: str) -> str:
    """A text as it is after a way through spreadsheets and platforms: line ends and spaces around it do not count."""
    text = text.replace("\0", "\ufffd").replace("\r\n", "\n").replace("\r", "\n")
    return "\n".join(line.rstrip() for line in text.split("\n")).strip()


def text_id(prompt: str, response: str) -> str:
    """Hash of what raters see, by which a changed text is noticed."""
    return sha256(f"{plain(prompt)}\0{plain(response)}".encode("utf-8", "replace")).hexdigest()[:16]


def _id(secret: bytes, *parts: str) -> str:
    return hmac.new(secret, json.dumps(parts).encode(), sha256).hexdigest()[:20]


def make(
    answers: Sequence[Answer],
    *,
    name: str,
    limit: Limit,
    terms: Terms,
    n_prompts: int,
    seed: int,
    secret: bytes,
    shares: Mapping[str, float],
    validation: Span | None = None,
    earlier: Sequence[KeyRow] = (),
) -> Batch:
    """The batch `name`, without what earlier batches have.

    n_prompts: of the experiment; shares: of the prompts, by the policies that are labelled at all; validation: where prompts
    with labels for validation begin and end.
    """
    earlier_answers = {(row.prompt_id, row.policy, row.draw_idx) for row in earlier}
    earlier_items = {row.item_id: row for row in reversed(earlier)}
    chosen: list[tuple[Answer, str]] = []
    new: set[str] = set()
    last = -1  # entry of the last prompt
    for at, of_prompt in _by_prompt(answers, shares, validation):
        if limit.coverage is not None and at >= int(limit.coverage * ONE):
            break
        pairs = [
            (answer, _id(secret, answer.prompt_id, answer.prompt, answer.response))
            for answer in of_prompt
            if (answer.prompt_id, answer.policy, answer.draw_idx) not in earlier_answers
        ]
        larger = new | {item for _, item in pairs} - earlier_items.keys()
        n_votes, usd = terms.cost(len(larger))
        if limit.labels is not None and n_votes > limit.labels:
            break
        if limit.usd is not None:
            if usd is None:
                raise UserError(f"batch {name!r} is limited by money, but the price of a vote is unknown; set `price`")
            if usd > limit.usd + 1e-9:
                break
        chosen += pairs
        new, last = larger, at
    # The order of the prompts is random, so that each was as likely as another to be among those that enter first.
    reached = sum(entry(position) <= last for position in range(n_prompts)) / n_prompts
    tasks, repeated = _ordered(chosen, earlier_items, terms, seed, secret, name)
    key = tuple(
        KeyRow(
            item_id=item,
            copy_id=_id(secret, item, "copy"),
            batch=earlier_items[item].batch if item in earlier_items else name,
            prompt_id=answer.prompt_id,
            policy=answer.policy,
            draw_idx=answer.draw_idx,
            inclusion_probability=_labelled_share(reached, shares[answer.policy], validation),
            text_id=text_id(answer.prompt, answer.response),
            repeated=earlier_items[item].repeated if item in earlier_items else item in repeated,
        )
        for answer, item in sorted(chosen, key=lambda pair: (pair[1], pair[0].policy))
    )
    n_votes, usd = terms.cost(len(new))
    return Batch(name, tasks, key, len(new), n_votes, usd, reached)


def is_labelled(at: int, share: float, validation: Span | None) -> bool:
    """Whether people label a policy's response to the prompt that enters at `at`; share: of the policy's labels for estimates."""
    begin, end = validation or (0.0, 0.0)
    return at < int(share * ONE) or int(begin * ONE) <= at < int(end * ONE)


def _labelled_share(reached: float, share: float, validation: Span | None) -> float:
    """Share of the prompts whose responses of a policy are labelled once batches have reached a share of all prompts."""
    begin, end = validation or (0.0, 0.0)
    return min(reached, share) + max(0.0, min(reached, end) - max(begin, share))


def _by_prompt(
    answers: Iterable[Answer], shares: Mapping[str, float], validation: Span | None
) -> list[tuple[int, list[Answer]]]:
    """Answers of each prompt with its entry, in the order in which prompts enter."""
    by_position: dict[int, list[Answer]] = defaultdict(list)
    for answer in answers:
        share = shares.get(answer.policy)
        if answer.draw_idx == 0 and share is not None and is_labelled(entry(answer.position), share, validation):
            by_position[answer.position].append(answer)
    return sorted(
        ((entry(position), of_prompt) for position, of_prompt in by_position.items()), key=lambda pair: pair[0]
    )


def _ordered(
    chosen: Sequence[tuple[Answer, str]],
    earlier_items: Collection[str],
    terms: Terms,
    seed: int,
    secret: bytes,
    name: str,
) -> tuple[tuple[Task, ...], set[str]]:
    """Tasks of the items that are in no earlier batch, and the items that come twice."""
    rng = np.random.Generator(np.random.Philox(key=_stream(seed, name)))
    texts: dict[str, Answer] = {}
    owners: dict[str, list[str]] = defaultdict(list)  # an item of several policies counts for the first
    for answer, item in chosen:
        if item not in earlier_items and item not in texts:
            texts[item] = answer
            owners[answer.policy].append(item)
    places: list[tuple[float, str, str]] = []  # place, id in the task, item
    for items in owners.values():
        order = rng.permutation(len(items))
        jitter = rng.random(len(items))
        places += [
            ((k + u) / len(items), items[i], items[i]) for (k, i), u in zip(enumerate(order), jitter, strict=True)
        ]
    places.sort()
    n_copies = terms.n_copies(len(places))
    half = places[: len(places) // 2]
    twice = [half[k * len(half) // n_copies] for k in range(n_copies)]
    places += [(place + 0.5, _id(secret, item, "copy"), item) for place, _, item in twice]
    tasks = (Task(task_id, texts[item].prompt, texts[item].response) for _, task_id, item in sorted(places))
    return tuple(tasks), {item for _, _, item in twice}


def _stream(seed: int, name: str) -> int:
    return int.from_bytes(blake2b(f"labeling/{seed}/{name}".encode(), digest_size=16).digest(), "little")


# Files


def tasks_csv(batch: Batch, *, byte_order_mark: bool = False) -> bytes:
    """A table to label in a spreadsheet: `score` and `comment` are empty."""
    rows = ({**asdict(task), "batch": batch.name, "position": k} for k, task in enumerate(batch.tasks, start=1))
    return csv_bytes(rows, TASK_COLUMNS, byte_order_mark=byte_order_mark)


def mturk_csv(batch: Batch) -> bytes:
    """The input file of a Mechanical Turk project; its columns are the template's variables."""
    return csv_bytes(({**asdict(task), "batch": batch.name} for task in batch.tasks), PLATFORM_COLUMNS)


def label_studio(batch: Batch) -> list[dict[str, Any]]:
    """Tasks that Label Studio imports as JSON."""
    return [{"data": {**asdict(task), "batch": batch.name}} for task in batch.tasks]


def key_csv(batch: Batch) -> bytes:
    """The private table of whose responses the items are."""
    return csv_bytes(({**asdict(row), "repeated": int(row.repeated)} for row in batch.key), KEY_COLUMNS)


def read_key(paths: Iterable[str | Path]) -> list[KeyRow]:
    """The key rows of all batches, in the order of the files."""
    rows = []
    for path in paths:
        for where, row in read_csv(path):
            try:
                rows.append(
                    KeyRow(
                        **{name: row[name] for name in KEY_COLUMNS}
                        | {
                            "draw_idx": int(row["draw_idx"]),
                            "inclusion_probability": float(row["inclusion_probability"]),
                            "repeated": bool(int(row["repeated"])),
                        }
                    )
                )
            except (KeyError, ValueError) as error:
                raise UserError(f"{where}: is not a row of a key file ({error}); create the batch again") from None
    return rows
