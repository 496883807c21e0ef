"""What options of a run choose among."""

from enum import Enum


class Precision(Enum):
    """Of matrix products while training; positions, softmax and losses are float32 or better in any case."""

    auto = "auto"  # bf16 where that is faster, else fp32
    fp32 = "fp32"
    bf16 = "bf16"


class Optimizer(Enum):
    """Of the matrices of the blocks; embeddings, output, norms and what a scheme learns are AdamW's in any case."""

    muon = "muon"
    adamw = "adamw"


class Schedule(Enum):
    """Of the learning rates after the warm-up, down to zero."""

    linear = "linear"
    cosine = "cosine"


class Output(Enum):
    """The table whose products with hidden states are the logits, see model/output.py."""

    untied = "untied"  # one of its own
    tied = "tied"  # that of the tokens that are read
    tied_head = "tied_head"  # the same, behind BERT's head


class Device(Enum):
    auto = "auto"  # cuda where there is one
    cpu = "cpu"
    cuda = "cuda"
