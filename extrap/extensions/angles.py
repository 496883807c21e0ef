"""Slower rotations: angles of long inputs brought back among those of training, by factors of the frequencies of RoPE.

All are functions of k = n / L, n the length that is evaluated, L that of training, and of a pair m, from 0, of the P pairs
of a spectrum, theta_m = base^(-m / P); P is K / 2 but for partial RoPE, which rotates fewer dimensions. Where n grows with
the input they are called dynamic; a length at a time, that is the same.
"""

import math
from copy import copy
from dataclasses import dataclass

import torch
from torch import Tensor

from extrap.extensions.base import Extension, device_of, is_drawn, passes_of, rebuilt
from extrap.extensions.temperature import Sharper
from extrap.positions.base import PositionScheme
from extrap.positions.rope import Rope


class Angles(Extension):
    """Every RoPE that sees further than in training, wherever it stands in a scheme, with other frequencies.

    Of what is made on RoPE only the frequencies change: pairs at rest stay so, the decay of xPos stays one of tokens. A RoPE
    that another of these has slowed already stays as it is, and so does one whose rotation is its own and asks for no
    `factors`. Biases are not touched. None of drawn positions, which were trained further than L.
    """

    def factors(self, frequencies: Tensor, k: float, rope: Rope) -> Tensor:
        """Of frequencies (P,), radians a token."""
        raise NotImplementedError

    def temperature(self, k: float) -> float:
        """A factor of the scores that are rotated."""
        return 1.0

    def is_for(self, rope: Rope) -> bool:
        return True

    def __call__(self, scheme: PositionScheme, eval_len: int) -> PositionScheme | None:
        if is_drawn(scheme):
            return None
        k = eval_len / scheme.geometry.train_len

        def slowed(rope: Rope) -> PositionScheme:
            if rope.factors or not (self.is_for(rope) and asks_factors(rope)):
                return rope
            other, beta = copy(rope), self.temperature(k)
            other.factors = lambda frequencies: self.factors(frequencies, k, rope)
            return other if beta == 1 else Sharper(other, lambda n: torch.full_like(n, beta, dtype=torch.float64))

        extended = rebuilt(scheme, Rope, slowed)
        return None if extended is scheme else extended


def asks_factors(rope: Rope) -> bool:
    """Whether its passes do: in a subclass with a rotation of its own factors may change nothing."""
    probe, asked = copy(rope), []

    def factors(frequencies: Tensor) -> Tensor:
        asked.append(frequencies)
        return frequencies

    probe.factors = factors
    geometry = rope.geometry
    heads = torch.zeros(2, 1, geometry.n_heads, 2, geometry.head_dim, device=device_of(rope))
    for branch in passes_of(probe):
        if branch.rotate and not asked:  # it may form its angles as late as here
            branch.rotate(*heads)
    return bool(asked)


class Pi(Angles):
    """Position interpolation: theta_m / k, the same as positions divided by k (Chen et al. 2023, arXiv:2306.15595)."""

    def factors(self, frequencies: Tensor, k: float, rope: Rope) -> Tensor:
        return torch.full_like(frequencies, 1 / k)


class Ntk(Angles):
    """NTK-aware scaling: theta_m * k^(-m / (P - 1)), a base of base * k^(K / (K - 2)).

    The fastest pair keeps its frequency, the slowest is interpolated. Dynamic NTK (factor 1) is the same, see above.
    Source: bloc97 2023; Peng et al. 2023 (arXiv:2309.00071), equation 16.
    """

    def factors(self, frequencies: Tensor, k: float, rope: Rope) -> Tensor:
        return k ** -(_index(frequencies) / max(1, rope.n_spectrum - 1))


@dataclass(frozen=True)
class NtkMixed(Angles):
    """NTK-RoPE-mixed: theta_m * exp(-a (m + 1)^power), a = ln(k) / P^power. A power of 0 is `pi`.

    0.75 is the power of the released code; the blog has 0.625. The code fixes k = 12 and also multiplies queries by a
    logarithm, which is `logn` here. Source: Su 2023 (kexue.fm 9706) and its released code.
    """

    power: float = 0.75

    def factors(self, frequencies: Tensor, k: float, rope: Rope) -> Tensor:
        return k ** -(((_index(frequencies) + 1) / rope.n_spectrum) ** self.power)


