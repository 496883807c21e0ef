"""Documents of a sweep as all its runs read them: one copy in memory."""

import contextlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from extrap.data.bpe import Tokens
from extrap.data.documents import Documents
from extrap.files import write_atomic

# what stands in the folder: what the documents are, all their tokens, and what made these of text where they are no bytes
TOLD, TOKENS, TOKENIZER = "documents.json", "documents", "tokenizer.json"


class Stored(Documents):
    """Documents that were read and stored by another process: the training text is mapped into memory, not read.

    So all runs of a sweep share one copy, and none of them reads, hashes, encodes or compares the texts again. `of` is what
    a config says of the data and of the sizes that it takes. Raises LookupError or OSError where other documents are stored,
    or none.
    """

    def __init__(self, folder: Path, of: dict[str, Any]) -> None:
        told, tokenizer, train, valid = _read(folder)
        if told["of"] != of:
            raise LookupError(f"{folder} holds documents of {told['of']}")
        self.name, self.described, self.used = told["name"], told["described"], told["used"]
        self._index(train, told["train"], dict(zip(told["valid"], map(np.array, valid), strict=True)), tokenizer)

    def describe(self) -> dict[str, Any]:
        return dict(self.described)

    def usage(self, train_len: int, seg_len: int, n_segments: int) -> dict[str, Any]:
        return dict(self.used)


def _read(folder: Path) -> tuple[dict[str, Any], str, np.ndarray, list[np.ndarray]]:
    """What is told of the documents, tokenizer.json or nothing, all training tokens, and the held-out documents."""
    told = json.loads((folder / TOLD).read_text())
    tokenizer = (folder / TOKENIZER).read_text() if told["tokens"] else ""
    ends = np.cumsum([sum(told["train"]), *told["valid"].values()])
    train, *valid = np.split(np.memmap(folder / TOKENS, mode="r", dtype=np.uint16 if tokenizer else np.uint8), ends[:-1])
    return told, tokenizer, train, valid


def kept_tokens(folder: Path) -> Tokens | None:
    """The tokens of a folder that Stored reads, if they lie there as they were written."""
    with contextlib.suppress(OSError, ValueError, LookupError):
        told, tokenizer, train, valid = _read(folder)
        if told["tokens"]:
            documents = np.split(np.array(train), np.cumsum(told["train"])[:-1])
            tokens = Tokens(told["tokens"], tokenizer, documents, [*map(np.array, valid)])
            if tokens.digests().items() <= told["described"].items():
                return tokens
    return None


def store(source: Documents, used: dict[str, Any], folder: Path, of: dict[str, Any]) -> None:
    """Writes the documents for Stored, unless they lie there already, every byte of them."""
    told = {
        "of": of,
        "name": source.name,
        "described": source.describe(),
        "used": used,
        "tokens": source.tokens.made_of if source.tokens else None,
        "train": source.train_lengths(),
        "valid": {name: len(document) for name, document in source._valid.items()},
    }
    files = {TOKENS: b"".join(document.tobytes() for document in (source._stream, *source._valid.values()))}
    if source.tokens:
        files[TOKENIZER] = source.tokens.tokenizer.encode()
    files[TOLD] = json.dumps(told).encode()
    with contextlib.suppress(OSError):  # not there
        if all((folder / name).read_bytes() == content for name, content in files.items()):
            return
    folder.mkdir(parents=True, exist_ok=True)
    (folder / TOLD).unlink(missing_ok=True)
    for name, content in files.items():  # what is told of them last
        write_atomic(folder / name, content)
