"""Layers of two kinds: which layer is which, what they come down to, and the bugs that are told of them."""

import pytest
from checking import DECODER, ENCODER, OTHER_DECODER, OTHER_ENCODER, check_against_reference, check_same
from references.base import Reference
from references.mixed import mixed
from references.rope import rope

from extrap.positions.absolute import Sinusoidal
from extrap.positions.base import Geometry
from extrap.positions.fox import Fox
from extrap.positions.local import Local
from extrap.positions.mixed import Mixed
from extrap.positions.nope import Nope
from extrap.positions.norms import QkNorm
from extrap.positions.rope import Rope

SIZES = pytest.mark.parametrize("geometry", [DECODER, ENCODER, OTHER_DECODER, OTHER_ENCODER])


def rnope(geometry, cls=Mixed, period=2, first=False):
    return cls(geometry, Local(geometry, Rope(geometry), 5), Nope(geometry), period, first)


@pytest.mark.parametrize(
    ("period", "first", "kinds"), [(3, False, "llwllwl"), (3, True, "wllwllw"), (2, False, "lwlwlwl"), (7, True, "wllllll")]
)
def test_which_layers_are_wide(period, first, kinds):
    geometry = Geometry(32, 4, 16, causal=True, n_layers=7)
    scheme = rnope(geometry, period=period, first=first)
    assert ["l" if layer is scheme.near else "w" for layer in scheme.layers(7)] == list(kinds)


@SIZES
def test_two_layers_alike_are_not_mixed(geometry):
    check_same(Mixed(geometry, Rope(geometry), Rope(geometry)), Rope(geometry))


@pytest.mark.parametrize(
    ("layers", "near", "period", "told"),
    [(2, Rope, 4, r"layers of both kinds, found period=4 in a model of 2"), (2, Rope, 1, "period >= 2"),
     (2, Sinusoidal, 2, "expected a scheme of distances, found Sinusoidal"),
     (2, Fox, 2, "expected one without parameters of its own for every layer, found Fox"),
     (2, lambda g: Local(g, QkNorm(g, Rope(g)), 5), 2, "found Local; norms, sinks and the like go around mixed"),
     (2, rnope, 2, "found Mixed")],
)  # fmt: skip
def test_what_cannot_be_mixed_is_told(layers, near, period, told):
    geometry = Geometry(32, 4, 16, causal=True, n_layers=layers)
    with pytest.raises(ValueError, match=told):
        Mixed(geometry, near(geometry), Nope(geometry), period)


class OffByOne(Mixed):
    def layers(self, n_layers):
        return super().layers(n_layers + 1)[1:]


class PositionsEverywhere(Mixed):
    """RoPE left on in the global layers."""

    def layers(self, n_layers):
        return [self.near if layer is self.near else self.near.inner for layer in super().layers(n_layers)]


class PositionsNowhere(Mixed):
    """edifice's RNoPE-SWA: windows, and positions in no layer."""

    def layers(self, n_layers):
        blind = Local(self.geometry, Nope(self.geometry), self.near.window)
        return [blind if layer is self.near else layer for layer in super().layers(n_layers)]


def check(cls, geometry):
    inner = rope(geometry, 10_000.0)
    near = inner._replace(keep=lambda i, j: abs(i - j) < 5)
    check_against_reference(rnope(geometry, cls), mixed(geometry, near, Reference(), 2, False), range(20))


@SIZES
@pytest.mark.parametrize("mutant", [OffByOne, PositionsEverywhere, PositionsNowhere])
def test_a_bug_is_rejected(mutant, geometry):
    check(Mixed, geometry)
    with pytest.raises(AssertionError, match="not close"):
        check(mutant, geometry)
