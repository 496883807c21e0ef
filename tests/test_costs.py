"""What a run costs: counted, measured, brought together, told and drawn."""

import json
from mmap import mmap
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from marks import slow
from rows import both_protocols, scheme_rows, with_floor

from extrap.config.choices import Optimizer, Output, Precision
from extrap.config.compose import compose_grid
from extrap.report import drawing
from extrap.report.costs import cost_figures, costs_page
from extrap.report.report import report_again, write_report
from extrap.results.rows import COSTS, collect_costs, load_costs, save_rows
from extrap.runs import run as running
from extrap.runs.prepare import Run, prepare
from extrap.runs.run import build_encoder, execute
from extrap.stats.costs import costs_of_schemes
from extrap.stats.statistics import Statistics
from extrap.train import device
from extrap.train.checkpoint import load_checkpoint
from extrap.train.device import forget_peak, peak_memory
from extrap.train.flops import flops_of_step
from extrap.train.loop import training_batch

CPU = torch.device("cpu")
UNKNOWN = dict.fromkeys(COSTS, np.nan)


# counting


def run_of(tmp_path: Path, *overrides: str) -> Run:
    return prepare(compose_grid(["experiment=smoke", "seed=0", f"runtime.results_dir={tmp_path}", *overrides])[0])


def products_of_step(run: Run, n_scored: int) -> int:
    """Multiplications of a step by the definition: every product thrice, the last block of what is scored alone."""
    model, train = run.config.model, run.config.train
    d, n, blocks = model.d_model, train.train_len, model.n_layers
    queries_keys_values, rest, attention = 3 * d * d, d * d + 2 * d * model.d_ff, 2 * n * d
    whole = blocks * n * queries_keys_values + (blocks - 1) * n * (rest + attention)
    head = d * d * (model.output is Output.tied_head)
    return 3 * train.batch_size * (whole + n_scored * (rest + attention + head + d * run.source.vocab_size))


def products_of_muon(run: Run) -> int:
    """Of five steps of Newton-Schulz: 3 each on a square x; of a wide one 4 on G but for the first, which is G's square
    alone, and x before and after."""
    d, f = run.config.model.d_model, run.config.model.d_ff
    square, wide = 5 * 3 * d**3, 2 * d * d * f + (1 + 4 * 4) * d**3
    of_head = square * (run.config.model.output is Output.tied_head)
    return run.config.model.n_layers * (4 * square + 2 * wide) + of_head  # q, k, v and out; up and down


@pytest.mark.parametrize("optimizer", Optimizer)
@pytest.mark.parametrize(
    ("objective", "position", "train_len", "n_scored", "output"),
    [
        ("mlm", "rope", 32, 10, "tied_head"),
        ("causal", "rope", 544, 544, "untied"),  # longer than DENSE_MAX: by PyTorch's own kernel, which it does not count
        *slow(*(("mlm", position, 32, 10, "untied") for position in ("nope", "learned", "sinusoidal", "t5", "kerple"))),
        *slow(("mlm", "rope", 32, 10, "untied"), ("mlm", "local", 32, 10, "tied"), ("causal", "alibi", 32, 32, "tied")),
    ],
)
def test_operations_are_those_of_the_definition(tmp_path, objective, position, train_len, n_scored, output, optimizer):
    changes = (f"position={position}", f"objective={objective}", f"train.train_len={train_len}", "model.n_layers=3")
    changes += (f"model.output={output}",)
    run = run_of(tmp_path, *changes, f"train.optimizer={optimizer.value}", "data=stdlib")
    assert run.config.model.d_ff != run.config.model.d_model
    encoder, batch = build_encoder(run), training_batch(run.source, run.objective, run.config.train, 0, 0)
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    expected = products_of_step(run, n_scored) + products_of_muon(run) * (optimizer is Optimizer.muon)
    for precision in (Precision.fp32, Precision.bf16):
        assert flops_of_step(encoder, run.config.train, precision, batch) == 2 * expected
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items()), "counting trains nothing"


