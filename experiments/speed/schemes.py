"""What every scheme of the zoo costs: a step of training, scoring long inputs, and the memory that scoring takes."""

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from experiments.speed import memory, ours
from experiments.speed.rounds import Contestant, Row, interleave
from extrap.config.compose import compose_grid
from extrap.data.text import Stdlib
from extrap.runs.prepare import Run, prepare_all
from extrap.runs.run import build_encoder
from extrap.score.references import labels

EXPERIMENTS = ("zoo_mlm", "zoo")  # whose sizes, recipe and schemes are measured
TRAINING_ROUNDS, SCORING_ROUNDS = 5, 3
MULTIPLES = (8, 16, 32)  # of the training length
LIMIT = 60.0  # seconds of one evaluation


def measurements(device: torch.device) -> Iterator[list[Row]]:
    for experiment in EXPERIMENTS:
        runs = prepare_all(compose_grid([f"experiment={experiment}", "name=bench", "seed=0"]))
        steps = [ours.training_step(run, device) for run in runs]
        yield interleave(steps, TRAINING_ROUNDS, f"training, {experiment}")
        lengths = [multiple * runs[0].config.train.train_len for multiple in MULTIPLES]
        text = b"".join(Stdlib().valid.values())
        tokens = torch.tensor(list(text[: lengths[-1]]), device=device)[None]
        encoders = [one for run in runs if reaches(one := untrained(run, device), lengths[-1])]
        for n in lengths:
            yield interleave(scoring(encoders, n, tokens), SCORING_ROUNDS, f"scoring {n:,}, {experiment}")
        measured = memory.measure(encoders, tokens, lengths, LIMIT)
        yield [row for row in measured if row["case"] == "memory"]


def untrained(run: Run, device: torch.device) -> ours.Trained:
    """As training would start: what a bias leaves out beyond its reach depends on weights, the rest does not."""
    encoder = build_encoder(run).to(device).eval()
    return ours.Trained(run.config.scheme, str(labels(run.config)["objective"]), encoder)


def reaches(one: ours.Trained, n: int) -> bool:
    return one.encoder.scheme.max_len is None or one.encoder.scheme.max_len >= n


def scoring(encoders: list[ours.Trained], n: int, tokens: Tensor) -> list[Contestant]:
    """The last tokens of one sequence, as under same_targets."""
    told: Row = {"case": "evaluation", "logits": memory.SCORED}
    return [Contestant(one.columns(n) | told, partial(memory.evaluate, one.encoder, tokens[:, :n])) for one in encoders]
