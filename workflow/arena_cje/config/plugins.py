"""Own estimators and own covariates in Python files of the user (`plugins`).

A file `trimmed_ips.py` with `NEEDS` and `estimate(sample, options) -> Point` is the estimator `trimmed-ips`, made as those of
`arena_cje.estimators` are. A function `covariate_questions(prompt, response) -> float` in any of the files is the covariate
`questions`. A file is read when the workflow starts and run only where one of the two is computed.
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from arena_cje import estimators, files
from arena_cje.data import fields
from arena_cje.errors import UserError, file_errors
from arena_cje.provenance import digest

if TYPE_CHECKING:
    from collections.abc import Iterable

COVARIATE = re.compile(r"^def covariate_(\w+)\(", re.MULTILINE)
ESTIMATE = re.compile(r"^def estimate\(", re.MULTILINE)


def register(paths: Iterable[str]) -> None:
    """Make the estimators and covariates of some files known; raises a `UserError` for a file that has neither."""
    for name in paths:
        path = Path(name)
        with file_errors(path):
            source = files.read_text(path)
        covariates = COVARIATE.findall(source)
        if ESTIMATE.search(source):
            estimators.add(path, source)
        elif not covariates:
            raise UserError(
                f"config: `plugins`: {name} contains neither an estimator (`NEEDS` and `estimate(sample, options)`) nor a "
                "covariate (`covariate_NAME(prompt, response)`); docs/estimators.md has examples"
            )
        for covariate in covariates:
            fields.add_covariate(covariate, partial(_covariate, path.absolute(), covariate))


def _covariate(path: Path, name: str, prompt: str, response: str) -> float:
    return getattr(estimators.load_file(path), f"covariate_{name}")(prompt, response)


def code(paths: Iterable[str]) -> list[str]:
    """Hashes of the files, which results depend on."""
    return [digest(files.read_text(path)) for path in paths]
