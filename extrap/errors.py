"""Errors for people."""

import difflib
import inspect
import traceback
from collections.abc import Iterable
from pathlib import Path


class UserError(Exception):
    """Something the user can mend: one line that says what was found, what was expected and what to do."""

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))  # it may quote what a person or a stranger's file has said


def nearest(name: str, names: Iterable[str]) -> str:
    """'did you mean ...?' or the whole choice, whichever helps."""
    names = list(names)
    if close := difflib.get_close_matches(name, names, n=3):
        return f"did you mean {' or '.join(close)}?"
    return f"expected one of {', '.join(names)}"


def one_line(text: str) -> str:
    return printable(" ".join(text.split()))


def raised_in(cls: type, error: BaseException) -> str:
    """The error in one line, with the line of the class's file where it arose."""
    file = inspect.getfile(cls)
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    return one_line(f"{type(error).__name__}: {error}" + (f" ({Path(file).name}, line {lines[-1]})" if lines else ""))


def printable(text: str) -> str:
    """Line ends, control characters and marks that turn the direction of text as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
