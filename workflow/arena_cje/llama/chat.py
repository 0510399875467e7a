"""From a conversation to token ids, by the model's own chat template.

The template's control tokens become tokens; the same characters written in a system prompt or by a user stay text, so
that no prompt can end its own turn. The template is rendered around two markers. Where tokenising everything at once is
safe it is done so, since that is how the model was trained; around a text that holds control tokens, only the
template's own become tokens.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from arena_cje.errors import UserError
from arena_cje.llama.chat_template import Rendered, TemplateError, rendered
from arena_cje.llama.prefill import n_common

if TYPE_CHECKING:
    from arena_cje.llama.model import Model

# Private-use characters, which templates leave alone.
SYSTEM, USER, ASSISTANT = "\ue000system\ue001", "\ue000user\ue001", "\ue000assistant\ue001"
EDGE = "\u2003"  # a white-space character around a marker, gone where the template trims
ROLES = {SYSTEM: "system", USER: "user", ASSISTANT: "assistant"}
MARKERS = ((USER,), (SYSTEM, USER), (USER, ASSISTANT))  # the conversations that a template is rendered around
PIECE = re.compile(f"({EDGE}?)({SYSTEM}|{USER}|{ASSISTANT})({EDGE}?)")


def render(model: Model, system_prompt: str | None, user: str) -> tuple[int, ...]:
    """Token ids of the prompt up to where the response begins.

    A template without a system role has the system prompt put before the user's text. Without a system prompt no system
    message is passed, and the template's own default, if it has one, applies.
    """
    return _one_bos(model, _tokenize(model, _conversation(model, system_prompt, user)))


def respond(model: Model, system_prompt: str | None, user: str, response: str) -> tuple[int, ...]:
    """Token ids of a response that comes as text, such as follow the ids of its prompt.

    It is tokenised in its place, as SentencePiece vocabularies put a space before a text that stands by itself; apart
    where its first characters would join the prompt's last token, which must stay what the model was asked with.
    """
    pieces = _conversation(model, system_prompt, user)
    prompt = render(model, system_prompt, user)
    ids = _one_bos(model, _tokenize(model, [*pieces, (response, False)]))
    return ids[len(prompt) :] if ids[: len(prompt)] == prompt else model.tokenize(response)


def end_of_turn(model: Model) -> int:
    """The token that a response ends with when it ends by itself: the one that the template writes after an answer.

    Where it writes none that ends a generation, the one that the vocabulary names.
    """
    skeleton = _skeleton(model, (USER, ASSISTANT))
    after = PIECE.split(skeleton)[-1] if skeleton else ""
    written = model.tokenize(after, special=True)
    return next((token for token in written[:1] if token in model.eog_ids), model.default_end)


def _conversation(model: Model, system_prompt: str | None, user: str) -> list[tuple[str, bool]]:
    """(piece, whether it is the template's) up to where the response begins."""
    texts = {USER: user}
    skeleton = None
    if system_prompt:
        skeleton = _skeleton(model, (SYSTEM, USER))
        texts = {SYSTEM: system_prompt, USER: user} if skeleton else {USER: f"{system_prompt}\n\n{user}"}
    skeleton = skeleton or _skeleton(model, (USER,))
    if skeleton is None:
        refusal = _rendered(model)[(USER,)].refusal or "the message is not once in what it makes"
        raise _unusable(model, f"does not render a user's message: {refusal}")
    return _pieces(skeleton, texts)


def shared(model: Model, system_prompt: str | None) -> tuple[int, ...]:
    """Token ids that the prompts with this system prompt begin with, for any message of the user."""
    one, other = (render(model, system_prompt, user) for user in ("a", "1"))
    return one[: n_common(one, other)]


def _skeleton(model: Model, markers: tuple[str, ...]) -> str | None:
    """The template rendered around markers; None where it refuses these roles or does not show each message once."""
    text = _rendered(model)[markers].text
    return text if text is not None and all(text.count(marker) == 1 for marker in markers) else None


def _rendered(model: Model) -> dict[tuple[str, ...], Rendered]:
    """The template rendered around each group of markers."""
    if model.chat_template is None:
        raise UserError(
            f"model {model.path.name} has no chat template, so it is no chat model; use one tuned on instructions"
        )
    conversations = tuple(tuple((ROLES[marker], f"{EDGE}{marker}{EDGE}") for marker in group) for group in MARKERS)
    try:
        texts = rendered(model.chat_template, model.bos_text, model.eos_text, conversations)
    except TemplateError as error:
        raise _unusable(model, f"fails: {error}") from None
    return dict(zip(MARKERS, texts, strict=True))


def _unusable(model: Model, why: str) -> UserError:
    return UserError(
        f"model file {model.path}: its chat template {why}; use another model, or a file with a sound template"
    )


def _pieces(skeleton: str, texts: dict[str, str]) -> list[tuple[str, bool]]:
    """(piece, whether it is the template's) in order; a text is trimmed where the template trims its marker."""
    pieces = []
    end = 0
    for match in PIECE.finditer(skeleton):
        text = texts[match[2]]
        text = text if match[1] else text.lstrip()
        pieces += [(skeleton[end : match.start()], True), (text if match[3] else text.rstrip(), False)]
        end = match.end()
    return [*pieces, (skeleton[end:], True)]


def _tokenize(model: Model, pieces: list[tuple[str, bool]]) -> list[int]:
    # Not asked of llama.cpp, whose time grows with the square of the number of control tokens in a text.
    if not any(model.control_texts.search(piece) for piece, is_template in pieces if not is_template):
        return list(model.tokenize("".join(piece for piece, _ in pieces), special=True))
    runs = [""]  # plain text and the template's control tokens by turns, as tokenising everything at once would cut it
    for piece, is_template in pieces:
        first, *rest = model.control_texts.split(piece) if is_template else [piece]
        runs[-1] += first
        runs += rest
    return [token for i, run in enumerate(runs) for token in model.tokenize(run, special=i % 2 == 1)]


def _one_bos(model: Model, ids: list[int]) -> tuple[int, ...]:
    """The ids with exactly one BOS first, where the model needs it; most templates write it themselves, some do not."""
    if not model.add_bos:
        return tuple(ids)
    start = 0
    while start < len(ids) and ids[start] == model.bos_id:
        start += 1
    return (model.bos_id, *ids[start:])
