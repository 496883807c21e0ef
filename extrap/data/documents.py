"""Documents of tokens: training batches, held-out segments, what of them is used and what was trained on."""

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from extrap.data.base import HeldOut, Source
from extrap.data.bpe import Tokens, made_of, token_texts, tokenized
from extrap.data.cloze import Corrupter, Counted
from extrap.data.overlap import PIECE, verbatim
from extrap.errors import UserError

BYTES = [bytes([byte]) for byte in range(256)]
JOIN = "data=text data.join=true makes one of all"
LONG = 1024  # bytes scored of a document; a shorter piece may be a licence's or a table's that many documents share
NOTABLE = 0.01  # shares below are recorded, and not told


class Documents(Source):
    """Training and held-out documents, name -> bytes, and all that follows from them.

    A token is a byte, or with `bpe` one of so many of a byte-level BPE, trained on the training documents; `kept` are tokens
    that were made before, used where they are of this very text. Sizes are in tokens where nothing else is said.
    `remarks` are lines for who trains on them. Nothing is trained where less than `min_usable_share` of the training bytes
    can be, or where more than `max_verbatim_share` of what is scored stands in the training text too.
    """

    name: str

    def __init__(
        self,
        train: dict[str, bytes],
        valid: dict[str, bytes],
        *,
        remarks: Sequence[str] = (),
        min_usable_share: float = 0.5,
        max_verbatim_share: float = 1.0,
        bpe: int = 0,
        kept: Tokens | None = None,
    ) -> None:
        self.train, self.valid = train, valid
        self.remarks = list(remarks)
        self.min_usable_share, self.max_verbatim_share = min_usable_share, max_verbatim_share
        self.tokens: Tokens | None = None
        if bpe:
            of = made_of(self._text_sha256(), bpe)
            self.tokens = kept if kept and kept.made_of == of else tokenized(of, train.values(), valid.values(), bpe)
            held_out = dict(zip(valid, self.tokens.valid, strict=True))
            self._index(np.concatenate(self.tokens.train), self.train_lengths(), held_out, self.tokens.tokenizer)
        else:
            held_out = {name: np.frombuffer(text, dtype=np.uint8) for name, text in valid.items()}
            self._index(np.frombuffer(b"".join(train.values()), dtype=np.uint8), self.train_lengths(), held_out, "")

    def train_lengths(self) -> list[int]:
        """Of whole training documents, whatever is held back of them."""
        return [*map(len, self.tokens.train if self.tokens else self.train.values())]

    def _index(self, stream: np.ndarray, lengths: list[int], held_out: dict[str, np.ndarray], tokenizer: str) -> None:
        """All training documents, one after the other, where each of them lies, and those held out; what tokens are."""
        self._stream, self._valid, self._train_lengths = stream, held_out, np.array(lengths)
        self._train_starts = np.cumsum(self._train_lengths) - self._train_lengths
        self._texts = token_texts(tokenizer) if tokenizer else BYTES
        self._unit = "tokens" if tokenizer else "bytes"
        self.vocab_size, self.token_bytes = len(self._texts), np.array([len(text) for text in self._texts])

    def check(self, train_len: int, seg_len: int, n_segments: int) -> None:
        """Raises UserError, with the numbers, where training sequences or held-out segments of these sizes cannot be had."""
        usable, unit = self._usable(train_len), self._unit
        share = usable.sum() / self._train_lengths.sum()
        if not len(usable) or share < self.min_usable_share:
            raise UserError(
                f"data={self.name}: {1 - share:.1%} of the training text ({len(self._train_lengths) - len(usable):,} of "
                f"{len(self._train_lengths):,} documents, the longest has {self._train_lengths.max():,} {unit}) lies in "
                f"documents shorter than a training sequence of {train_len:,} {unit}, which cannot be trained on; expected "
                f"one that is long enough, and {self.min_usable_share:.0%} of the text in such documents: lower "
                f"train.train_len or give longer documents ({JOIN})"
            )
        found = sum(len(document) // seg_len for document in self._valid.values())
        if found < n_segments:
            longest = max(len(document) for document in self._valid.values())
            raise UserError(
                f"data={self.name}: the {len(self._valid)} held-out documents (longest {longest:,} {unit}) hold {found} "
                f"segments of {seg_len:,} {unit}, expected {n_segments}: score shorter inputs (eval.multiples, eval.lengths)"
                f", fewer segments (eval.n_segments), or give more or longer documents ({JOIN})"
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
            (drawn(name), d, min(len(text) // seg_len, n_segments)) for d, (name, text) in enumerate(self._valid.items())
        ]
        turns = sorted((turn, place, d) for place, d, room in rooms for turn in range(room))  # one of each in turn
        counts = Counter(d for *_, d in turns[:n_segments])
        tokens, documents, segments = [], [], []
        for d, (name, text) in enumerate(self._valid.items()):
            for segment in range(counts[d]):
                stride = len(text) // counts[d]
                start = segment * stride + (stride - seg_len) // 2  # not the head of a file: heads are alike
                tokens.append(text[start : start + seg_len])
                documents.append(name)
                segments.append(segment)
        return HeldOut(np.stack(tokens).astype(np.int64), documents, segments)

    def usage(self, train_len: int, seg_len: int, n_segments: int) -> dict[str, Any]:
        """Raises UserError as `check` does, and where more of what is scored was trained on than `max_verbatim_share`."""
        self.check(train_len, seg_len, n_segments)
        held_out = self.held_out(seg_len, n_segments)
        copied, scored = self._copied(held_out)
        usable = self._usable(train_len)
        lengths = [len(document) for document in self._valid.values()]
        long_enough = [document for document in self._valid.values() if len(document) >= seg_len]
        share = round(copied.total() / scored.total(), 4)
        shares = {document: round(n / scored[document], 4) for document, n in copied.items() if n}
        remarks = list(self.remarks)
        if usable.sum() <= (1 - NOTABLE) * self._train_lengths.sum():
            remarks.append(
                f"training documents: {self._sizes(self._train_lengths)}; of {train_len:,} {self._unit} or more: "
                f"{self._sizes(usable)}"
            )
        if len(scored) < len(self.valid):
            first, *others = scored
            names = f"{first}, {others[0]}, ... {others[-1]}" if len(others) > 2 else ", ".join(scored)
            remarks.append(
                f"held-out documents: {self._sizes(lengths)}; of {seg_len:,} {self._unit} or more: "
                f"{self._sizes([*map(len, long_enough)])}; scored: {n_segments:,} segments from {len(scored):,} of them "
                f"({names})"
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
            "train_bytes": sum(map(self._n_bytes, self._documents(train_len))),
            "valid_documents": len(long_enough),
            "valid_bytes": sum(map(self._n_bytes, long_enough)),
            "scored_documents": [*scored],
            "scored_segments": n_segments,
            "scored_bytes": self._n_bytes(held_out.tokens),
            "verbatim_share": share,
            "verbatim": shares,
            "remarks": remarks,
        }

    def _copied(self, held_out: HeldOut) -> tuple[Counter[str], Counter[str]]:
        """Of each scored document the bytes that stand in the training text, and all that are scored."""
        copied, scored = Counter[str](), Counter[str]()
        stream = np.frombuffer(b"".join(self.train.values()), np.uint8) if self.tokens else self._stream
        segments = [b"".join(map(self._texts.__getitem__, tokens)) for tokens in held_out.tokens.tolist()]
        for document, (n_copied, n) in zip(held_out.documents, verbatim(stream, segments), strict=True):
            copied[document] += n_copied
            scored[document] += n
        judged = [(f"the held-out document {document}", copied[document], n) for document, n in scored.items() if n >= LONG]
        for what, n_copied, n in [*judged, ("the held-out text", copied.total(), scored.total())]:
            if n_copied > self.max_verbatim_share * n:
                raise UserError(
                    f"data={self.name}: {what} is in the training text: {n_copied / n:.0%} of its {n:,} scored bytes, "
                    "verbatim; take it out of one of the two (data.max_verbatim_share=1 trains all the same)"
                )
        return copied, scored

    def unigram_nll(self, train_len: int) -> np.ndarray:
        counts = np.ones(self.vocab_size)
        for document in self._documents(train_len):
            counts += np.bincount(document, minlength=self.vocab_size)
        nll: np.ndarray = -np.log(counts / counts.sum())
        return nll

    @cached_property
    def corrupter(self) -> Corrupter:
        """Of all training text, whatever of it is long enough to be trained on; not of what is held back from it."""
        return Counted((document.astype(np.int64) for document in self._documents(0)), self.vocab_size)

    def references(self, tokens: np.ndarray, context: np.ndarray, train_len: int) -> dict[str, np.ndarray]:
        return {}  # nobody knows how well text can be predicted

    def describe(self) -> dict[str, Any]:
        return {
            "sha256": self._text_sha256(),
            **(self.tokens.digests() if self.tokens else {}),
            "train_documents": len(self.train),
            "train_bytes": sum(map(len, self.train.values())),
            "valid_documents": len(self.valid),
            "valid_bytes": sum(map(len, self.valid.values())),
        }

    def _text_sha256(self) -> str:
        digest = hashlib.sha256()
        for part, texts in (("train", self.train), ("valid", self.valid)):
            for name, text in texts.items():
                digest.update(f"{part}\0{name}\0{len(text)}\0".encode() + text)
        return digest.hexdigest()

    def _documents(self, train_len: int) -> Iterator[np.ndarray]:
        """The tokens of all training documents of this length or more, or of what is left of them."""
        for start, length in zip(self._train_starts, self._train_lengths, strict=True):
            if length >= train_len:
                yield self._stream[start : start + length]

    def _n_bytes(self, tokens: np.ndarray) -> int:
        return int(self.token_bytes[tokens].sum())

    def _sizes(self, lengths: Sequence[int] | np.ndarray) -> str:
        return f"{len(lengths):,} ({sum(lengths):,} {self._unit})"


def drawn(name: str) -> bytes:
    """Sorts documents in a random order that is the same everywhere: the SHA-256 of the name."""
    return hashlib.sha256(name.encode()).digest()
