"""From paths to documents: which files are read, as what, and what is said about those that cannot be."""

import json
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import NamedTuple

from extrap.errors import UserError
from extrap.files import as_path

# how a file begins -> what it is, and what makes text of it
KINDS = {
    b"\x1f\x8b": "is compressed; unpack it first: gunzip --keep FILE",
    b"BZh": "is compressed; unpack it first: bunzip2 --keep FILE",
    b"\xfd7zXZ": "is compressed; unpack it first: unxz --keep FILE",
    b"\x28\xb5\x2f\xfd": "is compressed; unpack it first: unzstd FILE",
    b"PK\x03\x04": "is an archive; unpack it first: unzip FILE",
    b"PAR1": "is a Parquet file; write it as JSON lines, whose text data.field=NAME reads",
    b"\xff\xfe": "is UTF-16; expected UTF-8 text: iconv -f utf-16 -t utf-8 FILE",
    b"\xfe\xff": "is UTF-16; expected UTF-8 text: iconv -f utf-16 -t utf-8 FILE",
}
# files that are text, but not only what somebody wrote
MARKED_UP = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".html", ".htm", ".xml", ".ipynb")
MOST_TOLD = 20  # files in one message


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
        raise UserError(f"{option}: no files given; expected a list of UTF-8 text files or folders, {option}=[PATH,...]")
    faults: list[str] = []
    found: dict[str, tuple[str, str]] = {}  # name -> path, real path
    named: set[str] = set()  # real paths
    given_folders = []
    for typed in paths:
        given = str(as_path(typed)) if typed else ""
        if not given or not os.path.exists(given):
            faults.append(f"{given or repr(given)} does not exist (looked from {Path.cwd()})")
            continue
        real = os.path.realpath(given)
        if os.path.isdir(given):
            n_faults = len(faults)
            files = _below(given, pattern, faults)
            if not files and len(faults) == n_faults:
                faults.append(f"the folder {given} holds no files" + (f" that match {pattern}" if pattern != "*" else ""))
            given_folders.append(given)
        elif os.path.isfile(given):
            files = [("", real)]
        else:
            faults.append(f"{given} is neither a file nor a folder")
            continue
        for relative, target in files:
            if target in named:
                continue
            named.add(target)
            path = os.path.join(given, relative) if relative else given
            name = PurePath(os.path.basename(real), relative).as_posix()
            if _is_no_text(name):
                faults.append(f"{name}: the name of the file is not UTF-8; rename it")
            elif name in found:
                faults.append(f"{found[name][0]} and {path} would both be named {name}; give the folder that holds both")
            else:
                found[name] = path, target
    documents: dict[str, bytes] = {}
    empty: list[str] = []
    for name, (path, _) in sorted(found.items()):
        try:
            text = _text_of(path)
            if not text and path not in paths:  # an empty __init__.py holds nothing to learn from
                empty.append(name)
            else:
                documents |= _fields(text, path, name, field) if field else {name: _checked(text, path)}
        except UserError as error:
            faults.append(str(error))
    if not documents and not faults:
        faults.append(f"{', '.join(paths)}: no file holds text, all are empty")
    if faults:
        raise UserError(f"{option}: {_all(faults)}" + _how_to_go_on(faults, given_folders))
    return Reading(documents, named, [*_about(empty, found, option, field)])


def _all(faults: list[str]) -> str:
    if len(faults) == 1:
        return faults[0]
    more = f"; and {len(faults) - MOST_TOLD:,} more" if len(faults) > MOST_TOLD else ""
    return f"{len(faults):,} files cannot be read: {'; '.join(faults[:MOST_TOLD])}{more}"


def _how_to_go_on(faults: list[str], folders: list[str]) -> str:
    within = tuple(os.path.join(folder, "") for folder in folders)
    hint = ". data.pattern says which files of a folder are read, for example data.pattern='*.txt'"
    return hint if any(fault.startswith(within) for fault in faults) else ""


def _about(empty: list[str], found: dict[str, tuple[str, str]], option: str, field: str) -> Iterator[str]:
    if empty:
        yield f"{option}: {_some(empty, 'empty file')} left out"
    kinds = Counter(suffix for path, _ in found.values() if (suffix := PurePath(path).suffix.lower()) in MARKED_UP)
    if kinds and not field:
        told = ", ".join(f"{n:,} {suffix} file{'s' if n > 1 else ''}" for suffix, n in kinds.items())
        lines = "; data.field=NAME reads a field of JSON lines instead" if {".jsonl", ".ndjson"} & kinds.keys() else ""
        yield f"{option}: {told} taken as plain text: marks and keys are learned and scored too{lines}"


