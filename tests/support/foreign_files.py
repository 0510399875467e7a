"""Small files of other tools with one known world: the base policy is good on every fourth prompt, `better` on every second.

Every writer returns the arguments of `convert` for its files. Scores of the judge are high where a response is good and
low elsewhere, so that values by hand are .25 and .5; labels, where a format has a second scorer, are 1 and 0.
"""

from __future__ import annotations

import csv
import json
import zipfile
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

N = 120
POLICIES = {"base-1": 4, "better-2": 2}  # a policy is good on every k-th prompt
Files = tuple[list[str], dict[str, Any]]  # files, and keywords of `Choices`


def responses() -> Iterator[tuple[str, int, bool]]:
    """Policy, prompt, and whether the response is good."""
    for policy, period in POLICIES.items():
        yield from ((policy, k, k % period == 0) for k in range(N))


def write_json(path: Path, value: Any) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
    return str(path)


def write_lines(path: Path, rows: list[dict]) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def write_cells(path: Path, rows: list[list]) -> str:
    with path.open("w", newline="") as handle:
        csv.writer(handle).writerows(rows)
    return str(path)


def promptfoo_rows() -> list[dict]:
    columns = list(POLICIES)
    return [
        {
            "promptIdx": columns.index(policy),
            "testIdx": k,
            "provider": {"id": f"openai:{policy}", "label": policy},
            "prompt": {"raw": f"Answer: question {k}", "label": "Answer: {{question}}"},
            "testCase": {"vars": {"question": f"question {k}"}, "assert": [{"type": "llm-rubric", "value": "good"}]},
            "vars": {"question": f"question {k}"},
            "response": {"output": f"{policy} says {k}", "tokenUsage": {"total": 9}},
            "success": good,
            "score": 0.9 if good else 0.1,
            "namedScores": {"fluency": 0.5},
            "latencyMs": 12,
            "gradingResult": {
                "pass": good,
                "score": 1 if good else 0,
                "componentResults": [
                    {"pass": good, "score": 0.9 if good else 0.1, "assertion": {"type": "llm-rubric", "value": "good"}},
                    {"pass": good, "score": 1 if good else 0, "assertion": {"type": "human"}},
                ],
            },
        }
        for policy, k, good in responses()
    ]


def promptfoo(folder: Path) -> Files:
    document = {"evalId": "eval-1", "results": {"version": 3, "results": promptfoo_rows(), "stats": {}}, "config": {}}
    return [write_json(folder / "results.json", document)], {"base": "base-1", "oracle": "human"}


def promptfoo_lines(folder: Path) -> Files:
    return [write_lines(folder / "results.jsonl", promptfoo_rows())], {"base": "base-1", "oracle": "human"}


def promptfoo_csv(folder: Path) -> Files:
    """The CSV of the command line: scores inside the cells."""
    rows = [["question", *(f"[{policy}] Answer: {{{{question}}}}" for policy in POLICIES)]]
    for k in range(N):
        good = {policy: k % period == 0 for policy, period in POLICIES.items()}
        cells = [
            f"[{'PASS' if good[name] else 'FAIL'}] ({0.9 if good[name] else 0.1:.2f}, human: {float(good[name]):.2f})\n\n"
            f'He said "{k}", twice\n\n{"Pass" if good[name] else "Fail"} Reason: as expected'
            for name in POLICIES
        ]
        rows.append([f"question {k}", *cells])
    return [write_cells(folder / "output.csv", rows)], {"base": "base-1", "oracle": "human"}


def promptfoo_viewer_csv(folder: Path) -> Files:
    """The CSV of the viewer: scores in columns of their own, of the same names for each output."""
    beside = ["Status", "Score", "Named Scores", "Grader Reason", "Comment"]
    header = ["Description", "question"]
    for policy in POLICIES:
        header += [f"[{policy}] Answer: {{{{question}}}}", *beside]
    rows = [header]
    for k in range(N):
        row = ["a test", f"question {k}"]
        for policy, period in POLICIES.items():
            good = k % period == 0
            named_scores = json.dumps({"human": float(good)})
            row += [f"{policy} says {k}", "PASS" if good else "FAIL", "0.90" if good else "0.10", named_scores, "", ""]
        rows.append(row)
    return [write_cells(folder / "table.csv", rows)], {"base": "base-1", "oracle": "human"}


