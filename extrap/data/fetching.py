"""From where a corpus is published to its files here. Imports no torch."""

import hashlib
import importlib
import json
import urllib.request
import zipfile
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path
from typing import Any

from extrap.data.corpora import FETCHED, Published, check_fetched, published, sha256
from extrap.errors import UserError, one_line
from extrap.files import write_atomic

SECONDS = 60.0  # without an answer


def fetch(name: str, folder: Path) -> None:
    """The files of a corpus at its revision, and their digests beside them, which every later reading compares.

    What lies there whole stays, as where the folder was copied to a machine without a network. Raises UserError where the
    files cannot be had, or are not what is published.
    """
    corpus = published(name)
    with suppress(UserError):
        check_fetched(name, folder)
        return
    folder.mkdir(parents=True, exist_ok=True)
    get = _of_address if "://" in corpus.home else _of_hub
    digests = {}
    for file in corpus.files:
        before = _state(folder / file)
        try:
            get(corpus, file, folder)
        except UserError:
            if _state(folder / file) != before:  # or it would be taken for fetched
                (folder / file).unlink(missing_ok=True)
            raise
        digests[file] = sha256(folder / file)
    told = {"home": corpus.home, "revision": corpus.revision, "files": digests}
    write_atomic(folder / FETCHED, json.dumps(told, indent=2) + "\n")


def _state(path: Path) -> tuple[int, ...]:
    """Another one once the file has been written."""
    return (told.st_ino, told.st_mtime_ns, told.st_size) if path.exists() and (told := path.stat()) else ()


def _of_hub(corpus: Published, file: str, folder: Path) -> None:
    """Checked against the size and the SHA-256 that the hub tells of a large file."""
    hub, errors = _library("huggingface_hub"), _library("huggingface_hub.errors")
    where: dict[str, Any] = {"repo_type": "dataset", "revision": corpus.revision}
    try:
        known = hub.get_hf_file_metadata(hub.hf_hub_url(corpus.home, file, **where))
        hub.hf_hub_download(corpus.home, file, local_dir=folder, **where)
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError, errors.EntryNotFoundError) as error:
        raise UserError(
            f"{corpus.home}: {file} at revision {corpus.revision} is not published any more; use data=text with a copy of it"
        ) from error
    except Exception as error:
        raise _broken_off(f"{corpus.home}: {file}", error) from error
    _refuse_other(folder / file, "size", (folder / file).stat().st_size, known.size)
    if len(known.etag or "") == 64:  # of small files it is another digest
        _refuse_other(folder / file, "SHA-256", sha256(folder / file), known.etag)


def _of_address(corpus: Published, file: str, folder: Path) -> None:
    """A zip file, checked against the SHA-256 of what it holds."""
    partial = folder / f"{file}.partial"
    try:
        with urllib.request.urlopen(corpus.home, timeout=SECONDS) as answer, partial.open("wb") as copy:  # noqa: S310  ours
            while block := answer.read(2**20):
                copy.write(block)
    except (OSError, HTTPException) as error:
        raise _broken_off(corpus.home, error) from error
    partial.replace(folder / file)
    try:
        with zipfile.ZipFile(folder / file) as archive:
            found = hashlib.sha256(archive.read(archive.namelist()[0])).hexdigest()
    except (zipfile.BadZipFile, LookupError) as error:
        raise UserError(f"{folder / file} is no whole zip file; the same command fetches it again") from error
    _refuse_other(folder / file, "SHA-256", found, corpus.revision)


def _refuse_other(path: Path, what: str, found: object, expected: object) -> None:
    if found != expected:
        raise UserError(
            f"{path} came with {what} {found}, expected {expected}: the download is damaged, or other files are published "
            "there; the same command fetches it again"
        )


def _broken_off(what: str, error: Exception) -> UserError:
    return UserError(
        one_line(
            f"{what} cannot be fetched ({type(error).__name__}: {error}); expected a network: the same command resumes from "
            "there, or fetch it elsewhere and copy the folder corpora/ (HF_ENDPOINT names a mirror of the hub)"
        )
    )


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)  # an extra
    except ImportError as error:
        raise UserError("the package huggingface_hub is not installed: pip install 'extrap[corpora]'") from error
