"""How fast it is, against everything a person would use instead; the results stand in results/speed/.

python -m experiments.bench         five minutes or so
python -m experiments.bench --all   more schemes and rounds, longer inputs, trainings to the same loss: over half an hour
python -m experiments.bench --schemes   every scheme beside NoPE, in results/speed_schemes/
"""

import argparse
import importlib.metadata
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import torch
import yaml

from experiments.speed import equality, learning, long, memory, objectives, ours, peers, schemes
from experiments.speed.report import write_scheme_report, write_speed_report
from experiments.speed.rounds import Row, interleave, machine, peak_of_products, seconds_of
from experiments.speed.timings import OURS, save_timings
from extrap import __version__
from extrap.config.choices import Device, Precision
from extrap.config.compose import compose_grid
from extrap.data.text import Stdlib
from extrap.files import write_atomic
from extrap.runs.prepare import prepare_all
from extrap.runs.run import COMMIT
from extrap.sweep.door import through
from extrap.train.cores import cores
from extrap.train.device import keep_freed_memory, pick_device, pick_precision


class Plan(NamedTuple):
    """How much is measured."""

    rounds: int  # of training
    trained: tuple[str, ...]  # schemes, against NoPE and peers
    schemes: tuple[str, ...]  # over long inputs
    lengths: list[int]  # tokens
    all_schemes_to: int  # tokens: beyond it attention is measured for the schemes that are claimed to be fast there
    limit: float  # seconds of one evaluation
    sweeps: int
    looks: int  # at held-out text while everybody trains to its end; 0: nobody does


LOCAL = "local position.window=256"
SHORT = Plan(3, ("nope", "rope", "alibi"), ("rope", "alibi", LOCAL), [4_096, 8_192], 4_096, 5.0, 1, 0)
WHOLE = Plan(
    6, ours.SCHEMES, ("nope", "rope", "alibi", LOCAL, "t5", "kerple"), [4_096, 8_192, 16_384, 32_768, 65_536], 16_384,
    130.0, 2, 40,
)  # fmt: skip
FAST_WHEN_LONG = ("alibi", "local")
# four runs of the sizes of main, a sixteenth of its steps, and little to evaluate
SWEEP = [
    "experiment=main", "name=bench", "position=rope,alibi", "seed=0,1", "train.max_steps=25",
    "eval.lengths=[128,512]", "eval.n_segments=8",
]  # fmt: skip


def measurements(plan: Plan, compiled: bool, device: torch.device) -> Iterator[list[Row]]:
    yield training(plan, compiled, device)
    yield interleave(objectives.contestants(device), plan.rounds, "steps by objective")
    yield long_inputs(plan, compiled, device)
    for number in range(plan.sweeps):
        yield sweep(number, "side by side", n_jobs=cores(), threads=1)
        yield sweep(number, "one after the other", n_jobs=1, threads=cores())
    if plan.looks:
        yield learning.train_in_turns([*learning.learners(device)], plan.looks)


def training(plan: Plan, compiled: bool, device: torch.device) -> list[Row]:
    """A step of each of ours and of each peer, a round; the peak of matrix products is measured in every round too."""
    precisions = dict.fromkeys((Precision.fp32, pick_precision(Precision.auto, device)))  # bf16 only where there are units
    contestants = [peak_of_products(precision, device) for precision in precisions]
    runs = prepare_all(compose_grid([*ours.TRAINING, f"position={','.join(plan.trained)}", ours.OBJECTIVES]))
    contestants += [ours.training_step(run, device) for run in runs]
    for run in runs[:2]:  # of both objectives
        contestants += peers.peers(run, device, compiled)
    return interleave(contestants, plan.rounds, "training")


