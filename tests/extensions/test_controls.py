"""Extensions: masks and distances pair by pair, the identity up to the training length, and what they do not apply to."""

from functools import partial

import pytest
import torch
from references.alibi import alibi
from references.base import attend
from references.rope import rope

from extrap.config.compose import extension_specs
from extrap.extensions.base import extensions_of
from extrap.extensions.far import ReRope
from extrap.model.attention import prepare
from extrap.model.definition import attend_reference
from extrap.positions.alibi import Alibi
from extrap.positions.base import Geometry, PositionScheme
from extrap.positions.fox import Fox
from extrap.positions.local import Local
from extrap.positions.mixed import Mixed
from extrap.positions.nope import Nope
from extrap.positions.rope import Rope
from extrap.positions.sinks import Sinks
from extrap.sweep import sweep

T, L = 40, 12
ONE_PASS = ["nope", "sinusoidal", "rope", "alibi", "t5", "kerple"]


def extend(text, scheme, eval_len=T):
    [extension] = extensions_of(extension_specs([text])).values()
    return extension(scheme, eval_len)


def windowed(reference, causal, size=L):
    width = size if causal else (size + 1) // 2
    return reference._replace(keep=lambda i, j: abs(i - j) < width)


def lambda_shaped(reference, causal, n_first):
    """Beyond the window the first tokens count as L - 1 tokens away."""
    near = windowed(reference, causal).keep

    def score(q, k, i, j, h):
        return reference.score(q, k, i, j, h) if near(i, j) else reference.score(q, k, L - 1, 0, h)

    return reference._replace(score=score, keep=lambda i, j: near(i, j) or (j < n_first and j < i))


def float64(rows):
    return torch.tensor(rows, dtype=torch.float64)


def heads():
    return torch.randn(3, 2, 4, T, 8, dtype=torch.float64)


FORMULAS = {"window": windowed, "lambda": partial(lambda_shaped, n_first=4)}
WITH_ARGUMENTS = {"window(size=7)": partial(windowed, size=7), "lambda(n_first=1)": partial(lambda_shaped, n_first=1)}


@pytest.mark.parametrize(
    ("extension", "formula", "scheme_name"),
    [(*case, scheme) for case in FORMULAS.items() for scheme in ONE_PASS]
    + [(*case, "rope") for case in WITH_ARGUMENTS.items()],
)
def test_an_extension_computes_what_it_says(extension, formula, scheme_name, causal, scheme_of, reference_of, small):
    scheme = scheme_of(scheme_name, causal, train_len=L)
    extended = extend(extension, scheme)
    pos = extended.positions(T)
    q, k, v = heads()
    expected = float64(
        attend(formula(reference_of(scheme_name, scheme), causal), q.tolist(), k.tolist(), v.tolist(), pos.tolist(), causal)
    )
    found = attend_reference(extended, pos, q, k, v)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)  # tables and biases are float32
    fast = prepare(extended, pos, training=False)
    torch.testing.assert_close(fast(q, k, v), expected, rtol=0, atol=1e-6)
    without = float64(attend(reference_of(scheme_name, scheme), q.tolist(), k.tolist(), v.tolist(), pos.tolist(), causal))
    assert (without - expected).abs().max() > 0.01, "it changes something"


def test_a_window_sees_as_many_keys_as_training_did(causal, scheme_of):
    (branch,) = extend("window", scheme_of("rope", causal, train_len=L)).branches(torch.arange(T))
    i, j = torch.arange(T)[:, None], torch.arange(T)
    seen = branch.mask_mod(torch.tensor(0), torch.tensor(0), i, j) & ((j <= i) if causal else True)
    assert seen.sum(dim=1).max() == (L if causal else L - 1)


@pytest.mark.parametrize(("extension", "place"), [("tile", lambda t: t % L), ("clamp", lambda t: min(t, L - 1))])
@pytest.mark.parametrize("scheme_name", ["learned", "local position.window=5 position@position.inner=learned"])
def test_a_table_is_read_where_it_says(extension, place, scheme_name, causal, scheme_of):
    scheme = scheme_of(scheme_name, causal, train_len=L)
    extended = extend(extension, scheme)
    assert extended.max_len is None
    x = torch.randn(2, T, 32)
    table = dict(scheme.named_parameters())["table" if scheme_name == "learned" else "inner.table"]
    expected = torch.stack([x[:, t] + table[place(t)] for t in range(T)], dim=1)
    torch.testing.assert_close(extended.embed(x, extended.positions(T)), expected, rtol=0, atol=0)
    kept = [branch.mask_mod is None for branch in extended.branches(extended.positions(T))]
    assert kept == [branch.mask_mod is None for branch in scheme.branches(scheme.positions(T))]


