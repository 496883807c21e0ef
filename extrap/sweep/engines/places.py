"""Where the runs of a sweep can be at the same time on this machine."""

import multiprocessing.util
import os
import tempfile

import torch

from extrap.config.schema import Config
from extrap.model.encoder import n_in_matrices
from extrap.score.reads import FORWARD_TOKENS
from extrap.train.cores import cores
from extrap.train.device import pick_device

LONGEST_TMPDIR = 60  # bytes: with what multiprocessing adds to it, a socket's address has 103 at most on macOS, 107 on Linux
SHORT_TMPDIR = "/tmp"  # noqa: S108  of which a folder is taken that nobody else may read
CUDA_BYTES = 2**30  # that a process takes on a GPU before it has done anything
BYTES = 256  # tokens, where these are no longer


def places(configs: list[Config], n_jobs: int) -> list[str | None]:
    """Where runs can be at the same time: on which GPU each, or None for a core. GPUs get as many as fit, in turn."""
    config = max(configs, key=bytes_needed)
    if pick_device(config.runtime.device).type == "cpu":
        return [None] * (n_jobs if n_jobs > 0 else max(1, cores() // config.runtime.threads))
    count = torch.cuda.device_count()
    gpus = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(count)))).split(",")[:count]
    if n_jobs <= 0:
        free = min(torch.cuda.mem_get_info(i)[0] for i in range(count))
        n_jobs = count * max(1, min(free // bytes_needed(config), cores() // count))
    return [gpus[i % count] for i in range(n_jobs)]


def bytes_needed(config: Config) -> int:
    """A generous guess at what a run takes of a GPU: weights, gradients, Adam's moments, what a step keeps, CUDA itself."""
    model, train = config.model, config.train
    width = 16 * model.d_model + 4 * model.d_ff  # numbers that a layer keeps of a token
    scores = 3 * model.n_heads * train.train_len  # and those of all its pairs, where a bias is made of what the layer reads
    logits = 2 * (config.data.get("bpe") or BYTES)
    weights = model.n_layers * n_in_matrices(model)
    step = train.batch_size * train.train_len * (model.n_layers * (width + scores) + logits)
    longest = max(*config.eval.lengths, FORWARD_TOKENS) * width
    return CUDA_BYTES + 2 * 4 * (4 * weights + max(step, longest))


def keep_sockets_short() -> None:
    """Where TMPDIR is too long for a socket's address, takes a private folder of /tmp for those of multiprocessing alone."""
    if len(os.fsencode(tempfile.gettempdir())) > LONGEST_TMPDIR:
        usual, tempfile.tempdir = tempfile.tempdir, SHORT_TMPDIR
        try:
            multiprocessing.util.get_temp_dir()  # made now, kept for all that follows, removed when this process ends
        finally:
            tempfile.tempdir = usual
