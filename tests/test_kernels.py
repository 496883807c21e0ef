"""Trained biases of distance, read from the weights of runs."""

import numpy as np
import pandas as pd
import pytest
from built import save_weights
from sweeps import TINY

from experiments.kernels import distances, write_kernels
from experiments.papers.chi2022_kernels import load_kernels
from extrap.config.compose import compose_grid
from extrap.errors import UserError
from extrap.files import write_atomic
from extrap.results.rows import GROUP, runs_table
from extrap.runs.prepare import prepare
from extrap.runs.run import build_encoder


def weights(position, results):
    """A run with weights that nobody trained."""
    run = prepare(compose_grid([*TINY, f"position={position}", f"runtime.results_dir={results}"])[0])
    run.folder.claim(run.identity)
    encoder = build_encoder(run)
    save_weights(run, encoder)
    told = {"experiment": "smoke", "run": run.folder.path.name, "kind": "scheme", "scheme": position, "seed": 0}
    told |= dict.fromkeys(GROUP, "") | {"data": "markov", "objective": "causal", "train_len": 32}
    write_atomic(run.folder.runs, runs_table(pd.DataFrame([told])))
    return encoder.scheme


def test_a_bias_is_written_as_its_formula_says(tmp_path):
    scheme = weights("kerple", tmp_path)
    path = write_kernels([*TINY, "position=kerple"], tmp_path)
    assert path == tmp_path / "smoke" / "kernels.csv"
    table = load_kernels(path)
    r1, r2 = (r.detach().clamp(min=0.01).numpy()[table["head"]] for r in (scheme.r1, scheme.r2))
    assert table["bias"].to_numpy() == pytest.approx(-r1 * np.log1p(r2 * table["distance"]), rel=1e-5)
    assert sorted({*table["head"]}) == [*range(len(scheme.r1))]
    assert {0, 1, 2, 3, 4, 6, 32} <= {*table["distance"]}


def test_distances_are_powers_of_two_and_half_way_between():
    assert distances(13) == [0, 1, 2, 3, 4, 6, 8, 12]


def test_what_is_no_bias_of_distance_is_told(tmp_path):
    weights("rope", tmp_path)
    with pytest.raises(UserError, match="rope-seed0: expected one bias of distance alone for all layers"):
        write_kernels([*TINY, "position=rope"], tmp_path)
    write_atomic(tmp_path / "kernels.csv", "run,bias\n")
    with pytest.raises(UserError, match="expected the columns run, scheme, data"):
        load_kernels(tmp_path / "kernels.csv")
