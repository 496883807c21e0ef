"""Documents of a sweep as all its runs read them: one copy in memory."""

import contextlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from extrap.data.documents import Documents
from extrap.files import write_atomic

TOLD, TEXT = "documents.json", "documents"  # what stands in the folder: what the text is, and all of it


class Stored(Documents):
    """Documents that were read and stored by another process: the training text is mapped into memory, not read.

    So all runs of a sweep share one copy, and none of them reads, hashes or compares the texts again. `of` is what a config
    says of the data and of the sizes that it takes. Raises LookupError or OSError where other documents are stored, or none.
    """

    def __init__(self, folder: Path, of: dict[str, Any]) -> None:
        told = json.loads((folder / TOLD).read_text())
        if told["of"] != of:
            raise LookupError(f"{folder} holds documents of {told['of']}")
        self.name, self.described, self.used = told["name"], told["described"], told["used"]
        ends = np.cumsum([sum(told["train"]), *told["valid"].values()])
        stream, *valid = np.split(np.memmap(folder / TEXT, mode="r"), ends[:-1])
        self._index(stream, told["train"])
        self.valid = dict(zip(told["valid"], map(bytes, valid), strict=True))

    def describe(self) -> dict[str, Any]:
        return dict(self.described)

    def usage(self, train_len: int, seg_len: int, n_segments: int) -> dict[str, Any]:
        return dict(self.used)


def store(source: Documents, used: dict[str, Any], folder: Path, of: dict[str, Any]) -> None:
    """Writes the documents for Stored, unless they lie there already, every byte of them."""
    told = json.dumps({
        "of": of,
        "name": source.name,
        "described": source.describe(),
        "used": used,
        "train": [len(text) for text in source.train.values()],
        "valid": {name: len(text) for name, text in source.valid.items()},
    })  # fmt: skip
    text = b"".join([*source.train.values(), *source.valid.values()])
    with contextlib.suppress(OSError):  # not there
        if (folder / TOLD).read_bytes() == told.encode() and (folder / TEXT).read_bytes() == text:
            return
    folder.mkdir(parents=True, exist_ok=True)
    (folder / TOLD).unlink(missing_ok=True)
    write_atomic(folder / TEXT, text)
    write_atomic(folder / TOLD, told)