def long_inputs(plan: Plan, compiled: bool, device: torch.device) -> list[Row]:
    """Equality, time and memory over long inputs, with weights that were trained for a moment."""
    trained = ours.train_for_a_moment(plan.schemes, device)
    text = b"".join(Stdlib().valid.values())  # held out, one document after the other
    tokens = torch.tensor(list(text[: max(*plan.lengths, equality.LONG)]), device=device)[None]
    rows = equality.check(trained, tokens)
    for n in plan.lengths:
        chosen = [one for one in trained if n <= plan.all_schemes_to or one.scheme.startswith(FAST_WHEN_LONG)]
        chosen = [one for one in chosen if one.scheme != "nope"]  # its attention is the yardstick
        flex = FAST_WHEN_LONG if compiled and n == plan.all_schemes_to else ()  # half a minute of compiling each
        contestants = long.contestants(chosen, n, tokens, flex)
        rounds = max(1, min(5, 40_000 // n))  # what takes longer is measured less often
        rows += interleave(contestants, rounds, f"attention over {n:,}", warmup=int(n <= 16_384))
    return rows + memory.measure(trained, tokens, plan.lengths, plan.limit)


def sweep(number: int, setting: str, n_jobs: int, threads: int) -> list[Row]:
    """A whole sweep as people run it: seconds of the command, start-up included."""
    with TemporaryDirectory() as folder:
        options = [f"hydra.launcher.n_jobs={n_jobs}", f"runtime.threads={threads}", f"runtime.results_dir={folder}"]
        command = [sys.executable, "-m", "extrap", *SWEEP, *options]
        seconds = seconds_of(partial(subprocess.run, command, check=True, stdout=subprocess.DEVNULL))
    columns: Row = {"name": OURS, "setting": setting, "round": number, "n": 128, "objective": "mlm", "threads": threads}
    recipes = [config.train for config in compose_grid(SWEEP)]
    columns |= {"tokens": sum(one.max_steps * one.batch_size * one.train_len for one in recipes)}
    return [columns | {"case": "sweep", "value": seconds, "unit": "s"}]


def provenance(seconds: float, device: torch.device, libraries: tuple[str, ...]) -> str:
    """YAML: the command that measured, the machine and the versions."""
    versions = {name: importlib.metadata.version(name) for name in ("torch", *libraries)}
    told: Row = {"command": shlex.join(["python", "-m", "experiments.bench", *sys.argv[1:]]), "version": __version__}
    told |= COMMIT | {"python": platform.python_version(), **versions, "machine": machine(device)}
    told |= {"threads": torch.get_num_threads(), "seconds": round(seconds)}
    text: str = yaml.safe_dump(told, sort_keys=False, width=125)
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description="Training, long inputs and sweeps: ours against the peers.")
    parser.add_argument("--all", action="store_true", help="longer inputs, more rounds, trainings to the same loss")
    parser.add_argument("--schemes", action="store_true", help="no peers, but every scheme: training, scoring, memory")
    parser.add_argument("--compiled", action="store_true", help="compiled peers and FlexAttention too, a minute each")
    parser.add_argument("--results", type=Path, default=Path("results"))
    arguments = parser.parse_args()
    plan, began = WHOLE if arguments.all else SHORT, time.monotonic()
    device = pick_device(Device.auto)
    if arguments.schemes:
        folder, file, write = arguments.results / "speed_schemes", "steps.csv", write_scheme_report
        measuring = schemes.measurements(device)
    else:
        peers.libraries()  # missing ones are told before anything is measured
        folder, file, write = arguments.results / "speed", "timings.csv", write_speed_report
        measuring = measurements(plan, arguments.compiled, device)
    torch.set_num_threads(cores())
    keep_freed_memory()  # as every run of a sweep does; the peers gain by it too
    folder.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    for measured in measuring:
        rows += [{"machine": machine(device), "threads": torch.get_num_threads()} | row for row in measured]
        save_timings(folder / file, rows)  # what was measured is kept, whatever comes after it
    libraries = () if arguments.schemes else ("x-transformers", "transformers")
    write_atomic(folder / "provenance.yaml", provenance(time.monotonic() - began, device, libraries))
    print("written:", *(f"  {path}" for path in write(folder)), sep="\n")


if __name__ == "__main__":
    sys.exit(through(main))
