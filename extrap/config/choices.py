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


class Device(Enum):
    auto = "auto"  # cuda where there is one
    cpu = "cpu"
    cuda = "cuda"
