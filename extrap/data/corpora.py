"""Named corpora: published text at a pinned revision, fetched once, read from files alone. Imports no torch."""

import hashlib
import importlib
import json
import re
import zipfile
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

from extrap.data.bpe import Tokens
from extrap.data.documents import Documents, drawn
from extrap.errors import UserError, nearest

FOLDER = Path("corpora")  # below the folder where commands are given, as results/ is
FETCHED = "corpus.json"  # beside the files of a corpus: where they are from, and their digests
Parts = tuple[dict[str, bytes], dict[str, bytes]]  # training and held-out documents by name


class Published(NamedTuple):
    """Where a corpus is, which version of it, and how its files are documents."""

    home: str  # a dataset repository of the Hugging Face hub, or the address of a zip file
    revision: str  # a commit of the repository, or the SHA-256 of the file within the zip
    train: tuple[str, ...]  # files
    valid: tuple[str, ...]  # files that are scored
    split: Callable[[list[Path], list[Path]], Parts]

    @property
    def files(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(self.train + self.valid))


class Corpus(Documents):
    """A corpus of CORPORA by its name, as `make corpus` has fetched it: its documents, its split into training and test.

    Raises UserError where it is not there, or not what was fetched, or fetched at another revision.
    """

    def __init__(self, name: str, bpe: int = 0, kept: Tokens | None = None) -> None:
        corpus, folder = published(name), FOLDER / name
        self.name, self.revision = f"corpus data.name={name}", corpus.revision
        check_fetched(name, folder)
        train, valid = corpus.split(*([folder / file for file in files] for files in (corpus.train, corpus.valid)))
        super().__init__(train, valid, bpe=bpe, kept=kept)

    def describe(self) -> dict[str, Any]:
        return {"revision": self.revision, **super().describe()}


def published(name: str) -> Published:
    if name not in CORPORA:
        raise UserError(f"data.name: no corpus {name!r}; {nearest(name, CORPORA)}")
    return CORPORA[name]


def check_fetched(name: str, folder: Path) -> None:
    """Raises UserError, with the command that mends it, unless all files of the corpus lie there as they were fetched."""
    corpus, mend = published(name), f"make corpus NAME={name} (python -m extrap.sweep.corpus {name}) fetches it"
    try:
        told = json.loads((folder / FETCHED).read_text())
        found = {"home": told["home"], "revision": told["revision"]}
        digests = {file: told["files"][file] for file in corpus.files}
    except FileNotFoundError as error:
        raise UserError(f"data.name: {name} is not there (no {folder / FETCHED}); {mend}") from error
    except (ValueError, LookupError, TypeError) as error:
        raise UserError(f"data.name: {folder / FETCHED} is damaged; {mend} again") from error
    if found != {"home": corpus.home, "revision": corpus.revision}:
        raise UserError(
            f"data.name: {folder} holds {found['home']} at {found['revision']}, expected {corpus.home} at "
            f"{corpus.revision}; {mend} again"
        )
    for file, digest in digests.items():
        path = folder / file
        if not path.is_file() or sha256(path) != digest:
            state = "is not what was fetched" if path.is_file() else "is missing"
            raise UserError(f"data.name: {path} {state} (expected SHA-256 {digest}); {mend} again")


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def articles(train: list[Path], valid: list[Path]) -> Parts:
    """WikiText: a row is a line, and an article begins with its title, ` = Title = `, alone between blank lines.

    Headings of sections have more signs, ` = = Section = = `.
    """
    return _articles(_rows(train)), _articles(_rows(valid))


TITLE = re.compile(r" = (?!= )(.+?)(?<! =) = \n")


def _articles(rows: Iterable[str]) -> dict[str, bytes]:
    lines = [row if row.strip() else "\n" for row in rows]  # the hub has empty rows for blank lines
    alone = zip(["\n", *lines], lines, [*lines[1:], "\n"], strict=False)
    heads = [at for at, (above, line, below) in enumerate(alone) if above == below == "\n" and TITLE.fullmatch(line)]
    found = {}
    for number, (start, stop) in enumerate(zip(heads, [*heads[1:], len(lines)], strict=True)):
        title = TITLE.fullmatch(lines[start])
        assert title
        found[f"{number:05d} {title[1]}"] = "".join(lines[start:stop]).encode()
    return found


