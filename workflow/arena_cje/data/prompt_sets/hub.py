"""Data sets of the Hugging Face Hub, through the package `datasets`.

The address of the hub is that of `HF_ENDPOINT`, the access token that of `HF_TOKEN` or of `hf auth login`, and files stay in
the cache of the hub.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from arena_cje.data.prompt_sets.reading import PromptSet, needed_module, of_dataset
from arena_cje.errors import UserError

COMMIT = re.compile("[0-9a-f]{40}")
REFUSAL = re.compile(
    r"\b40[13] (?:Client Error|Unauthorized|Forbidden)"
)  # where an error has its response as text alone
ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")
FILE_SUFFIXES = {".arrow", ".csv", ".gz", ".json", ".jsonl", ".parquet", ".tsv", ".txt", ".zip", ".zst"}


def is_id(source: str) -> bool:
    """Whether a source that is no file is the id of a data set, such as `lmsys/chatbot_arena_conversations`."""
    return ID.fullmatch(source) is not None and Path(source).suffix not in FILE_SUFFIXES


def has_token() -> bool:
    """Whether there is an access token of the hub: in HF_TOKEN, or of `hf auth login`."""
    try:
        from huggingface_hub import get_token
    except ImportError:
        return False
    return get_token() is not None


def open_id(name: str, split: str, revision: str | None) -> PromptSet:
    """A data set of the hub; raises a `UserError` where access to it is refused, or it cannot be loaded.

    revision: a commit, tag or branch; None is the newest. The opened set has the commit that was read.
    """
    datasets = needed_module("datasets", name)
    datasets.disable_progress_bars()
    try:
        builder = datasets.load_dataset_builder(name, revision=revision)
        builder.download_and_prepare()
        dataset = builder.as_dataset(split)
    except Exception as error:  # the errors of datasets, the hub client and its HTTP client have no common class
        raise UserError(_sentence(name, split, revision, error)) from None
    # The hash of a builder is the commit of its repository, also where the files come from the cache of the hub.
    commit = builder.hash if COMMIT.fullmatch(builder.hash or "") else revision
    return of_dataset(name, dataset, commit)


def _sentence(name: str, split: str, revision: str | None, error: Exception) -> str:
    """What to do about an error of loading."""
    causes, cause = [], error
    while cause is not None and len(causes) < 10:
        causes.append(cause)
        cause = cause.__cause__ or cause.__context__
    # Without the name, in which any of the words below may stand.
    text = " ".join(f"{type(cause).__name__}: {cause}" for cause in causes).replace(name, "")
    statuses = {getattr(getattr(cause, "response", None), "status_code", None) for cause in causes}
    page = f"{os.environ.get('HF_ENDPOINT', 'https://huggingface.co')}/datasets/{name}"
    if re.search(r"\bgated", text, re.IGNORECASE):
        return (
            f"{name}: the data set is gated; accept its terms at {page}, then set HF_TOKEN to an access token of yours "
            "(or name a local copy as prompts.source)"
        )
    if statuses & {401, 403} or REFUSAL.search(text):
        return f"{name}: the hub refuses access; set HF_TOKEN to an access token that may read {page}"
    if "Unknown split" in text:
        return f"{name}: has no split {split!r} ({_first_line(error)}); set prompts.split to one of them"
    if "RevisionNotFound" in text:
        return f"{name}: has no revision {revision!r}; set prompts.revision to a commit, tag or branch of {page}"
    if "RepositoryNotFound" in text or "doesn't exist on the Hub" in text:
        return f"{name}: there is no such file, and no such data set on the hub ({page}); correct prompts.source"
    if any(word in text for word in ("ConnectionError", "ConnectError", "Timeout", "Offline", "LocalEntryNotFound")):
        return (
            f"{name}: the hub cannot be reached ({_first_line(error)}); connect this machine, or name a local copy of the "
            "data set as prompts.source"
        )
    return f"{name}: cannot be loaded from the hub ({_first_line(error)})"


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