def test_a_peak_that_is_forgotten_counts_no_more():
    if not device.FORGET.exists():
        pytest.skip("the system forgets no peak")
    forget_peak(CPU)
    before = peak_memory(CPU)
    held = mmap(-1, 2**26)  # not of what the process has left over
    for _ in range(2**6):
        held.write(b"1" * 2**20)
    with_it = peak_memory(CPU)
    assert 2**26 - 2**22 < with_it - before < 2**27
    held.close()
    assert peak_memory(CPU) == pytest.approx(with_it, rel=0.02), "the most since then, not what is held now"
    forget_peak(CPU)
    assert peak_memory(CPU) < with_it - 2**25


def test_a_run_tells_what_it_cost(tmp_path):
    run = run_of(tmp_path, "position=rope", "objective=causal", "train.max_steps=4", "data=stdlib")
    execute(run)
    told = json.loads(run.folder.meta.read_text())["costs"]
    assert list(told) == COSTS
    train = run.config.train
    assert told["parameters"] == sum(p.numel() for p in build_encoder(run).parameters())
    assert told["tokens"] == 4 * train.batch_size * train.train_len
    muon = products_of_muon(run) * (train.optimizer is Optimizer.muon)
    assert told["train_flops"] == 4 * 2 * (products_of_step(run, train.train_len) + muon)
    assert 0 < told["train_seconds"] < 60
    assert 0 < told["eval_seconds"] < 60
    assert 2**26 < told["peak_memory"] < 2**35
    costs = collect_costs(run.folder.path.parent)
    assert costs.set_index("run").loc["rope-seed0"].to_dict() == told
    history = load_checkpoint(run.folder.weights, CPU, json.dumps(run.identity, sort_keys=True))[1]
    larger = history._replace(peak_memory=2**40)
    again = running.costs_of(run, build_encoder(run), CPU, larger, 0.1)
    assert again["peak_memory"] == 2**40, "of a run that is scored again: of its training, too"
    assert 2**26 < history.peak_memory <= told["peak_memory"]
    assert load_costs(run.folder.runs)[COSTS].isna().all(axis=None), "what is compared is free of them"


# bringing together

FLOPS, MIB = 4e12, 2.0**20


def costs_of(rows: pd.DataFrame, flops: float = FLOPS, seconds: float = 40.0) -> pd.DataFrame:
    """Of every run; seed s takes 1 + s / 4 as long as the first."""
    runs = rows.loc[rows["kind"] == "scheme", ["run", "seed"]].drop_duplicates()
    took = seconds * (1 + runs["seed"] / 4)
    told = {"parameters": 4e5, "tokens": 1e6, "train_flops": flops, "peak_memory": 300 * MIB}
    return runs[["run"]].assign(**told, train_seconds=took, eval_seconds=took / 10)[["run", *COSTS]]


NLL = {"a": {128: [1.5, 1.6], 256: [1.4, 1.5]}, "b": {128: [1.6, 1.7]}}


def test_costs_are_those_of_the_seed_that_took_least_beside_the_one_that_took_most():
    rows = both_protocols(NLL)
    costs = costs_of(rows)
    costs.loc[costs["run"] == "a-seed1", "peak_memory"] += MIB
    table = costs_of_schemes(rows, costs).set_index("scheme")
    assert list(table.index) == ["a", "b"]
    a = table.loc["a"]
    assert (a["train_seconds"], a["train_seconds_worst"]) == (40.0, 50.0)
    assert (a["eval_seconds"], a["eval_seconds_worst"]) == (4.0, 5.0)
    assert (a["tokens_per_second"], a["tokens_per_second_worst"]) == (1e6 / 40, 1e6 / 50)
    assert (a["train_flops"], a["peak_memory"], a["peak_memory_worst"]) == (FLOPS, 300 * MIB, 301 * MIB)