def first_rows(n_train: int) -> Callable[[list[Path], list[Path]], Parts]:
    """Every row is a document: the first so many of the training part, and all that are held out."""

    def split(train: list[Path], valid: list[Path]) -> Parts:
        return _numbered(islice(_rows(train), n_train)), _numbered(_rows(valid))

    return split


def held_out_rows(n: int, of_256: int) -> Callable[[list[Path], list[Path]], Parts]:
    """Every row is a document, of the first n; so many of 256, by the hash of their number, are held out."""

    def split(train: list[Path], valid: list[Path]) -> Parts:
        documents = _numbered(islice(_rows(train), n))
        held_out = {name: documents.pop(name) for name in [*documents] if drawn(name)[0] < of_256}
        return documents, held_out

    return split


def hundred_million(train: list[Path], valid: list[Path]) -> Parts:
    """enwik8, text8: one text of 100 MB; the first 90 are trained on, the last 5 scored, and 5 between them are not read."""
    with zipfile.ZipFile(train[0]) as archive:
        (name,) = archive.namelist()
        text = archive.read(name)
    return {name: text[:90_000_000]}, {f"{name}:test": text[95_000_000:]}


def _numbered(rows: Iterable[str]) -> dict[str, bytes]:
    return {f"{number:06d}": row.encode() for number, row in enumerate(rows) if row}


def _rows(files: list[Path]) -> Iterator[str]:
    """The column `text` of parquet files."""
    try:
        parquet = importlib.import_module("pyarrow.parquet")  # an extra
    except ImportError as error:
        raise UserError("data=corpus: the package pyarrow is not installed: pip install 'extrap[corpora]'") from error
    batches = chain.from_iterable(parquet.ParquetFile(file).iter_batches(columns=["text"]) for file in files)
    return (text for batch in batches for text in batch.column("text").to_pylist())


WIKITEXT = "Salesforce/wikitext", "b08601e04326c79dfdd32d625aee71d232d685c3"
# Revisions, names of files and the SHA-256 of the two texts are as others have published them, several of each, alike
CORPORA = {
    "wikitext-2": Published(
        *WIKITEXT,
        ("wikitext-2-raw-v1/train-00000-of-00001.parquet",),
        ("wikitext-2-raw-v1/test-00000-of-00001.parquet",),
        articles,
    ),
    "wikitext-103": Published(
        *WIKITEXT,
        tuple(f"wikitext-103-raw-v1/train-0000{n}-of-00002.parquet" for n in range(2)),
        ("wikitext-103-raw-v1/test-00000-of-00001.parquet",),
        articles,
    ),
    "enwik8": Published(
        "http://mattmahoney.net/dc/enwik8.zip",
        "2b49720ec4d78c3c9fabaee6e4179a5e997302b3a70029f30f2d582218c024a8",
        ("enwik8.zip",),
        (),
        hundred_million,
    ),
    "text8": Published(
        "http://mattmahoney.net/dc/text8.zip",
        "6e890197040d37d85beb962ae1f041ff1d9a9ca8d20c7d99c85027eebf51dca7",
        ("text8.zip",),
        (),
        hundred_million,
    ),
    "pg19-sample": Published(
        "emozilla/pg19",
        "c021754c8e01c5b1cc83a1f549c1f97fbbb756b8",
        ("data/train-00000-of-00023-5263dc4323e881d2.parquet",),
        ("data/test-00000-of-00001-29a571947c0b5ccc.parquet",),
        first_rows(250),
    ),
    "fineweb-edu-sample": Published(
        "HuggingFaceFW/fineweb-edu",
        "87f09149ef4734204d70ed1d046ddc9ca3f2b8f9",
        ("sample/10BT/000_00000.parquet",),
        (),
        held_out_rows(20_000, of_256=8),
    ),
}
