"""Evaluating one long sequence, in a process of its own: its seconds, and its peak memory above the model.

The peak is what the system counts as resident (VmHWM of /proc/self/status, set back before each length), less what the
process held after its first forward pass over a short text: the model, libraries, and their buffers. The C library is told
to give large blocks back at once (GIVE_BACK): what is counted is what evaluation needs, not what was kept of it. On macOS,
which has no /proc, it is ru_maxrss, which never falls; so lengths grow.
"""

import os
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from unittest.mock import patch

import torch
from torch import Tensor
from tqdm import tqdm

from experiments.speed.ours import Trained
from experiments.speed.rounds import Row, seconds_of
from extrap.model.encoder import Encoder
from extrap.sweep.door import end_with_parent
from extrap.train.device import forget_peak, peak_memory

GIVE_BACK = {"MALLOC_MMAP_THRESHOLD_": str(2**18)}  # bytes, mallopt(3)
SCORED = 64  # the last tokens get logits, as under `same_targets`


def measure(trained: list[Trained], tokens: Tensor, lengths: list[int], limit: float) -> list[Row]:
    """Seconds and peak bytes of each scheme by length, up to one that the last predicts to take over `limit` seconds."""
    rows: list[Row] = []
    for one in tqdm(trained, desc="evaluation", disable=None, leave=False):
        with patch.dict(os.environ, GIVE_BACK), ProcessPoolExecutor(1, get_context("spawn"), end_with_parent) as pool:
            found = pool.submit(by_length, one.encoder, tokens, lengths, limit, torch.get_num_threads()).result()
        for n, seconds, bytes_above in found:
            columns = one.columns(n) | {"logits": SCORED}
            rows.append(columns | {"case": "evaluation", "value": seconds, "unit": "s"})
            rows.append(columns | {"case": "memory", "value": bytes_above, "unit": "bytes"})
    return rows


def by_length(
    encoder: Encoder, tokens: Tensor, lengths: list[int], limit: float, threads: int
) -> list[tuple[int, float, int]]:
    """Length, seconds and bytes."""
    torch.set_num_threads(threads)
    evaluate(encoder, tokens[:, :SCORED])
    forget_peak(tokens.device)
    held = peak_memory(tokens.device)
    found: list[tuple[int, float, int]] = []
    for n in lengths:
        if found and found[-1][1] * (n / found[-1][0]) ** 2 > limit:
            break
        forget_peak(tokens.device)
        seconds = seconds_of(partial(evaluate, encoder, tokens[:, :n]))
        found.append((n, seconds, peak_memory(tokens.device) - held))
    return found


@torch.no_grad()
def evaluate(encoder: Encoder, tokens: Tensor) -> Tensor:
    return encoder.logits(encoder(tokens)[:, -SCORED:])
