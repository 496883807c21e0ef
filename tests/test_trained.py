"""Attention weights are those that a model attends with."""

import pytest
import torch
import yaml
from built import save_weights
from marks import slow

from extrap.config.compose import compose_grid
from extrap.errors import UserError
from extrap.runs.prepare import prepare
from extrap.runs.run import build_encoder
from extrap.runs.trained import attention, load_encoder


def cell_of(tmp_path, objective, position):
    sizes = ["experiment=smoke", "data=markov", f"runtime.results_dir={tmp_path}", "seed=0"]
    return prepare(compose_grid([*sizes, f"objective={objective}", f"position={position}"])[0])


@pytest.mark.parametrize("objective", ["mlm", "causal"])
@pytest.mark.parametrize("position", ["local", *slow("rope", "alibi", "sinusoidal")])
def test_weights_are_shares_and_give_what_the_model_gives(tmp_path, objective, position):
    encoder = build_encoder(cell_of(tmp_path, objective, position)).eval()
    tokens = torch.randint(0, 8, (2, 40), generator=torch.Generator().manual_seed(0))
    weights = attention(encoder, tokens)
    assert weights.shape == (len(encoder.blocks), 2, encoder.scheme.geometry.n_heads, 40, 40)
    torch.testing.assert_close(weights.sum(dim=-1), torch.ones(weights.shape[:-1]))
    assert (weights.triu(1) == 0).all() == (objective == "causal")
    x = encoder.scheme.embed(encoder.embedding(tokens), encoder.scheme.positions(40))
    for block, layer in zip(encoder.blocks, weights, strict=True):
        x = block(x, lambda q, k, v, read, layer=layer: layer @ v)
    torch.testing.assert_close(encoder.norm(x), encoder(tokens), rtol=1e-4, atol=1e-5)


def test_the_weights_of_a_run_are_those_that_it_saved(tmp_path):
    cell = cell_of(tmp_path, "causal", "rope")
    with pytest.raises(UserError, match="is not trained here"):
        load_encoder(cell)
    trained = build_encoder(cell)
    torch.nn.init.ones_(trained.embedding.weight)
    cell.folder.claim(cell.identity)
    weights, earlier = cell.folder.weights, cell.identity | {"code": "of an earlier program"}
    for identity in (earlier, cell.identity):
        cell.folder.config.write_text(yaml.safe_dump(identity))
        save_weights(cell._replace(identity=identity), trained)
        assert (load_encoder(cell).embedding.weight == 1).all()
    whole = weights.read_bytes()
    at = whole.index(torch.ones(4).numpy().tobytes())
    for damaged in (whole[:at] + b"\1" + whole[at + 1 :], whole[: len(whole) // 2], b""):
        weights.write_bytes(damaged)
        with pytest.raises(UserError, match=r"model.pt is damaged or of another run: .* remove it and eval.csv beside it"):
            load_encoder(cell)
    cell.folder.config.write_text(yaml.safe_dump(earlier | {"seed": 1}))
    with pytest.raises(UserError, match="holds a run with another config: seed: 1 -> 0"):
        load_encoder(cell)
