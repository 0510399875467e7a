"""Conversations in the schema of `lmsys/chatbot_arena_conversations`, with texts that are made up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    import pyarrow as pa

CATEGORIES = (
    "harassment",
    "harassment/threatening",
    "hate",
    "hate/threatening",
    "self-harm",
    "self-harm/instructions",
    "self-harm/intent",
    "sexual",
    "sexual/minors",
    "violence",
    "violence/graphic",
)


def schema() -> pa.Schema:
    """The columns and types of the data set."""
    import pyarrow as pa

    message = pa.struct([("content", pa.string()), ("role", pa.string())])
    return pa.schema(
        [
            ("question_id", pa.string()),
            ("model_a", pa.string()),
            ("model_b", pa.string()),
            ("winner", pa.string()),
            ("judge", pa.string()),
            ("conversation_a", pa.list_(message)),
            ("conversation_b", pa.list_(message)),
            ("turn", pa.int64()),
            ("anony", pa.bool_()),
            ("language", pa.string()),
            ("tstamp", pa.float64()),
            (
                "openai_moderation",
                pa.struct(
                    [
                        ("categories", pa.struct([(name, pa.bool_()) for name in CATEGORIES])),
                        ("category_scores", pa.struct([(name, pa.float64()) for name in CATEGORIES])),
                        ("flagged", pa.bool_()),
                    ]
                ),
            ),
            (
                "toxic_chat_tag",
                pa.struct(
                    [
                        ("roberta-large", pa.struct([("flagged", pa.bool_()), ("probability", pa.float64())])),
                        ("t5-large", pa.struct([("flagged", pa.bool_()), ("score", pa.float64())])),
                    ]
                ),
            ),
        ]
    )


def battle(
    question_id: str,
    *questions: str,
    language: str = "English",
    flagged: bool = False,
    toxic: bool = False,
    reply: str = "An answer.",
) -> dict[str, Any]:
    """One conversation with two models, with a question a turn. flagged, toxic: by moderation, by the tag of toxic chats."""
    conversations = [
        [
            message
            for question in questions
            for message in ({"content": question, "role": "user"}, {"content": f"{reply} {side}", "role": "assistant"})
        ]
        for side in "ab"
    ]
    return {
        "question_id": question_id,
        "model_a": "first-model",
        "model_b": "second-model",
        "winner": "tie",
        "judge": "arena_user_1",
        "conversation_a": conversations[0],
        "conversation_b": conversations[1],
        "turn": len(questions),
        "anony": True,
        "language": language,
        "tstamp": 1682351591.1322,
        "openai_moderation": {
            "categories": dict.fromkeys(CATEGORIES, flagged),
            "category_scores": dict.fromkeys(CATEGORIES, 0.01),
            "flagged": flagged,
        },
        "toxic_chat_tag": {
            "roberta-large": {"flagged": toxic, "probability": 0.02},
            "t5-large": {"flagged": False, "score": 0.01},
        },
    }


def write_parquet(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write rows in groups of 1000, as the hub has them."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.Table.from_pylist(list(rows), schema=schema())
    pq.write_table(table, path, row_group_size=1000)
