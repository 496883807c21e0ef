"""What a step of training costs by objective, and with more tokens to choose among."""

import torch

from experiments.speed import ours
from experiments.speed.rounds import Contestant
from experiments.speed.timings import ALL_SCORED, LARGE, STEP
from extrap.config.compose import compose_grid
from extrap.model.encoder import Encoder
from extrap.runs.prepare import Run, build_scheme, prepare_all
from extrap.runs.run import build_encoder
from extrap.score.references import labels
from extrap.train.loop import TrainingBatch

VOCAB = 4_096  # tokens, of LARGE
OBJECTIVES = "objective=mlm,causal,rtd,electra"


def contestants(device: torch.device) -> list[Contestant]:
    """A step of every objective on bytes, of mlm also with all positions scored, and of mlm and causal with VOCAB tokens."""
    found = []
    for run in prepare_all(compose_grid([*ours.TRAINING, "position=rope", OBJECTIVES])):
        batches, objective = ours.batches_of(run, device), labels(run.config)["objective"]
        found.append(step(run, device, build_encoder(run), batches, ""))
        if objective == "mlm":
            found.append(step(run, device, build_encoder(run), [everywhere(batch) for batch in batches], ALL_SCORED))
        if objective in ("mlm", "causal"):
            extra = run.n_tokens[0] - run.n_tokens[1]
            large = Encoder(run.config.model, build_scheme(run.config, objective == "causal"), VOCAB + extra, VOCAB)
            found.append(step(run, device, large, [spread(batch) for batch in batches], LARGE))
    return found


def step(run: Run, device: torch.device, encoder: Encoder, batches: list[TrainingBatch], setting: str) -> Contestant:
    contestant = ours.step(run, device, encoder, batches)
    return contestant._replace(columns=contestant.columns | {"case": STEP, "setting": setting})


def everywhere(batch: TrainingBatch) -> TrainingBatch:
    """All positions scored, of whatever stands there: what it costs does not hang on that."""
    read = batch.inputs.flatten()
    return TrainingBatch(batch.inputs, torch.arange(len(read), device=read.device), read.remainder(256))


def spread(batch: TrainingBatch) -> TrainingBatch:
    """Bytes as tokens all over a vocabulary of VOCAB; where text has [MASK], whatever token that makes."""
    return TrainingBatch(batch.inputs * 16 % VOCAB, batch.scored, batch.targets * 16 % VOCAB)
