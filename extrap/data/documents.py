"""Documents of bytes: training batches, held-out segments, what of them is used and what was trained on."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np

from extrap.data.base import HeldOut
from extrap.data.cloze import Counted
from extrap.data.overlap import PIECE, verbatim
from extrap.errors import UserError

VOCAB_SIZE = 256
JOIN = "data=text data.join=true makes one of all"
LONG = 1024  # bytes scored of a document; a shorter piece may be a licence's or a table's that many documents share
NOTABLE = 0.01  # shares below are recorded, and not told


class Documents:
    """Training and held-out documents, name -> bytes, and all that follows from them.

    `remarks` are lines for who trains on them. Nothing is trained where less than `min_usable_share` of the training bytes
    can be, or where more than `max_verbatim_share` of what is scored stands in the training text too.
    """

    name: str
    vocab_size = VOCAB_SIZE

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
        """Raises UserError, with the numbers, where training sequences or held-out segments of these sizes cannot be had."""
        usable = self._usable(train_len)
        share = usable.sum() / self._train_lengths.sum()
        if not len(usable) or share < self.min_usable_share:
            raise UserError(
                f"data={self.name}: {1 - share:.1%} of the training text ({len(self._train_lengths) - len(usable):,} of "
                f"{len(self._train_lengths):,} documents, the longest has {self._train_lengths.max():,} bytes) lies in "
                f"documents shorter than a training sequence of {train_len:,} bytes, which cannot be trained on; expected "
                f"one that is long enough, and {self.min_usable_share:.0%} of the text in such: lower train.train_len or "
                f"give longer documents ({JOIN})"
            )
        found = sum(len(text) // seg_len for text in self.valid.values())
        if found < n_segments:
            longest = max(len(text) for text in self.valid.values())
            raise UserError(
                f"data={self.name}: the {len(self.valid)} held-out documents (longest {longest:,} bytes) hold {found} "
                f"segments of {seg_len:,} bytes, expected {n_segments}: lower max(eval.lengths) or eval.n_segments, "
                f"or give more or longer documents ({JOIN})"
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
        rooms = [
            (drawn(name), d, min(len(text) // seg_len, n_segments)) for d, (name, text) in enumerate(self.valid.items())
        ]
        turns = sorted((turn, place, d) for place, d, room in rooms for turn in range(room))  # one of each in turn
        counts = Counter(d for *_, d in turns[:n_segments])
        tokens, documents, segments = [], [], []
        for d, (name, text) in enumerate(self.valid.items()):
            for segment in range(counts[d]):
                stride = len(text) // counts[d]
                start = segment * stride + (stride - seg_len) // 2  # not the head of a file: heads are alike
                tokens.append(np.frombuffer(text, np.uint8, seg_len, start))
                documents.append(name)
                segments.append(segment)
        return HeldOut(np.stack(tokens).astype(np.int64), documents, segments)

    def usage(self, train_len: int, seg_len: int, n_segments: int) -> dict[str, Any]:
        """Raises UserError as `check` does, and where more of what is scored was trained on than `max_verbatim_share`."""
        self.check(train_len, seg_len, n_segments)
        held_out = self.held_out(seg_len, n_segments)
        copied, scored = self._copied(held_out)
        usable = self._usable(train_len)
        lengths = [len(text) for text in self.valid.values()]
        long_enough = [length for length in lengths if length >= seg_len]
        share = round(copied.total() / scored.total(), 4)
        shares = {document: round(n / scored[document], 4) for document, n in copied.items() if n}
        remarks = list(self.remarks)
        if usable.sum() <= (1 - NOTABLE) * self._train_lengths.sum():
            remarks.append(
                f"training documents: {_sizes(self._train_lengths)}; of {train_len:,} bytes or more: {_sizes(usable)}"
            )
        if len(scored) < len(self.valid):
            first, *others = scored
            names = f"{first}, {others[0]}, ... {others[-1]}" if len(others) > 2 else ", ".join(scored)
            remarks.append(
                f"held-out documents: {_sizes(lengths)}; of {seg_len:,} bytes or more: "
                f"{_sizes(long_enough)}; scored: {n_segments:,} segments from {len(scored):,} of them ({names})"
            )
        if share >= NOTABLE or max(shares.values(), default=0) >= 10 * NOTABLE:
            worst = Counter(shares).most_common(3)
            most = ", ".join(f"{document} {of_it:.0%}" for document, of_it in worst if of_it >= NOTABLE)
            remarks.append(
                f"{share:.1%} of the scored bytes stand in the training text too, {PIECE} bytes or more in a row (most: "
                f"{most}): there a low perplexity is memory"
            )
        return {
            "train_documents": len(usable),
            "train_bytes": int(usable.sum()),
            "valid_documents": len(long_enough),
            "valid_bytes": sum(long_enough),
            "scored_documents": [*scored],
            "scored_segments": n_segments,
            "scored_bytes": held_out.tokens.size,
            "verbatim_share": share,
            "verbatim": shares,
            "remarks": remarks,
        }

    def _copied(self, held_out: HeldOut) -> tuple[Counter[str], Counter[str]]:
        """Of each scored document the bytes that stand in the training text, and all that are scored."""
        copied, scored = Counter[str](), Counter[str]()
        for document, (n_copied, n) in zip(held_out.documents, verbatim(self._stream, held_out.tokens), strict=True):
            copied[document] += n_copied
            scored[document] += n
        judged = [(f"the held-out document {document}", copied[document], n) for document, n in scored.items() if n >= LONG]
        for what, n_copied, n in [*judged, ("the held-out text", copied.total(), scored.total())]:
            if n_copied > self.max_verbatim_share * n:
                raise UserError(
                    f"data={self.name}: {what} stands in the training text, word for word {n_copied / n:.0%} of its {n:,} "
                    "scored bytes; take it out of one of the two (data.max_verbatim_share=1 trains all the same)"
                )
        return copied, scored

    def unigram_nll(self, train_len: int) -> np.ndarray:
        counts = np.ones(VOCAB_SIZE)
        for start, length in zip(self._train_starts, self._train_lengths, strict=True):
            if length >= train_len:
                counts += np.bincount(self._stream[start : start + length], minlength=VOCAB_SIZE)
        nll: np.ndarray = -np.log(counts / counts.sum())
        return nll

    @cached_property
    def corrupter(self) -> Counted:
        """Of all training text, whatever of it is long enough to be trained on; not of what is held back from it."""
        parts = zip(self._train_starts, self._train_lengths, strict=True)
        return Counted((self._stream[start : start + n].astype(np.int64) for start, n in parts), VOCAB_SIZE)

    def references(self, tokens: np.ndarray, context: np.ndarray, train_len: int) -> dict[str, np.ndarray]:
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


def drawn(name: str) -> bytes:
    """Documents in the order of these are in a random one, the same everywhere: the SHA-256 of the name."""
    return hashlib.sha256(name.encode()).digest()


def _sizes(lengths: Sequence[int] | np.ndarray) -> str:
    return f"{len(lengths):,} ({sum(lengths):,} bytes)"
