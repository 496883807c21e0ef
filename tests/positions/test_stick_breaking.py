"""Stick-breaking: shares of a stick, and the bugs that are told of it."""

import pytest
import torch
from checking import DECODER, ENCODER, check_formula, inputs
from torch.nn import functional as F
from torch.testing import assert_close

from extrap.model.attention import prepare
from extrap.positions.stick_breaking import StickBreaking


def weigh(z):
    return StickBreaking(DECODER).weights()(z)


def test_the_shares_and_the_rest_are_the_stick():
    z = 3 * torch.randn(2, 3, 5, 7, dtype=torch.float64)
    rest = (1 - torch.sigmoid(z)).prod(dim=-1)
    assert_close(weigh(z).sum(dim=-1) + rest, torch.ones(2, 3, 5, dtype=torch.float64))


def test_the_nearest_match_takes_all():
    z = torch.full((1, 1, 1, 6), -50.0)
    z[..., 1] = z[..., 3] = 50.0
    assert_close(weigh(z)[0, 0, 0], torch.tensor([0.0, 0, 0, 1, 0, 0]))


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
def test_a_token_does_not_see_itself_and_the_first_sees_nothing(training):
    q, k, v = inputs(DECODER, 9)
    v[:, :, 5] = 100.0
    scheme = StickBreaking(DECODER)
    found = prepare(scheme, scheme.positions(9), training=training)(q, k, v)
    assert (found[:, :, 0] == 0).all()
    assert found[:, :, 5].abs().max() < 5
    assert found[:, :, 6].abs().max() > 5


def test_it_is_not_defined_for_an_encoder():
    with pytest.raises(ValueError, match="StickBreaking is defined for causal models alone; expected objective=causal"):
        StickBreaking(ENCODER)


class FromTheFarSide(StickBreaking):
    """What is left is what the first keys leave."""

    def weights(self):
        def weigh(z):
            kept = F.logsigmoid(-z)
            return (F.logsigmoid(z) + kept.cumsum(dim=-1) - kept).exp()

        return weigh


class WithTheRest(StickBreaking):
    """The rest goes to the token itself, as in the tests of the released code."""

    def weights(self):
        share = super().weights()

        def weigh(z):
            weights = share(z)
            own = torch.arange(z.shape[-2], device=z.device) + z.shape[-1] - z.shape[-2]
            itself = torch.arange(z.shape[-1], device=z.device) == own[:, None]
            return weights + itself * (1 - weights.sum(dim=-1, keepdim=True))

        return weigh


class WithItself(StickBreaking):
    def mask_mod(self, pos):
        return lambda b, h, i, j: pos[j] <= pos[i]


class Inclusive(StickBreaking):
    """A key pays for its own share, too."""

    def weights(self):
        return lambda z: (F.logsigmoid(z) + F.logsigmoid(-z).flip(-1).cumsum(dim=-1).flip(-1)).exp()


@pytest.mark.parametrize("mutant", [FromTheFarSide, WithTheRest, WithItself, Inclusive])
def test_a_bug_is_rejected(mutant):
    check_formula(StickBreaking, DECODER)
    with pytest.raises(AssertionError, match="not close"):
        check_formula(mutant, DECODER)
