"""Documents of bytes: training batches, held-out segments, and one copy in memory for all runs of a sweep."""

import contextlib
import hashlib
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from extrap.data.base import HeldOut, Reference
from extrap.data.usage import usage
from extrap.errors import UserError
from extrap.files import write_atomic

VOCAB_SIZE = 256


class Documents:
    """Training and held-out documents, name -> bytes, and all that follows from them.

    `remarks` are lines for who trains on them. Nothing is trained where less than `min_usable_share` of the training bytes
    can be, or where more than `max_verbatim_share` of what is scored stands in the training text too.
    """

    name: str
    vocab_size = VOCAB_SIZE
    or_join = ""  # what else helps where documents are short

    def __init__(
        self,
        train: dict[str, bytes],
        valid: dict[str, bytes],
        *,
        remarks: Sequence[str] = (),
        min_usable_share: float = 0.5,
        max_verbatim_share: float = 1.0,
    ) -> None:
        self.train, self.valid = train, valid
        self.remarks = list(remarks)
        self.min_usable_share, self.max_verbatim_share = min_usable_share, max_verbatim_share
        self._index(np.frombuffer(b"".join(train.values()), dtype=np.uint8), [len(text) for text in train.values()])

    def _index(self, stream: np.ndarray, lengths: list[int]) -> None:
        """All training documents, one after the other, and where each of them lies."""
        self._stream, self._train_lengths = stream, np.array(lengths)
        self._train_starts = np.cumsum(self._train_lengths) - self._train_lengths

    def check(self, train_len: int, seg_len: int, n_segments: int) -> None:
        longest = int(self._train_lengths.max())
        if longest < train_len:
            raise UserError(
                f"data={self.name}: the longest training document has {longest:,} bytes, a training sequence needs "
                f"{train_len:,}: lower train.train_len or give longer documents{self.or_join}"
            )
        usable = self._usable(train_len)
        if (share := usable.sum() / self._train_lengths.sum()) < self.min_usable_share:
            raise UserError(
                f"data={self.name}: {1 - share:.1%} of the training text ({len(self._train_lengths) - len(usable):,} of "
                f"{len(self._train_lengths):,} documents) lies in documents shorter than a training sequence of "
                f"{train_len:,} bytes, which cannot be trained on; expected {self.min_usable_share:.0%} or more of it to be "
                f"long enough: lower train.train_len or give longer documents{self.or_join}"
            )
        found = sum(len(text) // seg_len for text in self.valid.values())
        if found < n_segments:
            longest = max(len(text) for text in self.valid.values())
            raise UserError(
                f"data={self.name}: the {len(self.valid)} held-out documents (longest {longest:,} bytes) hold {found} "
                f"segments of {seg_len:,} bytes, expected {n_segments}: lower max(eval.lengths) or eval.n_segments, "
                f"or give more or longer documents{self.or_join}"
            )

    def _usable(self, train_len: int) -> np.ndarray:
        """The lengths of the training documents that hold a training sequence."""
        return self._train_lengths[self._train_lengths >= train_len]

    def batch(self, rng: np.random.Generator, batch_size: int, length: int) -> np.ndarray:
        n_starts = self._n_starts(length)  # each is as likely
        _, start = self._places(rng.integers(n_starts.sum(), size=batch_size), n_starts)
        return self._sequences(start, length)

    def _n_starts(self, length: int) -> np.ndarray:
        """How many sequences begin in each document; in one shorter than `length` none does."""
        n_starts: np.ndarray = np.maximum(self._train_lengths - length + 1, 0)
        return n_starts

    def _places(self, numbers: np.ndarray, n_starts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The document and the place in the text of possible starts, by their number."""
        last = np.cumsum(n_starts)
        document = np.searchsorted(last, numbers, side="right")
        return document, self._train_starts[document] + numbers - (last - n_starts)[document]

    def _sequences(self, starts: np.ndarray, length: int) -> np.ndarray:
        tokens: np.ndarray = self._stream[starts[:, None] + np.arange(length)].astype(np.int64)
        return tokens

    def hold_back(self, length: int, n_segments: int) -> HeldOut | None:
        """Evenly over all that could be trained on, and no more than a tenth of it: documents are cut around them."""
        n_starts = self._n_starts(length)
        if not (n := min(n_segments, int(n_starts.sum()) // (10 * length))):
            return None
        document, start = self._places((2 * np.arange(n) + 1) * int(n_starts.sum()) // (2 * n), n_starts)
        stops = np.sort(np.concatenate([self._train_starts + self._train_lengths, start]))
        self._train_starts = np.sort(np.concatenate([self._train_starts, start + length]))
        self._train_lengths = stops - self._train_starts
        return HeldOut(self._sequences(start, length), [f"held-back-{d}" for d in document], list(range(n)))

    def held_out(self, seg_len: int, n_segments: int) -> HeldOut:
        capacity = {name: len(text) // seg_len for name, text in self.valid.items()}
        taken = dict.fromkeys(capacity, 0)
        left = n_segments
        while left:  # one from each document in turn, until there are enough
            for name, room in capacity.items():
                if left and taken[name] < room:
                    taken[name] += 1
                    left -= 1
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

    def usage(self, train_len: int, seg_len: int, n_segments: int) -> dict[str, Any]:
        held_out = self.held_out(seg_len, n_segments)
        sizes = (self._stream, self._train_lengths, train_len)
        record = usage(self.name, *sizes, self.valid, held_out, self.max_verbatim_share)
        return record | {"remarks": [*self.remarks, *record["remarks"]]}

    def unigram_nll(self, train_len: int) -> np.ndarray:
        long_enough = self._train_lengths >= train_len
        edges = np.zeros(len(self._stream) + 1, dtype=np.int8)
        np.add.at(edges, self._train_starts[long_enough], 1)
        np.add.at(edges, (self._train_starts + self._train_lengths)[long_enough], -1)
        usable = np.cumsum(edges[:-1], dtype=np.int8) > 0
        counts = np.bincount(self._stream[usable], minlength=VOCAB_SIZE) + 1
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


class Stored(Documents):
    """Documents that were read and stored by another process: the training text is mapped into memory, not read.

    So all runs of a sweep share one copy, and none of them reads, hashes or compares the texts again. `of` is what a config
    says of the data and of the sizes that it takes. Raises LookupError or OSError where other documents are stored, or none.
    """

    def __init__(self, folder: Path, of: dict[str, Any]) -> None:
        told = json.loads((folder / "documents.json").read_text())
        if told["of"] != of:
            raise LookupError(f"{folder} holds documents of {told['of']}")
        self.name, self.described, self.used = told["name"], told["described"], told["used"]
        self.min_usable_share = told["min_usable_share"]
        self._index(np.load(folder / "train.npy", mmap_mode="r"), told["train"])
        valid = np.load(folder / "valid.npy", mmap_mode="r")
        ends = np.cumsum(list(told["valid"].values())).tolist()
        self.valid = {
            name: valid[end - n : end].tobytes() for (name, n), end in zip(told["valid"].items(), ends, strict=True)
        }

    def holds(self, source: Documents, used: dict[str, Any]) -> bool:
        """Whether these are the documents of another source, byte for byte, and this its record."""
        return (
            self.described == source.describe()
            and self.used == used
            and self.min_usable_share == source.min_usable_share
            and self.name == source.name
            and self._train_lengths.tolist() == [len(text) for text in source.train.values()]
            and self._stream.tobytes() == b"".join(source.train.values())
            and self.valid == source.valid
        )

    def describe(self) -> dict[str, Any]:
        return dict(self.described)

    def usage(self, train_len: int, seg_len: int, n_segments: int) -> dict[str, Any]:
        return dict(self.used)


def store(source: Documents, used: dict[str, Any], folder: Path, of: dict[str, Any]) -> None:
    """Writes the documents for Stored, unless they lie there already, every byte of them."""
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError):  # not there, or not as it was written
        if Stored(folder, of).holds(source, used):
            return
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "documents.json").unlink(missing_ok=True)
    for part, texts in (("train", source.train), ("valid", source.valid)):
        buffer = io.BytesIO()
        np.save(buffer, np.frombuffer(b"".join(texts.values()), dtype=np.uint8))
        write_atomic(folder / f"{part}.npy", buffer.getvalue())
    told = {
        "of": of,
        "name": source.name,
        "described": source.describe(),
        "used": used,
        "min_usable_share": source.min_usable_share,
        "train": [len(text) for text in source.train.values()],
        "valid": {name: len(text) for name, text in source.valid.items()},
    }
    write_atomic(folder / "documents.json", json.dumps(told))