def test_what_is_not_known_is_left_out_and_nothing_is_drawn_where_nothing_is_known():
    rows = both_protocols(NLL)
    costs = costs_of(rows)
    none_of_a = costs.mask(costs["run"].str.startswith("a-"), np.nan).assign(run=costs["run"])
    assert {*Statistics(rows, costs=none_of_a).costs_and_quality["scheme"]} == {"b"}
    one_of_a = costs.mask(costs["run"] == "a-seed1", np.nan).assign(run=costs["run"])
    found = costs_of_schemes(rows, one_of_a).set_index("scheme").loc["a"]
    assert (found["train_seconds"], found["train_seconds_worst"]) == (40.0, 40.0), "of the seeds of which it is known"
    unknown = Statistics(rows, costs=costs[["run"]].assign(**UNKNOWN))
    for found in (unknown, Statistics(rows)):
        assert found.costs_and_quality.empty
        assert not list(cost_figures(found))


@pytest.mark.slow
def test_a_report_tells_costs_where_runs_do(tmp_path, monkeypatch):
    monkeypatch.setattr(drawing, "FORMATS", {})
    rows = both_protocols({"a": NLL["a"]})
    for known, told in ((None, set()), (costs_of(rows), {"costs.md", "costs.csv"})):
        save_rows(tmp_path / "rows.csv", rows, known)
        assert {path.name for path in report_again(tmp_path) if path.name.startswith("costs")} == told


def test_quality_is_told_at_the_training_length_and_at_the_longest_of_each_protocol():
    rows = pd.concat([both_protocols(NLL), scheme_rows("a", {128: [0.1, 0.1], 256: [0.1, 0.1]}, extension="window")])
    found = Statistics(rows, costs=costs_of(rows)).costs_and_quality
    at = found[["scheme", "protocol", "eval_len"]].itertuples(index=False, name=None)
    assert {*at} == {("a", "nonoverlap", 128), ("b", "nonoverlap", 128), ("a", "same_targets", 256)}
    a = found.set_index(["scheme", "eval_len"])["ppl"]
    assert a["a", 128] == pytest.approx(np.exp(1.55))
    assert a["a", 256] == pytest.approx(np.exp(1.45))
    at_l = both_protocols({scheme: {128: curve[128]} for scheme, curve in NLL.items()})
    one = Statistics(at_l, costs=costs_of(at_l))
    assert {*one.costs_and_quality["protocol"]} == {"nonoverlap"}, "of one length once"
    assert "at 128, nonoverlap" in costs_page(one)
    floor = with_floor({"a": {128: [1.5, 1.6], 512: [1.4, 1.5]}})
    assert {*Statistics(floor, costs=costs_of(floor)).costs_and_quality["scheme"]} == {"a"}, "a reference is not trained"


# telling and drawing


def test_the_page_says_what_it_costs():
    rows = both_protocols(NLL)
    page = costs_page(Statistics(rows, costs=costs_of(rows).assign(train_flops=np.nan)))
    assert "**Costs of mlm on stdlib, training length 128**" in page
    (a,) = (line for line in page.splitlines() if line.startswith("| a "))
    cells = [cell.strip() for cell in a.strip("|").split("|")]
    assert cells[:7] == [
        "a",
        "400,000",
        "–",
        "40.0 (to 50.0)",
        "25,000 (to 20,000)",
        "4.00 (to 5.00)",
        "300",
    ]
    assert cells[7].startswith("4.71 ±")
    assert cells[8].startswith("4.26 ±")
    (b,) = (line for line in page.splitlines() if line.startswith("| b "))
    assert b.strip("| ").endswith("–"), "which ends at its training length"


