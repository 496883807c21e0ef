"""A results folder with rows that look like real ones, for every figure of a paper."""

from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from rows import scheme_rows

from experiments.papers.chi2022_kernels import COLUMNS
from extrap.files import write_atomic
from extrap.results.rows import as_csv, runs_table, save_rows, save_training

SEEDS = 3
LEVELS = {"alibi": 1.42, "learned": 1.75, "nope": 1.9, "rope": 1.40, "sinusoidal": 1.47, "t5": 1.41}  # nats at L = 128
MORE = {"local(rope)": 1.39,
        "cable(scaled=False)": 1.41, "fire": 1.43, "kerple": 1.41, "randomized(rope)": 1.5, "pose(rope)": 1.44,
        "randomized(alibi, draw=distances)": 1.5}  # fmt: skip
# nats that a doubling of the length beyond L costs, per scheme, and how many doublings pass before
BREAKS = {
    "fire": (0.3, 1.0),
    "kerple": (0.02, 2.0),
    "alibi": (0.0, 0.0),
    "nope": (0.15, 0.2),
    "rope": (0.25, 0.4),
    "sinusoidal": (0.5, 0.1),
    "t5": (0.2, 1.8),
}
LENGTHS = {
    "causal_32": 32, "causal_64": 64, "causal": 128, "causal_256": 256, "main": 128, "prose_mlm": 128, "stride1": 128,
    "extend": 128, "extend_mlm": 128, "zoo": 128, "zoo_mlm": 128, "rtd": 128, "electra": 128,
}  # fmt: skip
DATA = {"main": "stdlib", "prose_mlm": "books", "extend_mlm": "stdlib", "zoo_mlm": "stdlib", "rtd": "stdlib",
        "electra": "stdlib"}  # fmt: skip
# of rows under same_targets, by what was trained; a generator is scored apart
OBJECTIVES = {
    "causal": {"causal": ""},
    "main": {"mlm": ""},
    "rtd": {"rtd": ""},
    "electra": {"electra": "", "electra_generator": "/generator"},
}
EXTENSIONS = ("none", "window", "pi", "ntk", "ntkfixed", "ntkmixed", "yarn", "rerope")


def nll(scheme: str, train_len: int, eval_len: float, pieces: bool, windowed: bool = False) -> list[float]:
    """By seed: a level that falls with the length, early tokens that cost more, and what goes wrong beyond L."""
    noise = np.random.default_rng([ord(scheme[0]), train_len, SEEDS]).normal(0, 0.012, SEEDS)
    seen = min(eval_len, 2 * train_len if scheme == "alibi" else train_len)
    level = (LEVELS | MORE)[scheme] - 0.06 * np.log2(train_len / 128) - 0.02 * np.log2(max(seen, 8) / train_len)
    early = 3.0 / (eval_len if pieces else max(seen, 8)) * 2
    cost, free = BREAKS.get(scheme, (0.0, 0.0))
    beyond = 0.0 if windowed else cost * max(0.0, np.log2(eval_len / train_len) - free)
    return list(level + early + beyond * (1 + 8 * noise) + noise)


def doubling(train_len: int, longest: int) -> list[int]:
    return [train_len * 2**k for k in range(int(np.log2(longest / train_len)) + 1)]


def table(experiment: str, schemes: tuple[str, ...], lengths: list[int], protocol: str, **changes: object) -> pd.DataFrame:
    train_len = LENGTHS[experiment]
    pieces, windowed = protocol == "nonoverlap", changes.get("extension") == "window"
    parts = []
    for scheme in schemes:
        ends = [n for n in lengths if scheme != "learned" or n <= train_len]
        by_length = {n: nll(scheme, train_len, n, pieces, windowed) for n in ends}
        if experiment in DATA and scheme == "nope":
            by_length = {n: [value + 1.1 for value in values] for n, values in by_length.items()}
        parts.append(scheme_rows(scheme, by_length, train_len=train_len, protocol=protocol, experiment=experiment,
                                 objective="mlm" if experiment in DATA else "causal",
                                 data=DATA.get(experiment, "stdlib"), **changes))  # fmt: skip
    return pd.concat(parts, ignore_index=True)


def training(experiment: str) -> pd.DataFrame:
    lines = []
    for scheme, rate in (("rope", 350.0), ("learned", 700.0), ("nope", 5000.0)):
        for seed in range(SEEDS):
            noise = np.random.default_rng([seed, int(rate)]).normal(0, 0.08, 240)
            for i, step in enumerate(range(10, 2401, 10)):
                loss = 1.4 + 1.8 * np.exp(-step / rate) + noise[i] + 0.02 * seed
                lines.append(
                    (experiment, f"{scheme}-seed{seed}", scheme, "mlm", DATA[experiment], 128, seed, step, step * 1024, loss)
                )
    columns = ["experiment", "run", "scheme", "objective", "data", "train_len", "seed", "step", "tokens", "loss"]
    return pd.DataFrame(lines, columns=columns).assign(setting="", held_out_loss=np.nan)


