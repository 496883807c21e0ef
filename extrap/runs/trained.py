"""Finished runs, to look into: the trained encoder, and what its layers attend to."""

import json
from functools import partial

import torch
import yaml
from torch import Tensor

from extrap.errors import UserError
from extrap.files import Damaged
from extrap.model.attention import Attend
from extrap.model.definition import attend_reference
from extrap.model.encoder import Encoder
from extrap.runs.prepare import Run
from extrap.runs.run import build_encoder
from extrap.train.checkpoint import load_state


def load_encoder(run: Run) -> Encoder:
    """The encoder of a run with its trained weights, on the CPU.

    Raises UserError if it is not trained here, or by another config, or if its weights are damaged.
    """
    path = run.folder.weights
    if not path.exists():
        raise UserError(f"{path} does not exist; the run is not trained here, `make sweep` does it")
    run.folder.refuse_other_config(run.identity, program=False)  # weights of an earlier version are looked into as well
    encoder = build_encoder(run)
    try:  # sealed with the config as the program that trained it wrote it
        state = load_state(path, of=json.dumps(yaml.safe_load(run.folder.config.read_text()), sort_keys=True))
    except Damaged as error:
        mend = f"remove it and {run.folder.rows.name} beside it, and the same sweep trains the run again"
        raise UserError(f"{error}; {mend}") from error
    encoder.load_state_dict(state["model"])
    return encoder.eval()


@torch.no_grad()
def attention(encoder: Encoder, tokens: Tensor) -> Tensor:
    """Attention weights of every layer, by the definition: tokens (B, T) -> (layers, B, H, T, T), queries before keys."""
    seq_len = tokens.shape[1]
    pos = encoder.scheme.positions(seq_len, tokens.device)
    x, found = encoder.scheme.embed(encoder.embedding(tokens), pos), []
    for block, scheme in zip(encoder.blocks, encoder.scheme.layers(len(encoder.blocks)), strict=True):
        define = partial(attend_reference, scheme, pos)

        def attend(q: Tensor, k: Tensor, v: Tensor, read: Tensor | None = None, define: Attend = define) -> Tensor:
            each = torch.eye(seq_len).expand(*q.shape[:2], seq_len, seq_len)  # the mean of unit vectors is the weights
            found.append(define(q, k, each, read))
            return found[-1] @ v

        x = block(x, attend)
    return torch.stack(found)
