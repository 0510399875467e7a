"""The handle of llama.cpp's shared library: imported when first needed, its log silent but for errors."""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ctypes
    from types import ModuleType

ERROR_LEVEL = 4  # GGML_LOG_LEVEL_ERROR
MOST_LINES = 2  # of an error message: the first name the cause, the later ones what could not be done for it
FUNCTION = re.compile(r"^\w+: ")  # llama.cpp's messages begin with the name of the function that failed

_errors: list[str] = []


@functools.cache
def library() -> ModuleType:
    """llama_cpp, imported when first needed, its log kept silent but for errors (see `last_error`)."""
    import llama_cpp

    llama_cpp.llama_log_set(_keep_error(llama_cpp), None)
    return llama_cpp


@functools.cache
def _keep_error(llama_cpp: ModuleType) -> ctypes._CFuncPtr:
    # Cached, because the library holds a bare pointer: a collected callback would crash it.
    @llama_cpp.llama_log_callback
    def keep_error(level: int, text: bytes, _: object) -> None:
        if level == ERROR_LEVEL and len(_errors) < MOST_LINES:
            message = FUNCTION.sub("", text.decode(errors="replace"))
            _errors.append(" ".join(message.split()))

    return keep_error


def clear_errors() -> None:
    """Forget the errors so far: to be called before a call whose failure is reported with `last_error`."""
    _errors.clear()


def last_error() -> str:
    """llama.cpp's first error messages since `clear_errors`, on one line."""
    return "; ".join(_errors) or "no reason given"


def has_gpu() -> bool:
    """Whether the installed llama.cpp finds a GPU on this machine; False where it is not installed."""
    try:
        return bool(library().llama_supports_gpu_offload())
    except ImportError:
        return False
