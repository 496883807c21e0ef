"""From paths to documents: which files are read, as what, and what is said about those that cannot be."""

import codecs
import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePath
from typing import NamedTuple

from extrap.errors import UserError
from extrap.files import as_path

# files that are text, but not only what somebody wrote
MARKED_UP = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".html", ".htm", ".xml", ".ipynb")
NO_TEXT = re.compile("[\0\ud800-\udfff]")  # what no UTF-8 text holds
MOST_TOLD = 20  # files in one message
EXPECTED = (
    "expected UTF-8 text in files, or in folders, of which data.pattern='*.txt' chooses files; unpack what is compressed "
    "(gunzip), convert other encodings (iconv), write tables as JSON lines (data.field=NAME reads a field of them)"
)


class Reading(NamedTuple):
    """The documents of one part, in the order of their names; which files they are from; what a person should know."""

    documents: dict[str, bytes]
    files: set[str]  # real paths
    remarks: list[str]


def read(paths: list[str], option: str, pattern: str, field: str) -> Reading:
    """All files of `paths`, folders replaced by the files below them that match `pattern`; hidden ones are left out.

    A file is a document, or, with a `field`, each of its lines is a JSON object whose `field` is one. A document's name
    begins with the last part of the path that was given: wherever a corpus lies, its names are the same.
    Raises UserError, with all files that are at fault.
    """
    if not paths:
        raise UserError(f"{option} names no files; expected {option}=[PATH,...] with files or folders of UTF-8 text")
    if "**" in pattern:
        raise UserError(f"data.pattern={pattern}: all folders are looked into; expected a pattern without **, as *.txt")
    faults: list[str] = []
    found: dict[str, tuple[str, str]] = {}  # real path -> name, path
    for typed in paths:
        given = str(as_path(typed)) if typed else ""
        real, n_faults = os.path.realpath(given), len(faults)
        files = [("", real)] if os.path.isfile(given) else _below(given, pattern, faults)
        if not files and len(faults) == n_faults:
            faults.append(f"{given} holds no files that match {pattern}")
        for relative, target in files:
            name = PurePath(os.path.basename(real), relative).as_posix()
            found.setdefault(target, (name, os.path.join(given, relative) if relative else given))
    documents: dict[str, bytes] = {}
    read_from: dict[str, str] = {}  # name -> path
    empty: list[str] = []
    named = {str(as_path(typed)) for typed in paths if typed}
    for name, path in sorted(found.values()):
        try:
            if (other := read_from.setdefault(name, path)) != path:
                raise UserError(f"{other} and {path} would both be named {name}; give the folder that holds both")
            if NO_TEXT.search(name):
                raise UserError(f"{name}: the name of the file is not UTF-8; rename it")
            text = Path(path).read_bytes().removeprefix(codecs.BOM_UTF8)
            if not text and path not in named:  # an empty __init__.py holds nothing to learn from
                empty.append(name)
            else:
                documents |= _fields(text, path, name, field) if field else {name: _checked(text, path)}
        except UserError as error:
            faults.append(str(error))
        except (OSError, MemoryError) as error:
            faults.append(f"{path}: cannot be read ({getattr(error, 'strerror', 'it is larger than memory')})")
    if faults or not documents:
        n, told = len(faults), "; ".join(faults[:MOST_TOLD]) or f"no text in {paths}"
        told = f"{n:,} files cannot be read: {told}" if n > 1 else told
        more = f"; and {n - MOST_TOLD:,} more" if n > MOST_TOLD else ""
        raise UserError(f"{option}: {told}{more}" + (f"; {EXPECTED}" if found or not faults else ""))
    return Reading(documents, {*found}, [*_about(empty, read_from.values(), option, field)])


def _about(empty: list[str], paths: Iterable[str], option: str, field: str) -> Iterator[str]:
    if empty:
        yield f"{option}: empty files are left out ({len(empty):,}: {', '.join(empty[:3])}{', ...' if empty[3:] else ''})"
    kinds = Counter(suffix for path in paths if (suffix := PurePath(path).suffix.lower()) in MARKED_UP)
    if kinds and not field:
        told = ", ".join(f"{suffix} ({n:,})" for suffix, n in kinds.items())
        yield (
            f"{option}: files taken as plain text: {told}; marks and keys are learned and scored too (data.field=NAME reads "
            "a field of JSON lines instead)"
        )


def _below(folder: str, pattern: str, faults: list[str]) -> list[tuple[str, str]]:
    """(path below the folder, real path) of the files that match, links to others of them last.

    Who gives away a corpus could name any file of its reader by a link: only what lies within the corpus is read. The
    cache of a hub, CACHE/snapshots/.../NAME -> CACHE/blobs/DIGEST, is one corpus, wherever in snapshots the folder is.
    """

    def unreadable(error: OSError) -> None:
        where = "" if os.path.isabs(error.filename) else f" from {Path.cwd()}"
        faults.append(f"{error.filename}: cannot be read{where} ({error.strerror})")

    root = Path(os.path.realpath(folder))
    blobs = {place.parent / "blobs" for place in (root, *root.parents) if place.name == "snapshots"}
    found = []
    for place, folders, files in os.walk(folder, onerror=unreadable):
        links = [name for name in folders if os.path.islink(os.path.join(place, name))]  # which are not walked
        folders[:] = [name for name in folders if not name.startswith(".")]
        for path in [Path(place, name) for name in (*links, *files) if not name.startswith(".")]:
            relative, real = path.relative_to(folder), Path(os.path.realpath(path))  # of a link in a circle itself
            if path.name not in links and not relative.match(pattern):
                continue
            if real.is_file() and (real.is_relative_to(root) or real.parent in blobs):
                found.append((path.is_symlink(), str(relative), str(real)))
            elif not (real.is_dir() and _is_walked(real, root)):
                faults.append(
                    f"{path} is neither a file nor a link to one within {folder}; put the file there, or name it itself"
                )
    return [(relative, real) for _, relative, real in sorted(found)]


def _is_walked(folder: Path, root: Path) -> bool:
    return folder.is_relative_to(root) and not any(part.startswith(".") for part in folder.relative_to(root).parts)


def _checked(text: bytes, path: str) -> bytes:
    """The text, if it is UTF-8."""
    if not text:
        raise UserError(f"{path}: is empty")
    try:
        text.decode()
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not UTF-8 text (byte {error.start:,}: {error.reason})") from error
    if b"\0" in text:
        raise UserError(f"{path}: is a binary file (it holds NUL bytes)")
    return text


def _fields(text: bytes, path: str, name: str, field: str) -> dict[str, bytes]:
    """The documents of JSON lines, named after the file and the number of the line."""
    documents = {}
    for number, line in enumerate(_checked(text, path).split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            document = json.loads(line)[field]
            if NO_TEXT.search(document):
                raise ValueError(f"no text: {document!r}")
        except (ValueError, LookupError, TypeError, RecursionError) as error:
            raise UserError(
                f"{path}, line {number:,}: expected a JSON object with text in the field {field} (data.field), found "
                f"{line.decode()[:60]}"
            ) from error
        if document:
            documents[f"{name}:{number}"] = document.encode()
    if not documents:
        raise UserError(f"{path}: no line holds text in the field {field}")
    return documents
