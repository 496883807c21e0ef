"""How every scheme is checked: against its formula, path against path, one scheme against another."""

import copy
import math

import torch
from references.base import attend, formula, of_layers
from torch import nn
from torch.testing import assert_close

from extrap.model.attention import prepare
from extrap.model.definition import attend_reference
from extrap.positions.base import Geometry
from extrap.testing.case import answers, define

ROUNDING = 1e-6  # float64 inputs, tables that were rounded to float32 once
FAR = 100_000  # where float32 angles lie 0.008 apart and bfloat16 positions 512
SCATTERED = [0, 1, 2, 7, 300, 301, 1001, FAR, FAR + 1, FAR + 4]  # near and far pairs, near and far from the start

ENCODER = Geometry(d_model=32, n_heads=4, train_len=16, causal=False, n_layers=2)
DECODER = Geometry(d_model=32, n_heads=4, train_len=16, causal=True, n_layers=2)
OTHER_ENCODER = Geometry(d_model=18, n_heads=3, train_len=16, causal=False, n_layers=3)  # sizes that are no powers of two
OTHER_DECODER = Geometry(d_model=18, n_heads=3, train_len=16, causal=True, n_layers=3)
FLOAT32 = 1e-5  # a path in float32 against the definition in float64


def inputs(geometry, seq_len, n_batch=1, dtype=torch.float64):
    return torch.randn(3, n_batch, geometry.n_heads, seq_len, geometry.head_dim, dtype=dtype).unbind()


def check_against_reference(scheme, reference, at):
    """What every layer of the scheme does at these positions, a list or range, is what the paper's formula says."""
    scheme = copy.deepcopy(scheme).double().eval()  # in training positions may be drawn
    geometry, seq_len = scheme.geometry, len(at)
    pos = scheme.positions(at[-1] + 1)[list(at)]
    at = pos.tolist() if scheme.of_length else at
    x = torch.randn(1, seq_len, geometry.d_model, dtype=torch.float64)
    for layer, of_layer in of_layers(scheme, reference):
        q, k, v = inputs(geometry, seq_len)
        output = attend_reference(layer, pos, q, k, v, x)
        expected = attend(of_layer, q.tolist(), k.tolist(), v.tolist(), at, geometry.causal, x.tolist())
        assert_close(output, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=ROUNDING)
    embedded = scheme.embed(x, pos)
    added = torch.tensor([of_layer.add(t) for t in at], dtype=torch.float64) if of_layer.add else 0
    assert_close(embedded, x + added, rtol=0, atol=ROUNDING)


def layers(scheme):
    """The schemes of the layers, each once."""
    return dict.fromkeys(scheme.layers(scheme.geometry.n_layers))


def check_path(scheme, seq_len, training, path=prepare, device="cpu"):
    """A path in float32 gives the output and the gradients of the definition in float64."""
    scheme = scheme.to(device)
    exact = [part.to(device) for part in inputs(scheme.geometry, seq_len, n_batch=2)]
    weight = torch.randn_like(exact[0])
    exact.append(torch.randn(2, seq_len, scheme.geometry.d_model, dtype=torch.float64, device=device))
    wide = copy.deepcopy(scheme).double()  # or gradients of its parameters would be summed in float32
    pos = scheme.positions(seq_len, device)
    expected = answers(define, wide, pos, training, exact, weight)
    found = answers(path, scheme, pos, training, [x.float() for x in exact], weight)
    names = ["output", "q", "k", "v", "x", *(name for name, _ in scheme.named_parameters())]
    for name, a, b in zip(names, found, expected, strict=True):
        assert a.dtype == torch.float32
        # a GPU adds up what all pairs of tokens give to a parameter in no fixed order
        atol = FLOAT32 * math.sqrt(seq_len) if device == "cuda" and name not in ("output", *"qkvx") else FLOAT32
        assert_close(a.double(), b.double(), rtol=FLOAT32, atol=atol, msg=lambda text, name=name: f"{name}: {text}")


def check_formula(cls, geometry, at=range(20), **arguments):
    """A scheme follows the reference of its class; of a mutant that of the class which it mends for the worse."""
    scheme = cls(geometry, **arguments)
    for parameter in scheme.parameters():
        nn.init.normal_(parameter, std=0.5)
    real = next(one for one in cls.mro() if one.__module__.startswith("extrap."))
    spec = {"_target_": f"{real.__module__}.{real.__name__}", **arguments}
    check_against_reference(scheme, formula(spec, scheme), at)


def check_same(scheme, other, seq_len=45, atol=FLOAT32):
    """Two schemes attend alike in every layer, in training and in evaluation."""
    geometry = scheme.geometry
    q, k, v = inputs(geometry, seq_len, dtype=torch.float32)
    x, pos = torch.randn(1, seq_len, geometry.d_model), scheme.positions(seq_len)
    for layer, counterpart in zip(scheme.layers(geometry.n_layers), other.layers(geometry.n_layers), strict=True):
        for training in (True, False):
            found, expected = (prepare(one, pos, training=training)(q, k, v, x) for one in (layer, counterpart))
            assert_close(found, expected, rtol=0, atol=atol)
    assert_close(scheme.embed(x, pos), other.embed(x, pos), rtol=0, atol=atol)
