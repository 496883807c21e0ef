"""Files that survive whatever happens: atomic, sealed with a digest, locked. Imports no torch."""

import contextlib
import fcntl
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock

from extrap.errors import UserError

DIGEST = hashlib.sha256().digest_size  # bytes, behind the content of a sealed file


class Damaged(Exception):
    """A sealed file is not what was written."""


def as_path(typed: str) -> Path:
    """A path as people type it, ~ and ~user included. Raises UserError where there is no such user."""
    try:
        return Path(typed).expanduser()
    except RuntimeError as error:
        raise UserError(
            f"{typed}: nobody of that name has a home directory here; for a folder of that name write ./{typed}"
        ) from error


def write_atomic(path: Path, content: str | bytes) -> None:
    """The file is there whole or not at all, whenever the process is killed."""
    temporary = path.with_name(path.name + ".partial")
    try:
        with temporary.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        with contextlib.suppress(OSError):  # a full disk needs the room
            temporary.unlink(missing_ok=True)
        raise


def write_sealed(path: Path, content: bytes, of: str) -> None:
    """Written as by write_atomic, with the SHA-256 of `of`, to which it belongs, and of the content behind it.

    Zip files, torch's among them, do not mind what stands behind them.
    """
    write_atomic(path, content + _seal(content, of))


def read_sealed(path: Path, of: str) -> bytes:
    """The content of a sealed file. Raises Damaged if a bit of it has changed, or if it belongs to something else."""
    sealed = path.read_bytes()
    content, seal = sealed[:-DIGEST], sealed[-DIGEST:]
    if _seal(content, of) != seal:
        raise Damaged(f"{path} is damaged or of another run: the SHA-256 behind its {len(content):,} bytes is not theirs")
    return content


def _seal(content: bytes, of: str) -> bytes:
    return hashlib.sha256(of.encode() + b"\0" + content).digest()


@contextlib.contextmanager
def locked(path: Path, seconds: float) -> Iterator[None]:
    """Holds a lock, which the system takes back from a process that dies. Raises Timeout if another has it for longer."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path, timeout=seconds):
        yield


def is_locked(path: Path) -> bool:
    """Whether some process holds this lock now."""
    try:
        with path.open("rb") as file:  # the lock of somebody else too, who lets us read only
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
