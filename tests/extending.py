"""How every extension is checked: layer by layer against a formula, and as what comes of a name in a config."""

import torch
from checking import ROUNDING
from references.base import attend
from torch.testing import assert_close

from extrap.config.compose import extension_specs
from extrap.extensions.base import extensions_of
from extrap.model.attention import prepare
from extrap.model.definition import attend_reference
from extrap.positions.base import Geometry

L, T = 8, 25  # of training, and of what is read


def geometry_of(causal, **sizes):
    return Geometry(**{"d_model": 32, "n_heads": 4, "train_len": L, "causal": causal, "n_layers": 2} | sizes)


def named(text):
    """The extension that a config calls so."""
    [extension] = extensions_of(extension_specs([text])).values()
    return extension


def check_layers(extended, references, seq_len=T):
    """What every layer of an extended scheme gives, by definition and on its path, against a formula for each."""
    geometry, pos = extended.geometry, extended.eval().positions(seq_len)
    q, k, v = torch.randn(3, 1, geometry.n_heads, seq_len, geometry.head_dim, dtype=torch.float64)
    of_layers = dict(zip(extended.layers(geometry.n_layers), references, strict=True))  # layers alike once
    for layer, reference in of_layers.items():
        rows = attend(reference, q.tolist(), k.tolist(), v.tolist(), range(seq_len), geometry.causal)
        expected = torch.tensor(rows, dtype=torch.float64)
        assert_close(attend_reference(layer, pos, q, k, v), expected, rtol=0, atol=ROUNDING)
        assert_close(prepare(layer, pos, training=False)(q, k, v), expected, rtol=0, atol=ROUNDING)


def answers(scheme, seq_len, exact=True):
    """Input vectors, and what every layer gives, in float32: by definition, or on its path."""
    torch.manual_seed(1)
    geometry, pos = scheme.geometry, scheme.eval().positions(seq_len)
    q, k, v = torch.randn(3, 1, geometry.n_heads, seq_len, geometry.head_dim)
    x = torch.randn(1, seq_len, geometry.d_model)
    layers = scheme.layers(geometry.n_layers)
    given = [
        attend_reference(layer, pos, q, k, v, x) if exact else prepare(layer, pos, training=False)(q, k, v, x)
        for layer in layers
    ]
    return [scheme.embed(x, pos), *given]
