"""Runs a notebook's code in one namespace and collects the outputs of its cells, without a kernel.

PYTHONPATH=workflow python tests/support/notebooks.py docs/example.ipynb     writes the outputs into the notebook
"""

from __future__ import annotations

import ast
import base64
import contextlib
import io
import json
import sys
from pathlib import Path
from typing import Any


def outputs(notebook: dict[str, Any]) -> list[list[dict[str, Any]]]:
    """The outputs of each code cell, in the notebook format: its printed text, and the value of its last expression."""
    names: dict[str, Any] = {"__name__": "__main__"}
    cells = (cell for cell in notebook["cells"] if cell["cell_type"] == "code")
    return [_outputs("".join(cell["source"]), names, count) for count, cell in enumerate(cells, start=1)]


def _outputs(source: str, names: dict[str, Any], count: int) -> list[dict[str, Any]]:
    body, value, printed = ast.parse(source), None, io.StringIO()
    last = body.body.pop() if body.body and isinstance(body.body[-1], ast.Expr) else None
    with contextlib.redirect_stdout(printed):
        exec(compile(body, "<cell>", "exec"), names)
        if last is not None:
            value = eval(compile(ast.Expression(last.value), "<cell>", "eval"), names)
    cell_outputs = []
    if printed.getvalue():
        text = printed.getvalue().splitlines(keepends=True)
        cell_outputs.append({"output_type": "stream", "name": "stdout", "text": text})
    if value is not None:
        cell_outputs.append(
            {"output_type": "execute_result", "execution_count": count, "metadata": {}, "data": _data(value)}
        )
    return cell_outputs


def _data(value: Any) -> dict[str, Any]:
    """A value by media type, as Jupyter would show it: a figure as a picture, other values as text and HTML."""
    if hasattr(value, "save") and hasattr(value, "draw"):
        picture = io.BytesIO()
        value.save(picture, format="png", dpi=80, verbose=False)
        return {"image/png": base64.b64encode(picture.getvalue()).decode(), "text/plain": ["<figure>"]}
    data = {"text/plain": repr(value).splitlines(keepends=True)}
    if page := getattr(value, "_repr_html_", lambda: None)():
        data["text/html"] = page.splitlines(keepends=True)
    return data


def write(path: Path) -> None:
    """Write the outputs of a notebook's cells into it."""
    notebook = json.loads(path.read_text())
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    for count, (cell, cell_outputs) in enumerate(zip(code, outputs(notebook), strict=True), start=1):
        cell |= {"execution_count": count, "outputs": cell_outputs}
    path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
