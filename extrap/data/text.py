"""Real text as bytes, each document kept whole: any files, or the standard library of the running Python."""

import hashlib
import os
import platform
import sysconfig
from pathlib import Path
from typing import Any

import numpy as np

from extrap.data.base import HeldOut, Reference
from extrap.errors import UserError

VOCAB_SIZE = 256


class Documents:
    """Training and held-out documents, name -> bytes, and all that follows from them."""

    name: str
    vocab_size = VOCAB_SIZE

    def __init__(self, train: dict[str, bytes], valid: dict[str, bytes]) -> None:
        self.train, self.valid = train, valid
        self._stream = np.frombuffer(b"".join(train.values()), dtype=np.uint8)
        lengths = np.array([len(text) for text in train.values()])
        self._train_lengths, self._train_starts = lengths, np.cumsum(lengths) - lengths

    def check(self, train_len: int, seg_len: int, n_segments: int) -> None:
        longest = int(self._train_lengths.max())
        if longest < train_len:
            raise UserError(
                f"data={self.name}: the longest training document has {longest:,} bytes, a training sequence needs "
                f"{train_len:,}: lower train.train_len or give longer documents"
            )
        found = sum(len(text) // seg_len for text in self.valid.values())
        if found < n_segments:
            longest = max(len(text) for text in self.valid.values())
            raise UserError(
                f"data={self.name}: the {len(self.valid)} held-out documents (longest {longest:,} bytes) hold {found} "
                f"segments of {seg_len:,} bytes, expected {n_segments}: lower max(eval.lengths) or eval.n_segments, "
                "or give more or longer documents"
            )

    def batch(self, rng: np.random.Generator, batch_size: int, length: int) -> np.ndarray:
        # every possible start is equally likely; a document shorter than `length` has none
        n_starts = np.maximum(self._train_lengths - length + 1, 0)
        last = np.cumsum(n_starts)
        draw = rng.integers(last[-1], size=batch_size)
        document = np.searchsorted(last, draw, side="right")
        start = self._train_starts[document] + draw - (last - n_starts)[document]
        tokens: np.ndarray = self._stream[start[:, None] + np.arange(length)].astype(np.int64)
        return tokens

    def held_out(self, seg_len: int, n_segments: int) -> HeldOut:
        capacity = {name: len(text) // seg_len for name, text in self.valid.items()}
        taken = dict.fromkeys(capacity, 0)
        while sum(taken.values()) < n_segments:  # one from each document in turn, until there are enough
            for name, room in capacity.items():
                if taken[name] < room and sum(taken.values()) < n_segments:
                    taken[name] += 1
        tokens, documents, segments = [], [], []
        for name, count in taken.items():
            text = np.frombuffer(self.valid[name], dtype=np.uint8)
            stride = len(text) // count if count else 0
            for segment in range(count):
                start = segment * stride + (stride - seg_len) // 2  # not the head of a file: heads are alike
                tokens.append(text[start : start + seg_len])
                documents.append(name)
                segments.append(segment)
        return HeldOut(np.stack(tokens).astype(np.int64), documents, segments)

    def unigram_nll(self) -> np.ndarray:
        counts = np.bincount(self._stream, minlength=VOCAB_SIZE) + 1
        nll: np.ndarray = -np.log(counts / counts.sum())
        return nll

    def references(self, tokens: np.ndarray, context: np.ndarray, train_len: int) -> dict[str, Reference]:
        return {}  # nobody knows how well text can be predicted

    def describe(self) -> dict[str, Any]:
        digest = hashlib.sha256()
        for part, texts in (("train", self.train), ("valid", self.valid)):
            for name, text in texts.items():
                digest.update(f"{part}\0{name}\0{len(text)}\0".encode() + text)
        return {
            "sha256": digest.hexdigest(),
            "train_documents": len(self.train),
            "train_bytes": sum(map(len, self.train.values())),
            "valid_documents": len(self.valid),
            "valid_bytes": sum(map(len, self.valid.values())),
        }


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
    """
    if not paths:
        raise UserError(f"{option}: no files given; expected a list of UTF-8 text files or folders, {option}=[PATH,...]")
    files: dict[str, Path] = {}
    read = set()
    for path in map(Path, paths):
        if not os.path.exists(path):  # unlike Path.exists, False for a name that cannot be one
            raise UserError(f"{option}: {path} does not exist (looked from {Path.cwd()})")
        below = (
            [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file() and not is_hidden(p.relative_to(path))]
        )
        if not below:
            raise UserError(f"{option}: the folder {path} holds no files")
        for file in below:
            if file.resolve() in read:
                continue
            read.add(file.resolve())
            name = Path(path.resolve().name, file.relative_to(path)).as_posix()
            if files.setdefault(name, file) is not file:
                raise UserError(
                    f"{option}: {files[name]} and {file} would both be named {name}; give the folder that holds both"
                )
    return dict(sorted(files.items()))


def is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def read_text(path: Path) -> bytes:
    """The bytes of a UTF-8 text file."""
    if not str(path).isprintable() and any("\ud800" <= c <= "\udfff" for c in str(path)):
        raise UserError(f"{str(path)!a}: the name of the file is not UTF-8; rename it")
    try:
        text = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    if not text:
        raise UserError(f"{path}: is empty; expected UTF-8 text")
    try:
        text.decode()
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not UTF-8 text (byte {error.start:,}: {error.reason})") from error
    if b"\0" in text:
        raise UserError(f"{path}: is a binary file (it holds NUL bytes); expected UTF-8 text")
    return text
