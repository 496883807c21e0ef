"""What trained biases of distance are: results/<experiment>/kernels.csv, from the weights of its finished runs.

python -m experiments.kernels experiment=zoo position=kerple,kerple_power,kerple_three [--results RESULTS]
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from experiments.papers.chi2022_kernels import ABOUT, KERNEL
from extrap.config.compose import compose_grid
from extrap.errors import UserError
from extrap.files import as_path
from extrap.results.rows import load_runs
from extrap.results.shown import save_table
from extrap.sweep.door import through

NAME = "kernels.csv"


def distances(longest: int) -> list[int]:
    """0, the powers of 2 and what lies half-way between them, up to the longest."""
    doublings = [2**k for k in range(longest.bit_length())]
    return sorted({0, *doublings, *(3 * n // 2 for n in doublings if n > 1 and 3 * n // 2 <= longest)})


def write_kernels(overrides: list[str], results: Path) -> Path:
    """A line a run, head and distance up to the longest evaluation length. Raises UserError for what is no such bias."""
    import torch

    from extrap.positions.randomized import is_bias
    from extrap.runs.prepare import prepare_all
    from extrap.runs.trained import load_encoder

    tables, configs = [], compose_grid([*overrides, f"runtime.results_dir={results}"])
    for run in prepare_all(configs):
        scheme, longest = load_encoder(run).scheme, max(run.config.eval.lengths)
        one, *others = dict.fromkeys(scheme.layers(scheme.geometry.n_layers))
        if others or not is_bias(one):
            raise UserError(f"{run.folder.path.name}: expected one bias of distance alone for all layers")
        t, h = torch.tensor(distances(longest)), torch.arange(scheme.geometry.n_heads)[:, None]
        score_mod = one.score_mod(one.positions(longest + 1))
        assert score_mod
        with torch.no_grad():
            bias = score_mod(torch.zeros(len(h), len(t)), torch.tensor(0), h, t, torch.zeros_like(t))
        lines = [(head, t[at].item(), value) for (head, at), value in np.ndenumerate(bias.numpy())]
        table = pd.DataFrame(lines, columns=KERNEL)
        tables.append(load_runs(run.folder.runs)[ABOUT].merge(table, how="cross"))
    path = configs[0].results / NAME
    path.parent.mkdir(parents=True, exist_ok=True)
    save_table(path, pd.concat(tables, ignore_index=True))
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description="Trained biases of distance, from the weights of finished runs.")
    parser.add_argument("--results", type=as_path, default=Path("results"))
    parser.add_argument("overrides", nargs="+")
    arguments = parser.parse_args()
    print(write_kernels(arguments.overrides, arguments.results))


if __name__ == "__main__":
    sys.exit(through(main))
