"""Tokens longer than a byte: a byte-level BPE, trained on the training documents alone. Imports no torch."""

import hashlib
import importlib
import json
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from extrap.errors import UserError

VOCAB_SIZES = range(257, 2**16 + 1)  # more than bytes, and no more than two bytes number
CODE = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:16]
PIECE = 2**16  # characters that are encoded in one go, or more where no break is near
# where no token of GPT-2's pattern crosses, and none before depends on what follows
BREAK = re.compile(r"(?<=[!-~])[ \n]")


class Tokens(NamedTuple):
    """Documents as tokens, and what makes them."""

    made_of: dict[str, object]  # see made_of
    tokenizer: str  # tokenizer.json
    train: list[np.ndarray]  # one a document, uint16
    valid: list[np.ndarray]

    def digests(self) -> dict[str, str]:
        """SHA-256 of tokenizer.json, and of all tokens."""
        ids = hashlib.sha256()
        for document in (*self.train, *self.valid):
            ids.update(document.astype("<u2").tobytes())
        return {
            "tokenizer_sha256": hashlib.sha256(self.tokenizer.encode()).hexdigest(),
            "tokens_sha256": ids.hexdigest(),
        }


def made_of(text_sha256: str, vocab_size: int) -> dict[str, object]:
    """What tokens depend on: the text, the size of the vocabulary, the version of the library and this file."""
    return {"sha256": text_sha256, "bpe": vocab_size, "tokenizers": _library().__version__, "code": CODE}


def tokenized(of: dict[str, object], train: Iterable[bytes], valid: Iterable[bytes], vocab_size: int) -> Tokens:
    """Raises UserError where the training text does not make as many tokens."""
    train = list(train)
    tokenizer = trained(train, vocab_size)
    return Tokens(of, tokenizer, encoded(tokenizer, train), encoded(tokenizer, valid))


def trained(texts: Iterable[bytes], vocab_size: int) -> str:
    """tokenizer.json of a BPE of these texts: 256 bytes, and merges up to vocab_size.

    The pattern between whose matches nothing is merged is GPT-2's; there are no special tokens. The alphabet is sorted: from
    there on merges and numbers are the same in every process.
    Source: Sennrich et al. 2016 (arXiv:1508.07909); on bytes, Radford et al. 2019.
    """
    if vocab_size not in VOCAB_SIZES:
        raise UserError(
            f"data.bpe: expected {VOCAB_SIZES[0]} to {VOCAB_SIZES[-1]:,} tokens, or 0 for bytes; found {vocab_size:,}"
        )
    library = _library()
    tokenizer = library.Tokenizer(library.models.BPE())
    tokenizer.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = sorted(_BYTES)
    trainer = library.trainers.BpeTrainer(vocab_size=vocab_size, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator((piece for text in texts for piece in _pieces(text.decode(errors="ignore"))), trainer)
    if (found := tokenizer.get_vocab_size()) < vocab_size:
        raise UserError(
            f"data.bpe: the training text makes no more than {found:,} tokens, expected {vocab_size:,}: lower it"
        )
    made: str = tokenizer.to_str()
    return made


def encoded(tokenizer: str, texts: Iterable[bytes]) -> list[np.ndarray]:
    """Each text as tokens, (T,) uint16, which are its bytes again; a byte that is not UTF-8 is a token of its own."""
    encode = _library().Tokenizer.from_str(tokenizer).encode_batch_fast
    of_tokens = token_texts(tokenizer)
    of_byte = {text: number for number, text in enumerate(of_tokens) if len(text) == 1}
    found = []
    for text in texts:
        ids: list[int] = []
        for part, is_text in _parts(text):
            ids += [i for one in encode([*_pieces(part.decode())]) for i in one.ids] if is_text else [of_byte[part]]
        assert b"".join(map(of_tokens.__getitem__, ids)) == text
        found.append(np.array(ids, dtype=np.uint16))
    return found


def token_texts(tokenizer: str) -> list[bytes]:
    """The bytes of each token of a tokenizer.json."""
    vocabulary: dict[str, int] = json.loads(tokenizer)["model"]["vocab"]
    return [bytes(map(_BYTES.__getitem__, token)) for token in sorted(vocabulary, key=vocabulary.__getitem__)]


def _bytes_by_sign() -> dict[str, int]:
    """The sign that a byte-level tokenizer writes for each byte: itself where it can be seen, else the next from 256 on."""
    seen = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    unseen = [byte for byte in range(256) if byte not in seen]
    return {chr(byte): byte for byte in seen} | {chr(256 + n): byte for n, byte in enumerate(unseen)}


_BYTES = _bytes_by_sign()


def _parts(text: bytes) -> Iterator[tuple[bytes, bool]]:
    """UTF-8, and between it single bytes that are not, as where a split of bytes cuts a character."""
    while text:
        try:
            text.decode()
            bad = len(text)
        except UnicodeDecodeError as error:
            bad = error.start
        if bad:
            yield text[:bad], True
        if text[bad:]:
            yield text[bad : bad + 1], False
        text = text[bad + 1 :]


def _pieces(text: str) -> Iterator[str]:
    """The text in pieces that are encoded as the whole is: a library that is given all at once takes many times its size."""
    start = 0
    while start < len(text):
        found = BREAK.search(text, start + PIECE)
        stop = found.start() if found else len(text)
        yield text[start:stop]
        start = stop


def _library() -> Any:
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")  # or it warns of every process that is started later
    try:
        return importlib.import_module("tokenizers")  # an extra, which need not be installed
    except ImportError as error:
        raise UserError("data.bpe: the package tokenizers is not installed: pip install 'extrap[bpe]'") from error
