"""How every command of the project ends: with its exit code, after at most one line where something is wrong."""

import sys
from collections.abc import Callable

from extrap.errors import UserError, one_line


def through(command: Callable[[], int | None]) -> int:
    """The exit code of a command: 2 and one line for what a person can mend, 130 after Ctrl-C."""
    try:
        return command() or 0
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:  # a full disk, a place that may not be written, a folder where a file should be
        print(f"error: {one_line(str(error))}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return 130