def inspect_log(policy: str) -> dict:
    samples = [
        {
            "id": k,
            "epoch": 1,
            "input": [{"role": "user", "content": [{"type": "text", "text": f"question {k}"}]}],
            "target": "good",
            "messages": [],
            "output": {
                "model": policy,
                "choices": [{"message": {"role": "assistant", "content": f"{policy} says {k}"}, "stop_reason": "stop"}],
            },
            "scores": {
                "model_graded_qa": {"value": {"quality": 0.9 if good else 0.1}, "explanation": "so"},
                "people": {"value": "C" if good else "I", "answer": "x"},
            },
            "metadata": {"difficulty": 3},
            "events": [],
        }
        for name, k, good in responses()
        if name == policy
    ]
    head = {"task": "chat", "model": policy, "dataset": {"name": "chat", "samples": N}, "config": {"epochs": 1}}
    return {"version": 2, "status": "success", "eval": head, "plan": {}, "results": {}, "samples": samples}


INSPECT = {"base": "base-1", "judge": "model_graded_qa.quality", "oracle": "people"}


def inspect_json(folder: Path) -> Files:
    return [write_json(folder / f"{policy}.json", inspect_log(policy)) for policy in POLICIES], INSPECT


def inspect_eval(folder: Path) -> Files:
    """Archives of a folder, one file a sample, beside a file of another kind."""
    for policy in POLICIES:
        log = inspect_log(policy)
        samples = log.pop("samples")
        with zipfile.ZipFile(folder / f"{policy}.eval", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("_journal/start.json", json.dumps({"version": 2, "eval": log["eval"], "plan": {}}))
            for sample in samples:
                sample["output"]["choices"][0]["message"]["content"] = "attachment://a1"
                sample["attachments"] = {"a1": f"a long text of {policy}"}
                archive.writestr(f"samples/{sample['id']}_epoch_1.json", json.dumps(sample))
            archive.writestr("header.json", json.dumps(log))
    write_json(folder / "notes.json", {"note": "not a log"})
    return [str(folder)], INSPECT


def lm_eval(folder: Path) -> Files:
    for policy in POLICIES:
        rows = [
            {
                "doc_id": k,
                "doc": {"question": f"question {k}"},
                "target": "good",
                "arguments": {"gen_args_0": {"arg_0": f"Q: question {k}\nA:", "arg_1": {"until": ["\n"]}}},
                "resps": [[f"{policy} says {k}"]],
                "filtered_resps": [f"{k}"],
                "filter": "strict-match",
                "metrics": ["exact_match", "judged"],
                "doc_hash": f"hash {k}",
                "exact_match": float(good),
                "judged": 0.9 if good else 0.1,
            }
            for name, k, good in responses()
            if name == policy
        ]
        write_lines(folder / policy / "samples_gsm8k_2026-01-05T10-11-12.345678.jsonl", rows)
        write_json(folder / policy / "results_2026-01-05T10-11-12.345678.json", {"results": {}, "n-samples": {}})
    return [str(folder)], {"base": "base-1", "judge": "judged", "oracle": "exact_match"}


def alpaca_eval(folder: Path) -> Files:
    """Annotations by a model, and votes of three people on the base's outputs."""
    files = []
    for policy in POLICIES:
        rows = [
            {
                "instruction": f"question {k}",
                "output_1": f"reference says {k}",
                "generator_1": "text_davinci_003",
                "dataset": "helpful_base",
                "output_2": f"{name} says {k}",
                "generator_2": name,
                "annotator": "weighted_alpaca_eval_gpt4_turbo",
                "preference": 1.9 if good else 1.1,
                "price_per_example": 0.01,
                "raw_completion": {"text": "m"},
            }
            for name, k, good in responses()
            if name == policy
        ]
        files.append(write_json(folder / policy / "annotations.json", rows))
    people = [
        {
            "instruction": f"question {k}",
            "output_1": f"reference says {k}",
            "generator_1": "text_davinci_003",
            "output_2": f"base-1 says {k}",
            "generator_2": "base-1",
            "annotator": person,
            "preference": 2 if k % 4 == 0 else 1,
        }
        for k in range(N)
        for person in (3, 8, 11)
    ]
    files.append(write_json(folder / "people.json", people))
    return files, {"base": "base-1", "judge": "weighted_alpaca_eval_gpt4_turbo", "oracle": "human"}


def mt_bench(folder: Path) -> Files:
    questions = [{"question_id": k, "category": "writing", "turns": [f"question {k}", "and now?"]} for k in range(N)]
    write_lines(folder / "question.jsonl", questions)
    for policy in POLICIES:
        rows = [
            {
                "question_id": k,
                "answer_id": f"{policy}{k}",
                "model_id": policy,
                "choices": [{"index": 0, "turns": [f"{policy} says {k}", "more"]}],
                "tstamp": 1700000000.5,
            }
            for k in range(N)
        ]
        write_lines(folder / "model_answer" / f"{policy}.jsonl", rows)
    write_lines(folder / "reference_answer" / "gpt-4.jsonl", [{**rows[0], "model_id": "gpt-4"}])
    for judge, values in {"gpt-4": (9, 2), "people": (10, 1)}.items():
        rows = [
            {
                "question_id": k,
                "model": policy,
                "judge": [judge, "single-v1"],
                "user_prompt": "…",
                "judgment": "Rating: [[9]]",
                "score": values[0] if good else values[1],
                "turn": turn,
                "tstamp": 1700000001.5,
            }
            for policy, k, good in responses()
            for turn in (1, 2)
        ]
        write_lines(folder / "model_judgment" / f"{judge}_single.jsonl", rows)
    pair = {
        "question_id": 1,
        "model_1": "a",
        "model_2": "b",
        "g1_winner": "a",
        "judge": ["gpt-4", "pair-v2"],
        "turn": 1,
    }
    write_lines(folder / "model_judgment" / "gpt-4_pair.jsonl", [pair])
    return [str(folder)], {"base": "base-1", "judge": "gpt-4", "oracle": "people"}


def openai_log(folder: Path) -> Files:
    files = []
    for policy in POLICIES:
        rows: list[dict] = [{"spec": {"completion_fns": [policy], "eval_name": "chat.dev.v0", "run_id": "1"}}]
        for name, k, good in responses():
            if name == policy:
                head = {"run_id": "1", "sample_id": f"chat.dev.{k}", "created_by": "", "created_at": "2026-01-01"}
                prompt = [{"role": "system", "content": "Be good."}, {"role": "user", "content": f"question {k}"}]
                reply = {"prompt": prompt, "sampled": [f"{policy} says {k}"]}
                grading = {"prompt": [{"role": "user", "content": "grade it"}], "sampled": ["Y"]}
                rows += [
                    {**head, "event_id": 4 * k, "type": "sampling", "data": reply},
                    {**head, "event_id": 4 * k + 1, "type": "sampling", "data": grading},
                    {
                        **head,
                        "event_id": 4 * k + 2,
                        "type": "metrics",
                        "data": {"choice": "Y", "score": 0.9 if good else 0.1},
                    },
                    {**head, "event_id": 4 * k + 3, "type": "match", "data": {"correct": good, "expected": "x"}},
                ]
        rows.append({"final_report": {"accuracy": 0.25}})
        files.append(write_lines(folder / f"{policy}.jsonl", rows))
    return files, {"base": "base-1", "judge": "score", "oracle": "match"}


def openai_items(folder: Path) -> Files:
    items = [
        {
            "object": "eval.run.output_item",
            "id": f"outputitem_{policy}_{k}",
            "run_id": f"run_{policy}",
            "eval_id": "eval_1",
            "status": "pass" if good else "fail",
            "datasource_item_id": k,
            "datasource_item": {"question": f"question {k}"},
            "results": [
                {"name": "rubric", "passed": good, "score": 0.9 if good else 0.1, "type": "score_model"},
                {"name": "exact", "passed": good, "score": float(good), "type": "string_check"},
            ],
            "sample": {
                "input": [{"role": "user", "content": f"question {k}"}],
                "output": [{"role": "assistant", "content": f"{policy} says {k}"}],
                "model": policy,
                "error": None,
            },
        }
        for policy, k, good in responses()
    ]
    page = {"object": "list", "data": items, "has_more": False}
    return [write_json(folder / "items.json", page)], {"base": "base-1", "judge": "rubric", "oracle": "exact"}


def cje_responses(folder: Path) -> Files:
    """A file of responses for each policy, with labels of the base under metadata."""
    for policy in POLICIES:
        rows = [
            {
                "prompt_id": k,
                "prompt": f"question {k}",
                "response": f"{policy} says {k}",
                "judge_score": 0.9 if good else 0.1,
                "draw_idx": 0,
                "metadata": {"oracle_label": float(good) if policy == "base-1" else None},
            }
            for name, k, good in responses()
            if name == policy
        ]
        write_lines(folder / "responses" / f"{policy}_responses.jsonl", rows)
    return [str(folder / "responses")], {"base": "base-1"}


def cje_object(folder: Path) -> Files:
    """A JSON object with the rows of each policy."""
    rows: dict[str, list[dict]] = {policy: [] for policy in POLICIES}
    for policy, k, good in responses():
        score = {"judge_score": 0.9 if good else 0.1, "oracle_label": float(good)}
        rows[policy].append({"prompt_id": str(k), "response": f"{policy} says {k}", **score})
    return [write_json(folder / "fresh.json", rows)], {"base": "base-1"}


def table_rows() -> list[dict]:
    return [
        {
            "qid": k,
            "question": f"question {k}, please",
            "model": policy,
            "answer": f"{policy} says {k}",
            "grade": 90 if good else 10,
            "expert": int(good) if policy == "base-1" else None,
            "topic": "chat",
        }
        for policy, k, good in responses()
    ]


TABLE = {
    "base": "base-1",
    "scales": {"judge_score": (0, 100)},
    "columns": {
        "prompt_id": "qid",
        "prompt": "question",
        "policy": "model",
        "response": "answer",
        "judge_score": "grade",
        "oracle_label": "expert",
    },
}


def table_csv(folder: Path) -> Files:
    rows = table_rows()
    cells = [list(rows[0]), *(["" if value is None else value for value in row.values()] for row in rows)]
    return [write_cells(folder / "mine.csv", cells)], TABLE


def table_parquet(folder: Path) -> Files:
    import polars as pl

    pl.DataFrame(table_rows()).write_parquet(folder / "mine.parquet")
    return [str(folder / "mine.parquet")], TABLE


def table_lines(folder: Path) -> Files:
    return [write_lines(folder / "mine.jsonl", table_rows())], TABLE


def table_long(folder: Path) -> Files:
    """A row for each score: the judge's, and those of two people."""
    rows = [
        {
            "prompt": f"question {k}",
            "policy": policy,
            "response": f"{policy} says {k}",
            "scorer": scorer,
            "score": score,
        }
        for policy, k, good in responses()
        for scorer, score in (("gpt", 0.9 if good else 0.1), ("people", float(good)), ("people", float(good)))
    ]
    return [write_lines(folder / "long.jsonl", rows)], {"base": "base-1", "judge": "gpt", "oracle": "people"}


WRITERS: dict[str, tuple[str, Callable[[Path], Files]]] = {
    "promptfoo JSON": ("promptfoo", promptfoo),
    "promptfoo JSONL": ("promptfoo", promptfoo_lines),
    "promptfoo CSV": ("promptfoo", promptfoo_csv),
    "promptfoo viewer CSV": ("promptfoo", promptfoo_viewer_csv),
    "inspect JSON": ("inspect-ai", inspect_json),
    "inspect archive": ("inspect-ai", inspect_eval),
    "lm-eval": ("lm-eval", lm_eval),
    "alpaca_eval": ("alpaca-eval", alpaca_eval),
    "MT-bench": ("mt-bench", mt_bench),
    "oaieval log": ("openai-evals", openai_log),
    "OpenAI output items": ("openai-evals", openai_items),
    "cje-eval responses": ("cje-eval", cje_responses),
    "cje-eval object": ("cje-eval", cje_object),
    "CSV": ("table", table_csv),
    "Parquet": ("table", table_parquet),
    "JSONL": ("table", table_lines),
    "long JSONL": ("table", table_long),
}