def test_within_its_table_nothing_is_moved(causal, scheme_of):
    scheme = scheme_of("learned", causal, train_len=L)
    x = torch.randn(2, L, 32)
    for extension in ("tile", "clamp"):
        extended = extend(extension, scheme)
        torch.testing.assert_close(
            extended.embed(x, extended.positions(L)), scheme.embed(x, scheme.positions(L)), rtol=0, atol=0
        )


@pytest.mark.parametrize(
    ("extension", "scheme_name"),
    [("window", "learned"), ("window", "local position.window=5"), ("lambda", "local position.window=20"), ("tile", "rope"),
     ("clamp", "sinusoidal"), ("lambda", "learned")],
)  # fmt: skip
def test_what_an_extension_does_not_apply_to(extension, scheme_name, causal, scheme_of):
    assert extend(extension, scheme_of(scheme_name, causal, train_len=L)) is None


def test_a_wider_window_is_narrowed(causal, scheme_of):
    extended = extend("window", scheme_of("local position.window=20", causal, train_len=L))
    assert isinstance(extended, Local)
    assert {branch.window for branch in extended.branches(torch.arange(T))} == {L if causal else L // 2}


class Ends(PositionScheme):
    """Draws from fewer places than there are tokens, and reads no table."""

    max_len = 20


class OwnMask(PositionScheme):
    def mask_mod(self, pos):
        return lambda b, h, i, j: (i + j) % 2 == 0


@pytest.mark.parametrize(
    ("extension", "scheme"),
    [("tile", Ends), ("clamp", Ends), ("lambda", OwnMask), ("lambda", Fox),
     ("lambda", lambda geometry: ReRope()(Rope(geometry), T)),
     ("lambda", lambda geometry: Mixed(geometry, Local(geometry, Rope(geometry), 5), Nope(geometry)))],
)  # fmt: skip
def test_an_extension_asks_what_a_scheme_is_and_not_what_it_looks_like(extension, scheme, causal):
    assert extend(extension, scheme(Geometry(32, 4, L, causal, n_layers=2))) is None


@pytest.mark.parametrize(("extension", "formula"), FORMULAS.items())
def test_an_extension_reaches_every_layer(extension, formula, causal):
    geometry = Geometry(32, 4, L, causal, n_layers=2)
    extended = extend(extension, Mixed(geometry, Rope(geometry), Alibi(geometry)))
    q, k, v = heads()
    for layer, inner in zip(extended.layers(2), (rope(geometry, 10_000.0), alibi(geometry)), strict=True):
        found = attend_reference(layer, torch.arange(T), q, k, v)
        expected = attend(formula(inner, causal), q.tolist(), k.tolist(), v.tolist(), range(T), causal)
        torch.testing.assert_close(found, float64(expected), rtol=0, atol=1e-6)


def test_an_extension_leaves_weights_to_the_scheme(causal, small):
    """A window, and the first tokens beside it, around learned sinks."""
    geometry = Geometry(32, 4, L, causal, n_layers=1)
    scheme = Sinks(geometry, Rope(geometry))
    for extension in ("window", "lambda"):
        (layer,), (plain,) = extend(extension, scheme).layers(1), scheme.layers(1)
        scores = torch.randn(2, 4, 9, 9)
        assert torch.equal(layer.weights()(scores), plain.weights()(scores))
        assert layer.weights()(scores).sum(dim=-1).max() < 1


@pytest.mark.parametrize(
    ("overrides", "code"),
    [
        (["position=rope,alibi"], 0),  # the experiment's extensions, some of which are for others
        (["position=rope,learned", "eval.extensions=[none,window,tile]"], 0),
        (["position=rope,alibi", "eval.extensions=[none,window,tile]"], "tile does not apply to rope or alibi, or changes"),
        (["position=local", "position.window=3", "eval.extensions=[none,window]"], "window does not apply to local(rope,"),
    ],
)
def test_an_extension_that_is_asked_for_is_for_a_scheme_of_the_sweep(monkeypatch, capsys, tmp_path, overrides, code):
    monkeypatch.setattr(sweep, "_run_and_report", lambda *_: 0)
    given = ["experiment=smoke", "data=markov", "objective=causal", "seed=0", f"runtime.results_dir={tmp_path}"]
    found = sweep.main([*given, *overrides])
    told = capsys.readouterr().err
    assert (found, told) == (0, "") if code == 0 else (found == 2 and f"eval.extensions: {code}" in told)