def budgets(flops: dict[str, float]) -> Statistics:
    """Two schemes at settings that differ in their operations."""
    parts = []
    for i, setting in enumerate(flops):
        nll = {scheme: {n: [x - 0.1 * i for x in by_seed] for n, by_seed in of.items()} for scheme, of in NLL.items()}
        parts.append(both_protocols(nll, setting=setting))
    costs = pd.concat(costs_of(part, of) for part, of in zip(parts, flops.values(), strict=True))
    return Statistics(pd.concat(parts, ignore_index=True), costs=costs)


def test_settings_that_are_no_steps_of_operations_are_no_curve():
    for flops in ({"output=untied": FLOPS, "output=tied": FLOPS, "output=tied_head": 2 * FLOPS},
                  {"output=tied": FLOPS, "output=tied_head": 1.02 * FLOPS},
                  {"output=a": FLOPS, "output=b": 1.01 * FLOPS, "output=c": 2 * FLOPS}):  # fmt: skip
        names = [name for name, *_ in cost_figures(budgets(flops))]
        assert [name.rpartition("_output_")[2] for name in names] == [setting.removeprefix("output=") for setting in flops]


def test_settings_of_several_budgets_are_one_curve_a_scheme():
    flops = {"max_steps=100": FLOPS, "max_steps=400": 4 * FLOPS, "max_steps=900": np.nan}  # of the last they are not known
    ((name, figure, points),) = cost_figures(budgets(flops))
    assert name == "costs"
    first, second = figure.axes
    (a, b) = first.get_lines()
    np.testing.assert_allclose(a.get_xdata(), [4, 16])
    np.testing.assert_allclose(a.get_ydata(), np.exp([1.55, 1.45]), rtol=1e-5)
    np.testing.assert_allclose(b.get_ydata(), np.exp([1.65, 1.55]), rtol=1e-5)
    assert first.get_xscale() == "log"
    assert second.get_xlabel() == "training of a run, $10^{12}$ FLOPs"
    (a,) = second.get_lines()
    np.testing.assert_allclose(a.get_ydata(), np.exp([1.45, 1.35]), rtol=1e-5)
    assert [axes.get_title(loc="left") for axes in figure.axes] == [
        "at 128 tokens (L), nonoverlap", "at 256 tokens (2 L), same_targets",
    ]  # fmt: skip
    assert {text.get_text() for text in first.texts} == {"a", "b"}
    assert len(points) == 6
    assert {"train_flops", "ppl", "tokens_per_second_worst"} <= {*points}


@pytest.mark.slow
def test_settings_of_one_budget_have_a_figure_each_by_seconds():
    figures = {name: figure for name, figure, _ in cost_figures(budgets({"lr=0.1": FLOPS, "lr=0.2": FLOPS}))}
    assert list(figures) == ["costs_mlm_stdlib_128_lr_0_1", "costs_mlm_stdlib_128_lr_0_2"]
    figure = figures["costs_mlm_stdlib_128_lr_0_2"]
    assert figure.axes[-1].get_xlabel() == "training of a run, seconds"
    assert "lr=0.2" in figure.get_suptitle()
    places = {tuple(line.get_xdata()) for line in figure.axes[0].get_lines() if len(line.get_xdata()) < 3}
    assert {(40.0,), (40.0, 50.0)} <= places, "from the fastest seed to the slowest"


@pytest.mark.slow
@pytest.mark.usefixtures("svg_alone")
def test_a_single_seed_and_a_single_scheme_are_drawn(tmp_path):
    rows = scheme_rows("a$_^", {128: [1.5]})
    write_report(found := Statistics(rows, costs=costs_of(rows)), tmp_path)
    ((_, figure, _),) = cost_figures(found)
    told = figure.get_suptitle().replace("\n", " ")
    assert told.endswith(", 1 seed; by the clock, whatever else ran"), "which has no interval"
    assert (tmp_path / "costs.svg").stat().st_size > 1000
    assert pd.read_csv(tmp_path / "costs.csv")["train_seconds"].to_list() == [40.0], "one length is told once"
