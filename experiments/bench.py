"""How fast it is, against everything a person would use instead; the results stand in results/speed/.

python -m experiments.bench         a few minutes
python -m experiments.bench --all   longer inputs and more rounds: a quarter of an hour
"""

import argparse
import importlib.metadata
import platform
import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
import yaml

from experiments.speed import equality, long, memory, ours, peers, sweeps
from experiments.speed.report import write_speed_report
from experiments.speed.rounds import Contestant, Row, interleave, machine, peak_of_products
from experiments.speed.timings import save_timings
from extrap import __version__
from extrap.config.schema import Device, Precision
from extrap.data.text import Stdlib
from extrap.files import write_atomic
from extrap.runs.run import git_state
from extrap.sweep.door import through
from extrap.train.device import cores, keep_freed_memory, pick_device, pick_precision


class Plan(NamedTuple):
    """How much is measured."""

    rounds: int  # of training
    schemes: tuple[str, ...]  # over long inputs
    lengths: list[int]  # tokens
    all_schemes_to: int  # tokens: beyond it attention is measured for the schemes that are claimed to be fast there
    limit: float  # seconds of one evaluation
    sweeps: int


SHORT = Plan(4, ("rope", "alibi", "local", "t5"), [4_096, 8_192, 16_384], 4_096, 5.0, 1)
WHOLE = Plan(6, ("nope", "rope", "alibi", "local", "t5", "kerple"), [4_096, 8_192, 16_384, 32_768, 65_536], 16_384, 130.0, 2)
FAST_WHEN_LONG = ("alibi", "local")


def training(plan: Plan, compiled: bool, source: Stdlib, device: torch.device) -> list[Row]:
    """A step of each of ours and of each peer, a round; the peak of matrix products is measured in every round too."""
    bf16 = pick_precision(Precision.auto, device) is Precision.bf16
    contestants = [*peak_of_products(device), *ours.training_steps(source, device)]
    config = ours.configs(ours.TRAINING, ("rope",))[0]
    batches = {name: ours.batches_of(config, source, goal, 4, device) for name, goal in ours.OBJECTIVES.items()}
    first = {name: some[0] for name, some in batches.items()}
    for peer in peers.peers(config.model, first, device, bf16, compiled):
        columns: Row = {
            "case": "training", "name": peer.name, "setting": peer.setting, "scheme": peer.scheme,
            "objective": peer.objective, "precision": peer.precision, "params": peer.params, "logits": peer.logits,
            "n": config.train.train_len, "tokens": first[peer.objective][0].numel(),
        }  # fmt: skip
        contestants.append(Contestant(columns, ours.in_turn(peer.step, batches[peer.objective])))
    return interleave(contestants, plan.rounds, "training")


def long_inputs(plan: Plan, compiled: bool, source: Stdlib, device: torch.device) -> list[Row]:
    """Equality, time and memory over long inputs, with weights that were trained for a moment."""
    trained = ours.train_for_a_moment(source, plan.schemes, device)
    tokens = ours.long_text(source, max(*plan.lengths, equality.LONG), device)
    rows = equality.check(trained, tokens)
    for n in plan.lengths:
        chosen = [one for one in trained if n <= plan.all_schemes_to or one.scheme.startswith(FAST_WHEN_LONG)]
        chosen = [one for one in chosen if one.scheme != "nope"]  # its attention is the yardstick
        flex = FAST_WHEN_LONG if compiled and n == plan.all_schemes_to else ()  # half a minute of compiling each
        contestants = long.contestants(chosen, n, tokens, flex)
        rounds = max(1, min(5, 40_000 // n))  # what takes longer is measured less often
        rows += interleave(contestants, rounds, f"attention over {n:,}", warmup=int(n <= 16_384))
    return rows + memory.measure(trained, tokens, plan.lengths, plan.limit)


def provenance(seconds: float) -> str:
    """YAML: the command that measured, the machine and the versions."""
    versions = {name: importlib.metadata.version(name) for name in ("torch", "x-transformers", "transformers")}
    told: dict[str, object] = {
        "command": shlex.join(["python", "-m", "experiments.bench", *sys.argv[1:]]),
        "version": __version__,
    }
    told |= git_state() | {"python": platform.python_version(), **versions, "machine": machine()}
    told |= {"threads": torch.get_num_threads(), "seconds": round(seconds)}
    text: str = yaml.safe_dump(told, sort_keys=False, width=125)
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description="Training, long inputs and sweeps: ours against the peers.")
    parser.add_argument("--all", action="store_true", help="longer inputs and more rounds")
    parser.add_argument(
        "--compiled",
        action="store_true",
        help="peers by torch.compile and FlexAttention too, which takes most of a minute each",
    )
    parser.add_argument("--results", type=Path, default=Path("results"))
    arguments = parser.parse_args()
    peers.libraries()  # missing ones are told before anything is measured
    plan, began = WHOLE if arguments.all else SHORT, time.monotonic()
    device = pick_device(Device.auto)
    torch.set_num_threads(cores())
    keep_freed_memory()  # as every run of a sweep does; the peers gain by it too
    source = Stdlib()
    cases: list[Callable[[], list[Row]]] = [
        lambda: training(plan, arguments.compiled, source, device),
        lambda: long_inputs(plan, arguments.compiled, source, device),
        lambda: sweeps.measure(plan.sweeps),
    ]
    constant: Row = {"machine": machine(), "threads": torch.get_num_threads()}
    folder = arguments.results / "speed"
    folder.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    for case in cases:
        rows += [constant | row for row in case()]
        save_timings(folder / "timings.csv", rows)  # what was measured is kept, whatever comes after it
    write_atomic(folder / "provenance.yaml", provenance(time.monotonic() - began))
    print("written:", *(f"  {path}" for path in write_speed_report(folder)), sep="\n")


if __name__ == "__main__":
    sys.exit(through(main))