def _some(names: list[str], what: str) -> str:
    shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
    return f"{len(names):,} {what}{'s' if len(names) > 1 else ''} ({shown})"


def _is_no_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return True
    return False


def _below(folder: str, pattern: str, faults: list[str]) -> list[tuple[str, str]]:
    """(path below the folder, real path) of the files that match, links to others of them last."""
    root, links = os.path.realpath(folder), []
    files, ahead = [], [""]
    while ahead:
        place = ahead.pop()
        try:
            entries = [entry for entry in os.scandir(os.path.join(folder, place)) if not entry.name.startswith(".")]
        except OSError as error:
            faults.append(f"{error.filename}: cannot be read ({error.strerror})")
            continue
        for entry in entries:
            relative = os.path.join(place, entry.name)
            if entry.is_dir(follow_symlinks=False):
                ahead.append(relative)
            elif not _matches(relative, pattern):
                continue
            elif entry.is_symlink():
                target = os.path.realpath(entry.path)  # of a link in a circle itself
                if not (_may_be_read(target, root) and os.path.exists(target)):
                    faults.append(
                        f"{entry.path} is a link to {target}, which is no file or folder within {folder}; put the file in "
                        "its place, or name it itself"
                    )
                elif os.path.isfile(target):
                    links.append((relative, target))
                elif not os.path.isdir(target):
                    faults.append(f"{entry.path} is neither a file nor a folder")
            elif entry.is_file():
                files.append((relative, os.path.join(root, relative)))
            else:
                faults.append(f"{entry.path} is neither a file nor a folder")
    return sorted(files) + sorted(links)


def _matches(relative: str, pattern: str) -> bool:
    try:
        return pattern == "*" or PurePath(relative).match(pattern)
    except ValueError as error:
        raise UserError(f"data.pattern: expected a pattern of file names such as '*.txt', found {pattern!r}") from error


def _may_be_read(target: str, root: str) -> bool:
    """Whether a link within the folder `root` may lead to `target`, both real paths.

    Who gives away a corpus could name any file of its reader by a link: only what lies within the corpus is read. The
    cache of a hub, CACHE/snapshots/.../NAME -> CACHE/blobs/DIGEST, is one corpus, wherever in snapshots the folder is.
    """
    if PurePath(target).is_relative_to(root):
        return True
    caches = [place.parent for place in (PurePath(root), *PurePath(root).parents) if place.name == "snapshots"]
    return any(PurePath(target).parent == cache / "blobs" for cache in caches)


def _text_of(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    except MemoryError as error:
        raise UserError(f"{path}: is larger than what is left of this machine's memory") from error


def _checked(text: bytes, path: str) -> bytes:
    """The text, if it is UTF-8."""
    if not text:
        raise UserError(f"{path}: is empty; expected UTF-8 text")
    for start, kind in KINDS.items():
        if text.startswith(start):
            raise UserError(f"{path}: {kind.replace('FILE', path)}")
    try:
        text.decode()
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not UTF-8 text (byte {error.start:,}: {error.reason})") from error
    if b"\0" in text:
        raise UserError(f"{path}: is a binary file (it holds NUL bytes); expected UTF-8 text")
    return text


def _fields(text: bytes, path: str, name: str, field: str) -> dict[str, bytes]:
    """The documents of JSON lines, named after the file and the number of the line."""
    documents = {}
    for number, line in enumerate(_checked(text, path).split(b"\n"), start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number:,}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{where}: is no JSON; data.field reads files with a JSON object on each line") from error
        if not isinstance(row, dict) or field not in row:
            there = ", ".join(row) if isinstance(row, dict) else type(row).__name__
            raise UserError(f"{where}: expected a JSON object with the field {field} (data.field), found {there}")
        if not isinstance(row[field], str) or _is_no_text(row[field]) or "\0" in row[field]:
            raise UserError(f"{where}: expected text in the field {field}, found {json.dumps(row[field])[:60]}")
        if row[field]:
            documents[f"{name}:{number}"] = row[field].encode()
    if not documents:
        raise UserError(f"{path}: no line holds text in the field {field}")
    return documents
