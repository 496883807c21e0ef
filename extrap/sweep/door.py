"""How every command of the project ends: with its exit code, after at most one line where something is wrong, and with the
processes that it started."""

import codecs
import io
import multiprocessing
import os
import sys
import threading
from collections.abc import Callable

from extrap.errors import UserError, one_line

PLAIN = {"±": "~", "–": "-"}  # as wide, for a terminal that does not have them
codecs.register_error(
    "plain",
    lambda error: ("".join(PLAIN.get(c, "?") for c in error.object[error.start : error.end]), error.end),  # type: ignore[attr-defined]
)


def through(command: Callable[[], int | None]) -> int:
    """The exit code of a command: 2 and one line for what a person can mend, 130 after Ctrl-C."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="plain")
    try:
        return command() or 0
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # whoever read the output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:  # a full disk, a place that may not be written, a folder where a file should be
        print(f"error: {one_line(str(error))}; mend that and run the same command again", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return 130


def end_with_parent() -> None:
    """From now on this process ends when the one that started it does, however that ends."""
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