def kernels() -> pd.DataFrame:
    """Of two heads: -(head + 1 + seed / 10) log2(1 + distance)."""
    lines = [(f"{scheme}-seed{seed}", scheme, "stdlib", 128, seed, head, t, -(head + 1 + seed / 10) * np.log2(1 + t))
             for scheme in ("kerple", "kerple(kernel=power)", "kerple(kernel=three)")
             for seed in range(SEEDS) for head in range(2) for t in (0, *doubling(1, 4096))]  # fmt: skip
    return pd.DataFrame(lines, columns=COLUMNS)


def provenance(experiment: str) -> str:
    train_len = LENGTHS[experiment]
    config = {
        "model": {"d_model": 128, "n_layers": 2 if experiment in DATA else 4, "n_heads": 4, "d_ff": 512, "output": "untied"},
        "objective": {"_target_": "extrap.objectives.Mlm" if experiment in DATA else "extrap.objectives.Causal"},
        "data": {"_target_": "extrap.data.text.Stdlib", "train_bytes": 6850096},
        "train": {"train_len": train_len, "batch_size": 1024 // train_len, "max_steps": 1600, "optimizer": "adamw"},
        "eval": {"lengths": [train_len, 4096], "n_segments": 24},
    }
    return yaml.safe_dump({"command": "made up", "config": config})


def make_results(folder: Path) -> Path:
    """Everything that the figures of papers are drawn from, but the timings."""
    four, two = ("alibi", "rope", "sinusoidal", "t5"), ("alibi", "sinusoidal")
    bins = [16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096]
    causal = [128, 166, 180, 256, 460, 512, 896, 1024, 2048, 4096]
    rows = {
        "causal_32": [table("causal_32", two, doubling(32, 4096), "nonoverlap")],
        "causal_64": [table("causal_64", four, doubling(64, 4096), "nonoverlap")],
        "causal_256": [table("causal_256", two, doubling(256, 4096), "nonoverlap")],
        "causal": [
            table("causal", (*four, "learned", "nope"), causal, "nonoverlap"),
            table("causal", four, causal, "nonoverlap", extension="window"),
            table("causal", four, bins, "position"),
            table("causal", four, bins, "position", extension="window"),
        ],
        "main": [table("main", tuple(LEVELS), doubling(128, 4096), "nonoverlap")],
        "stride1": [
            table("stride1", ("alibi", "sinusoidal"), [128, 192, 256, 512, 1024], p)
            for p in ("nonoverlap", "sliding(stride=1)")
        ],
    }
    rows["zoo"] = [table("zoo", (*four, "cable(scaled=False)", "fire", "kerple"), doubling(128, 4096), "nonoverlap")]
    drawn = ("rope", "alibi", "randomized(rope)", "pose(rope)", "randomized(alibi, draw=distances)")
    rows["zoo_mlm"] = [table("zoo_mlm", drawn, doubling(128, 4096), "same_targets")]
    for experiment in ("extend", "extend_mlm"):
        rows[experiment] = [
            table(experiment, ("rope",), [128, 256, 1024, 4096], protocol, extension=one)
            for protocol in ("nonoverlap", "same_targets")
            for one in EXTENSIONS
        ]
    six = ("rope", "sinusoidal", "alibi", "local(rope)", "learned", "nope")
    for experiment, objectives in OBJECTIVES.items():
        targets = table(experiment, six, doubling(128, 4096), "same_targets")
        parts = [targets.assign(objective=one, run=targets["run"] + end) for one, end in objectives.items()]
        rows[experiment] = [*rows.get(experiment, []), *parts]
    for experiment in LENGTHS:
        (folder / experiment).mkdir(parents=True)
        (folder / experiment / "provenance.yaml").write_text(provenance(experiment))
        if experiment in rows:
            save_rows(folder / experiment / "rows.csv", pd.concat(rows[experiment], ignore_index=True))
        if experiment == "zoo":
            write_atomic(folder / experiment / "kernels.csv", as_csv(kernels()))
        if experiment in DATA:
            losses = training(experiment).assign(objective=next(iter(OBJECTIVES.get(experiment, ["mlm"]))))
            save_training(folder / experiment / "training.csv", losses)
            runs = [losses.assign(kind="scheme"), *rows.get(experiment, [])]
            write_atomic(folder / experiment / "runs.csv", runs_table(pd.concat(runs)))
    return folder
