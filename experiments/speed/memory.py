"""Evaluating one long sequence, in a process of its own: its seconds, and its peak memory above the model.

python -m experiments.speed.memory ENCODER LIMIT THREADS LENGTH ...    prints a line of JSON for each length

The peak is what the system counts as resident (VmHWM of /proc/self/status, set back before each length), less what the
process held after its first forward pass over a short text: the model, libraries, and their buffers. The C library is told
to give large blocks back at once (GIVE_BACK): what is counted is what evaluation needs, not what was kept of it. Where there
is no /proc, it is ru_maxrss, which never falls; so lengths grow.
"""

import json
import resource
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor
from tqdm import tqdm

from experiments.speed.ours import Trained, encoder_of
from experiments.speed.rounds import Row, in_a_process, seconds_of
from experiments.speed.timings import OURS
from extrap.config.compose import compose_grid
from extrap.model.encoder import Encoder

GIVE_BACK = {"MALLOC_MMAP_THRESHOLD_": str(2**18)}  # bytes, mallopt(3)
SHORT = 64  # tokens of the first forward pass
SCORED = 64  # the last tokens get logits, as under `same_targets`


def measure(trained: list[Trained], tokens: Tensor, lengths: list[int], limit: float) -> list[Row]:
    """Seconds and peak bytes of each scheme by length, up to one that the last predicts to take over `limit` seconds."""
    rows: list[Row] = []
    with TemporaryDirectory() as folder:
        path = Path(folder, "encoder.pt")
        for one in tqdm(trained, desc="evaluation", disable=None, leave=False):
            state = {"overrides": one.overrides, "causal": one.encoder.causal, "tokens": tokens.cpu()}
            torch.save(state | {"weights": one.encoder.state_dict()}, path)
            told = in_a_process("experiments.speed.memory", path, limit, torch.get_num_threads(), *lengths, **GIVE_BACK)
            for line in told.splitlines():
                n, seconds, peak = json.loads(line)
                columns: Row = {"name": OURS, "scheme": one.scheme, "objective": one.objective, "n": n, "tokens": n}
                columns |= {"precision": "fp32", "logits": SCORED}
                rows.append(columns | {"case": "evaluation", "value": seconds, "unit": "s"})
                rows.append(columns | {"case": "memory", "value": peak, "unit": "bytes"})
    return rows


def main(path: str, limit: str, threads: str, *lengths: str) -> None:
    torch.set_num_threads(int(threads))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    state = torch.load(path, weights_only=True)
    (config,) = compose_grid(state["overrides"])
    encoder = encoder_of(config, state["causal"], device).eval()
    encoder.load_state_dict(state["weights"])
    tokens = state["tokens"].to(device)
    evaluate(encoder, tokens[:, :SHORT])
    held, last = resident(device), None
    for n in map(int, lengths):
        if last and last[1] * (n / last[0]) ** 2 > float(limit):
            break
        forget_peak(device)
        seconds = seconds_of(lambda n=n: evaluate(encoder, tokens[:, :n]))  # type: ignore[misc]
        print(json.dumps([n, seconds, peak(device) - held]), flush=True)
        last = (n, seconds)


@torch.no_grad()
def evaluate(encoder: Encoder, tokens: Tensor) -> Tensor:
    return encoder.logits(encoder(tokens)[:, -SCORED:])


def resident(device: torch.device) -> int:
    """Bytes that are held now."""
    return torch.cuda.memory_allocated(device) if device.type == "cuda" else _status("VmRSS")


def peak(device: torch.device) -> int:
    """The most bytes that were held since forget_peak."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else _status("VmHWM")


def forget_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif Path("/proc/self/clear_refs").exists():
        Path("/proc/self/clear_refs").write_text("5")  # proc(5): resets the peak resident set size


def _status(field: str) -> int:
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    line = next(line for line in status.read_text().splitlines() if line.startswith(field))
    return 1024 * int(line.split()[1])


if __name__ == "__main__":
    main(*sys.argv[1:])
