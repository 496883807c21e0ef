"""What of the documents is used, how much of what is scored was trained on, and what a person is told of both."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from extrap.data.base import HeldOut
from extrap.data.overlap import PIECE, verbatim
from extrap.errors import UserError

LONG = 1024  # bytes scored of a document; a shorter piece may be a licence's or a table's that many documents share
NOTABLE = 0.01  # shares below are recorded, and not told


def usage(
    name: str,
    stream: np.ndarray,
    train_lengths: np.ndarray,
    train_len: int,
    valid: dict[str, bytes],
    held_out: HeldOut,
    max_verbatim_share: float,
) -> dict[str, Any]:
    """The record: documents and bytes that are long enough, what is scored, and the share of it that was trained on.

    Raises UserError where that share is larger than `max_verbatim_share`, of a document or of all that is scored.
    """
    usable = train_lengths[train_lengths >= train_len]
    n_scored, seg_len = held_out.tokens.shape
    long_enough = [len(text) for text in valid.values() if len(text) >= seg_len]
    found: dict[str, tuple[int, int]] = {}
    for document, (n_found, n) in zip(held_out.documents, verbatim(stream, held_out.tokens), strict=True):
        before = found.get(document, (0, 0))
        found[document] = before[0] + n_found, before[1] + n
    total = sum(n_found for n_found, _ in found.values()), sum(n for _, n in found.values())
    judged = {f"the held-out document {document}": counts for document, counts in found.items() if counts[1] >= LONG}
    for what, (n_found, n) in (judged | {"the held-out text": total}).items():
        if n_found > max_verbatim_share * n:
            raise UserError(
                f"data={name}: {what} stands in the training text, word for word {n_found / n:.0%} of its {n:,} scored "
                "bytes; take it out of one of the two (data.max_verbatim_share=1 trains all the same)"
            )
    record = {
        "train_documents": len(usable),
        "train_bytes": int(usable.sum()),
        "valid_documents": len(long_enough),
        "valid_bytes": sum(long_enough),
        "scored_documents": list(found),
        "scored_segments": n_scored,
        "scored_bytes": held_out.tokens.size,
        "verbatim_share": _share(*total),
        "verbatim": {document: _share(*counts) for document, counts in found.items() if counts[0]},
    }
    of_all = len(train_lengths), int(train_lengths.sum()), len(valid), sum(map(len, valid.values()))
    return record | {"remarks": list(_remarks(record, *of_all, train_len, seg_len))}


def _share(part: int, whole: int) -> float:
    return round(part / whole, 4)


def _remarks(
    record: dict[str, Any], n_train: int, train_bytes: int, n_valid: int, valid_bytes: int, train_len: int, seg_len: int
) -> Iterator[str]:
    if train_bytes - record["train_bytes"] >= NOTABLE * train_bytes:
        yield (
            f"training text: {_of(n_train, train_bytes)}; usable (>= {train_len:,} bytes): "
            f"{_of(record['train_documents'], record['train_bytes'])}"
        )
    scored = record["scored_documents"]
    if len(scored) < n_valid:
        which = ", ".join(scored) if len(scored) <= 3 else f"{scored[0]}, {scored[1]}, ... {scored[-1]}"
        yield (
            f"held-out text: {_of(n_valid, valid_bytes)}; long enough (>= {seg_len:,} bytes): "
            f"{_of(record['valid_documents'], record['valid_bytes'])}; scored: {record['scored_segments']:,} segments from "
            f"{len(scored):,} of the {n_valid:,} ({which})"
        )
    copied = sorted(record["verbatim"].items(), key=lambda item: -item[1])
    if copied and (record["verbatim_share"] >= NOTABLE or copied[0][1] >= 10 * NOTABLE):
        most = ", ".join(f"{document} {share:.0%}" for document, share in copied[:3] if share >= NOTABLE)
        yield (
            f"{record['verbatim_share']:.1%} of the scored bytes stand in the training text too, {PIECE} bytes or more in a "
            f"row (most: {most}): there a low perplexity is memory"
        )


def _of(n: int, n_bytes: int) -> str:
    return f"{n:,} document{'' if n == 1 else 's'}, {size(n_bytes)}"


def size(n_bytes: int) -> str:
    """As people say it: 80 bytes, 45 kB, 6.9 MB."""
    for unit, name in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if n_bytes >= unit:
            return f"{n_bytes / unit:.3g} {name}"
    return f"{n_bytes:,} bytes"
