"""How much of the held-out text stands in the training text, word for word."""

from collections.abc import Sequence

import numpy as np

PIECE = 64  # bytes: shorter pieces, a licence's or an import's, are alike in texts that have nothing to do with each other
RETURN, NEWLINE, BLANK = b"\r\n "
CHUNK = 2**20  # bytes of training text looked at in one go
MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # odd, so that it has an inverse modulo 2**64
INVERSE = np.uint64(pow(int(MULTIPLIER), -1, 2**64))
FILTER_BITS = 24


def verbatim(stream: np.ndarray, segments: Sequence[bytes]) -> list[tuple[int, int]]:
    """For each segment (found, of): how many of its bytes lie in a piece of PIECE bytes that the stream holds.

    stream (M,) uint8. Carriage returns count on neither side and a newline is a blank, so that other line ends or other
    widths of lines hide nothing. A piece is known by its hash of 64 bits: 2**35 bytes against 2**16 pieces err once in 8,000
    times.
    """
    texts = [_without_line_ends(np.frombuffer(segment, np.uint8)) for segment in segments]
    hashes = [_hashes(text) for text in texts]
    wanted = np.unique(np.concatenate(hashes))
    # most of the stream is told from what is wanted by a few bits of its hash
    shift = np.uint64(64 - FILTER_BITS)
    perhaps = np.zeros(2**FILTER_BITS, dtype=bool)
    perhaps[wanted >> shift] = True
    found = [np.empty(0, dtype=np.uint64)]
    stream = _without_line_ends(stream)
    for start in range(0, len(stream), CHUNK):  # with the beginnings of pieces that end in the next
        seen = _hashes(stream[start : start + CHUNK + PIECE - 1])
        seen = seen[perhaps[seen >> shift]]
        found.append(np.intersect1d(seen, wanted))
    known = np.concatenate(found)
    # a byte is covered where one of the PIECE starts up to it is known
    covered = [np.convolve(np.isin(own, known), np.ones(PIECE)) if len(own) else own for own in hashes]
    return [(int(np.count_nonzero(of_it)), len(text)) for of_it, text in zip(covered, texts, strict=True)]


def _without_line_ends(text: np.ndarray) -> np.ndarray:
    bare: np.ndarray = np.where(text == NEWLINE, np.uint8(BLANK), text)[text != RETURN]
    return bare


def _hashes(text: np.ndarray) -> np.ndarray:
    """(len(text) - PIECE + 1,) uint64: sum_j text[i + j] * MULTIPLIER**j modulo 2**64, from differences of prefix sums."""
    if len(text) < PIECE:
        return np.empty(0, dtype=np.uint64)
    powers = _powers(MULTIPLIER, len(text))
    sums = np.concatenate([np.zeros(1, dtype=np.uint64), np.cumsum(text * powers, dtype=np.uint64)])
    hashes: np.ndarray = (sums[PIECE:] - sums[:-PIECE]) * _powers(INVERSE, len(text) - PIECE + 1)
    return hashes


def _powers(base: np.uint64, n: int) -> np.ndarray:
    """base**0 .. base**(n - 1) modulo 2**64."""
    powers = np.full(n, base, dtype=np.uint64)
    powers[0] = 1
    return powers.cumprod(dtype=np.uint64)
