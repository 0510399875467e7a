"""The language of a prompt: from the data set's own field, otherwise from a detector.

A detector errs on short texts: one that has fewer than `SHORT` characters, all of them ASCII, is never excluded. A longer
text is excluded where another language is likelier than `CERTAIN`.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, NamedTuple

from arena_cje.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable

# Names that data sets use in their language field, by ISO 639-1 code.
LANGUAGES = {
    "ar": "arabic",
    "bn": "bengali",
    "cs": "czech",
    "da": "danish",
    "de": "german",
    "el": "greek",
    "en": "english",
    "es": "spanish",
    "fa": "persian",
    "fi": "finnish",
    "fr": "french",
    "he": "hebrew",
    "hi": "hindi",
    "hu": "hungarian",
    "id": "indonesian",
    "it": "italian",
    "ja": "japanese",
    "ko": "korean",
    "nl": "dutch",
    "no": "norwegian",
    "pl": "polish",
    "pt": "portuguese",
    "ro": "romanian",
    "ru": "russian",
    "sv": "swedish",
    "th": "thai",
    "tr": "turkish",
    "uk": "ukrainian",
    "vi": "vietnamese",
    "zh": "chinese",
}
UNKNOWN = {"", "unknown", "unk", "und", "none", "null"}  # values of a language field that name no language
SHORT = 20  # characters
CERTAIN = 0.8  # probability


class Decision(NamedTuple):
    """Whether a prompt is in a language, and the source of the decision: `field`, `detector` or `short`."""

    matches: bool
    source: str


def decide(language: str, text: str, field: str | None) -> Decision:
    """Whether a text is in a language (an ISO 639-1 code). field: the language in the data set, None where there is none."""
    name = (field or "").strip().casefold()
    if name not in UNKNOWN:
        return Decision(name.split("-")[0].split("_")[0] == language or name == LANGUAGES[language], "field")
    if len(text) < SHORT and text.isascii():
        return Decision(True, "short")
    detected, probability = _detector()(text)
    return Decision(detected == language or probability < CERTAIN, "detector")


@cache
def _detector() -> Callable[[str], tuple[str, float]]:
    """The detector: from a text to a language and its probability."""
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ModuleNotFoundError:
        raise UserError(
            "prompts.language: prompts without a language field need the package py3langid, which is not installed; "
            "pip install py3langid, or set prompts.language to null"
        ) from None
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True).classify
