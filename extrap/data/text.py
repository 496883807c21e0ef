"""Real text, a file is a document: any files, or the standard library of the running Python."""

import os
import platform
import sysconfig
from pathlib import Path
from typing import Any

import numpy as np

from extrap.data.bpe import Tokens
from extrap.data.documents import Documents, drawn
from extrap.data.reading import read
from extrap.errors import UserError


class Text(Documents):
    """Files and folders of UTF-8 text: a file is a document, a folder gives all its files that match, in sorted order.

    `field`: each line of a file is a JSON object, whose `field` is a document. `join`: the documents of a part, one after
    the other with a NUL byte between them, which text never holds, are one document: short ones then serve, too, and a
    sequence or segment may hold the end of one and the beginning of the next.
    Raises UserError for a path that is missing, empty or not UTF-8 text, and for one given in both parts.
    """

    name = "text"

    def __init__(
        self,
        train: list[str],
        valid: list[str],
        pattern: str = "*",
        field: str = "",
        join: bool = False,
        min_usable_share: float = 0.5,
        max_verbatim_share: float = 0.95,
        bpe: int = 0,
        kept: Tokens | None = None,
    ) -> None:
        shares = {"min_usable_share": min_usable_share, "max_verbatim_share": max_verbatim_share}
        for option, share in shares.items():
            if not 0 <= share <= 1:
                raise UserError(f"data.{option}: expected a share from 0 to 1, found {share}")
        trained, held_out = read(train, "data.train", pattern, field), read(valid, "data.valid", pattern, field)
        if both := trained.files & held_out.files:
            raise UserError(f"data.valid: {min(both)} is in data.train too; a document belongs to one part only")
        known = {_bare(text) for text in trained.documents.values()} - {b""}
        remarks = [*trained.remarks, *held_out.remarks]
        bare = {name: _bare(text) for name, text in held_out.documents.items()}
        if copies := [name for name, text in bare.items() if text in known]:
            told = f"{copies[0]} and {len(copies) - 1:,} more are each" if copies[1:] else f"{copies[0]} is"
            told = f"data.valid: {told} a copy of a document of data.train"
            if not field:  # single lines may well be alike
                raise UserError(told)
            remarks.append(told)
        first = {text: name for name, text in reversed(bare.items())}  # of copies: documents count as independent
        scored = {name: text for name, text in held_out.documents.items() if join or first[bare[name]] == name}
        if n_copies := len(held_out.documents) - len(scored):
            remarks.append(
                f"data.valid: of documents that are copies of each other one is scored ({n_copies:,} are left out)"
            )
        parts = [trained.documents, scored]
        if join:
            remarks.append(
                f"data.join: {len(parts[0]):,} documents are joined to be trained on, {len(parts[1]):,} to be scored"
            )
            parts = [{f"{name}(joined)": b"\0".join(parts[i].values())} for i, name in enumerate(("train", "valid"))]
        super().__init__(
            *parts,
            remarks=remarks,
            min_usable_share=min_usable_share,
            max_verbatim_share=max_verbatim_share,
            bpe=bpe,
            kept=kept,
        )


def _bare(text: bytes) -> bytes:
    """What makes a copy: not where its lines end or the blanks around it."""
    return text.replace(b"\r\n", b"\n").translate(bytes.maketrans(b"\r\n", b"  ")).strip()


class Stdlib(Documents):
    """The `.py` files of the running interpreter's own standard library: real text that every machine has.

    Left out are third-party packages, tests, generated tables and whatever some distributions package apart or patch
    (EXCLUDED). A file is held out if the SHA-256 of its path below the library begins with a byte below 32, an eighth
    of the files, so that an added file does not move the others; unless more than a third of it stands in files that are
    trained on (bz2.py in gzip.py and lzma.py), with which it is then. Results depend on the Python version; it is recorded.
    """

    name = "stdlib"

    def __init__(self, bpe: int = 0, kept: Tokens | None = None) -> None:
        super().__init__(*stdlib_documents(Path(sysconfig.get_path("stdlib"))), bpe=bpe, kept=kept)

    def describe(self) -> dict[str, Any]:
        return {"python": platform.python_version(), **super().describe()}

    def unigram_nll(self, train_len: int) -> np.ndarray:
        """Of all training documents; those shorter than 128 bytes, 0.009 % of the text, have counted in all rows so far."""
        return super().unigram_nll(0)


def stdlib_documents(root: Path) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """What Stdlib trains on, and what it holds out."""
    parts: tuple[dict[str, bytes], dict[str, bytes]] = ({}, {})
    for path in stdlib_files(root):
        relative = path.relative_to(root).as_posix()
        text = path.read_bytes()
        if text:  # an empty __init__.py holds nothing to learn from
            parts[drawn(relative)[0] < 32][relative] = text
    if not all(parts):
        raise UserError(f"data=stdlib: no Python sources under {root}; use data=text with files of your own")
    train, valid = parts
    while copies := _near_copies(train, valid):
        train |= {name: valid.pop(name) for name in copies}
    return dict(sorted(train.items())), valid


def _near_copies(train: dict[str, bytes], valid: dict[str, bytes]) -> list[str]:
    """The held-out documents of which more than a third, in lines of 24 bytes or more, stands in lines of training text."""
    known = {line for text in train.values() for line in text.split(b"\n")}

    def share(text: bytes) -> float:
        lines = [line for line in text.split(b"\n") if len(line.strip()) >= 24]
        return sum(len(line) for line in lines if line in known) / max(1, sum(map(len, lines)))

    return [name for name, text in valid.items() if share(text) > 1 / 3]


EXCLUDED = {
    "site-packages", "dist-packages", "test", "tests",  # third-party packages, tests
    "idlelib", "tkinter", "turtledemo", "turtle.py", "lib2to3", "distutils", "ensurepip", "venv",  # apart, or gone
    "site.py", "sitecustomize.py", "lib-dynload", "__phello__",  # patched by distributions, or not text
    "encodings", "pydoc_data",  # generated
}  # fmt: skip


def stdlib_files(root: Path) -> list[Path]:
    """The selection of Stdlib, sorted by path."""

    def chosen(name: str, top: bool) -> bool:
        return name not in EXCLUDED and not (top and name.startswith(("_sysconfigdata", "config-")))

    found = []
    for folder, inner, files in os.walk(root):
        top = Path(folder) == root
        inner[:] = [name for name in inner if chosen(name, top)]  # what is left out, such as site-packages, is not walked
        found += [Path(folder, name) for name in files if name.endswith(".py") and chosen(name, top)]
    return sorted(found)
