"""Real text as bytes, a file is a document: any files, or the standard library of the running Python."""

import hashlib
import os
import platform
import sysconfig
from pathlib import Path
from typing import Any

from extrap.data.documents import Documents
from extrap.errors import UserError


class Text(Documents):
    """Files and folders of UTF-8 text: a file is a document, a folder gives all its files, in sorted order.

    Raises UserError for a path that is missing, empty or not UTF-8 text, and for one given in both parts.
    """

    name = "text"

    def __init__(self, train: list[str], valid: list[str]) -> None:
        train_files, valid_files = files_below(train, "data.train"), files_below(valid, "data.valid")
        if both := {path.resolve() for path in train_files.values()} & {path.resolve() for path in valid_files.values()}:
            raise UserError(f"data.valid: {min(both)} is in data.train too; a document belongs to one part only")
        parts = [{name: read_text(path) for name, path in files.items()} for files in (train_files, valid_files)]
        for name, text in parts[1].items():
            if text in parts[0].values():
                raise UserError(f"data.valid: {name} is a copy of a document of data.train")
        super().__init__(*parts)


class Stdlib(Documents):
    """The `.py` files of the running interpreter's own standard library: real text that every machine has.

    Left out are third-party packages, tests, generated tables and whatever some distributions package apart or patch
    (EXCLUDED). A file is held out if the SHA-256 of its path below the library begins with a byte below 32, an eighth
    of the files, so that an added file does not move the others. Results depend on the Python version; it is recorded.
    """

    name = "stdlib"

    def __init__(self) -> None:
        root = Path(sysconfig.get_path("stdlib"))
        parts: tuple[dict[str, bytes], dict[str, bytes]] = ({}, {})
        for path in stdlib_files(root):
            relative = path.relative_to(root).as_posix()
            text = path.read_bytes()
            if text:  # an empty __init__.py holds nothing to learn from
                parts[hashlib.sha256(relative.encode()).digest()[0] < 32][relative] = text
        if not all(parts):
            raise UserError(f"data=stdlib: no Python sources under {root}; use data=text with files of your own")
        super().__init__(*parts)

    def describe(self) -> dict[str, Any]:
        return {"python": platform.python_version(), **super().describe()}


EXCLUDED = {
    "site-packages", "dist-packages", "test", "tests",  # third-party packages, tests
    "idlelib", "tkinter", "turtledemo", "turtle.py", "lib2to3", "distutils", "ensurepip", "venv",  # apart, or gone
    "site.py", "sitecustomize.py", "lib-dynload", "__phello__",  # patched by distributions, or not text
    "encodings", "pydoc_data",  # generated
}  # fmt: skip


def stdlib_files(root: Path) -> list[Path]:
    """The selection of Stdlib, sorted by path."""

    def chosen(path: Path) -> bool:
        parts = path.relative_to(root).parts
        return not EXCLUDED.intersection(parts) and not parts[0].startswith(("_sysconfigdata", "config-"))

    return sorted(path for path in root.rglob("*.py") if chosen(path))


def files_below(paths: list[str], option: str) -> dict[str, Path]:
    """The files named by paths, folders replaced by all the files below them; hidden ones are left out.

    A document's name begins with the last part of the path that was given: wherever a corpus lies, its names are the same.
    Raises UserError for a link that leads out of its folder: who gives away a corpus could name any file with it.
    """
    if not paths:
        raise UserError(f"{option}: no files given; expected a list of UTF-8 text files or folders, {option}=[PATH,...]")
    files: dict[str, Path] = {}
    read = set()
    for given in paths:
        path = Path(given)
        if not given or not os.path.exists(path):  # unlike Path.exists, False for a name that cannot be one
            raise UserError(f"{option}: {given or repr(given)} does not exist (looked from {Path.cwd()})")
        if not path.is_file() and not path.is_dir():
            raise UserError(f"{option}: {path} is neither a file nor a folder")
        below = [path] if path.is_file() else _files_of(path, option)
        if not below:
            raise UserError(f"{option}: the folder {path} holds no files")
        for file in below:
            if file.resolve() in read:
                continue
            read.add(file.resolve())
            name = Path(path.resolve().name, file.relative_to(path)).as_posix()
            if any("\ud800" <= c <= "\udfff" for c in name):
                raise UserError(f"{option}: {name}: the name of the file is not UTF-8; rename it")
            if files.setdefault(name, file) is not file:
                raise UserError(
                    f"{option}: {files[name]} and {file} would both be named {name}; give the folder that holds both"
                )
    return dict(sorted(files.items()))


def _files_of(folder: Path, option: str) -> list[Path]:
    """The files below a folder, links to others of them last."""
    root = Path(os.path.realpath(folder))

    def refuse(error: OSError) -> None:
        raise UserError(f"{option}: {error.filename}: cannot be read ({error.strerror})")

    found = []
    for place, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for path in (Path(place, name) for name in (*folders, *names) if not name.startswith(".")):
            target = Path(os.path.realpath(path))  # of a link in a circle itself
            if path.is_symlink() and not (target.is_relative_to(root) and os.path.exists(target)):
                raise UserError(f"{option}: {path} is a link to {target}, which is no file or folder within {folder}")
            if path.is_file():
                found.append(path)
            elif not path.is_dir():
                raise UserError(f"{option}: {path} is neither a file nor a folder")
    return sorted(found, key=lambda path: (path.is_symlink(), path))


def read_text(path: Path) -> bytes:
    """The bytes of a UTF-8 text file."""
    try:
        text = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    except MemoryError as error:
        raise UserError(f"{path}: is larger than what is left of this machine's memory") from error
    if not text:
        raise UserError(f"{path}: is empty; expected UTF-8 text")
    try:
        text.decode()
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not UTF-8 text (byte {error.start:,}: {error.reason})") from error
    if b"\0" in text:
        raise UserError(f"{path}: is a binary file (it holds NUL bytes); expected UTF-8 text")
    return text