class NtkFixed(NtkMixed):
    """NTK-RoPE-fixed: theta_m * k^(-(m + 1) / P), which slows the fastest pair, too: a power of 1 (kexue.fm 9706)."""

    def __init__(self) -> None:
        super().__init__(power=1.0)


@dataclass(frozen=True)
class Parts(Angles):
    """NTK-by-parts: pairs of many turns within L as they are, those of less than one interpolated, a ramp between.

    `paper`: the ramp is linear in the turns r = L * theta_m / 2 pi, from 1 to 32. Otherwise, as in the released code and all
    that followed it, in the index of the pair, between the indices of 32 turns and of 1, rounded outwards; the index of a
    frequency that was trained is the real one at which theta_m is that frequency.
    At short L no pair may turn so often: at L = 128 the paper's ramp slows all of them, the code's not the fastest.
    Source: Peng et al. 2023 (arXiv:2309.00071), definition 2; the code of YaRN.
    """

    paper: bool = False

    def is_for(self, rope: Rope) -> bool:
        return self.paper or rope.base != 1  # where all pairs turn alike no index tells them apart

    def factors(self, frequencies: Tensor, k: float, rope: Rope) -> Tensor:
        train_len = rope.geometry.train_len
        if self.paper:
            slowed = 1 - ((train_len * frequencies / (2 * math.pi) - 1) / (32 - 1)).clamp(0, 1)
        else:
            first, last = (_index_of(turns, rope) for turns in (32, 1))
            low, high = max(math.floor(first), 0), min(math.ceil(last), 2 * rope.n_spectrum - 1)
            slowed = ((_place(frequencies, rope) - low) / max(high - low, 0.001)).clamp(0, 1)
        return 1 - slowed * (1 - 1 / k)


class Yarn(Parts):
    """YaRN: NTK-by-parts, and queries and keys each times 0.1 ln(k) + 1, dimensions that are not rotated, too.

    Source: Peng et al. 2023 (arXiv:2309.00071), definition 3 and its released code.
    """

    def temperature(self, k: float) -> float:
        return (0.1 * math.log(k) + 1) ** 2


class Llama3(Angles):
    """Llama 3.1: a pair whose wave is shorter than L / 4 as it is, one longer than L at theta_m / k, a ramp between.

    The ramp is linear in L / wave, as in transformers, which has it from Meta's code.
    """

    def factors(self, frequencies: Tensor, k: float, rope: Rope) -> Tensor:
        turns = rope.geometry.train_len * frequencies / (2 * math.pi)
        return 1 - (1 - ((turns - 1) / (4 - 1)).clamp(0, 1)) * (1 - 1 / k)


@dataclass(frozen=True)
class Drop(Angles):
    """No rotation at all, and scores times 1 + c ln(k).

    DroPE (Gelberg et al. 2025, arXiv:2512.12167) trains on after it has dropped RoPE, with c = 0.412 or 0.103, fitted on
    held-out text; without that this is a negative control. An encoder then no longer knows the order of its input.
    """

    c: float = 0.0

    def factors(self, frequencies: Tensor, k: float, rope: Rope) -> Tensor:
        return torch.zeros_like(frequencies)

    def temperature(self, k: float) -> float:
        return 1 + self.c * math.log(k)


def _index(frequencies: Tensor) -> Tensor:
    return torch.arange(len(frequencies), dtype=torch.float64, device=frequencies.device)


def _place(frequencies: Tensor, rope: Rope) -> Tensor:
    """The real index m at which base^(-m / P) is the frequency: that of the pair, unless it was trained or is at rest."""
    index, place = _index(frequencies), -rope.n_spectrum * frequencies.abs().log() / math.log(rope.base)
    return torch.where((place - index).abs() < 1e-6, index, place)


def _index_of(turns: float, rope: Rope) -> float:
    """The real index of the pair that makes so many turns within the training length."""
    return rope.n_spectrum * math.log(rope.geometry.train_len / (2 * math.pi * turns)) / math.log(rope.base)
