"""Figures of papers: points are what rows say and what was published, drawn legibly; captions tell what differs."""

import csv
import importlib
import inspect
import re
import shutil
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from marks import slow
from matplotlib.axis import Axis
from matplotlib.collections import PolyCollection
from matplotlib.image import imread
from matplotlib.text import Text
from paper_rows import EXTENSIONS, LENGTHS, make_results
from scipy import stats

from experiments import papers
from experiments.claims.published import load_published
from experiments.papers import clark2020_objectives, remake
from experiments.papers.overlay import DASHES, OURS
from experiments.report import draw_all
from experiments.speed.timings import load_timings
from extrap.config.compose import CONF, compose_grid
from extrap.config.scales import experiments, names
from extrap.errors import UserError
from extrap.files import write_atomic
from extrap.report.looks import LOOKS
from extrap.results.rows import as_csv, load_rows, load_training, save_rows
from extrap.results.shown import rounded

ROOT = Path(__file__).parents[1]
FIGURES = remake.paper_figures()
PUBLISHED = load_published()


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> Path:
    """Rows of everything, with timings of two rounds in which every cost is known."""
    folder = make_results(tmp_path_factory.mktemp("results"))
    (folder / "speed").mkdir()
    timings = load_timings(ROOT / "results" / "speed" / "timings.csv")
    training = timings[(timings["case"] == "training") & (timings["name"] == "extrap") & (timings["round"] < 2)]
    base = training[training["objective"] == "causal"]
    base = base[base["scheme"].isin(["nope", "rope", "alibi", "t5"]) & (base["round"] == 0)]
    cost = {"nope": 1.0, "rope": 1.5, "alibi": 1.25, "t5": 4.0}
    longer = [base.assign(case=case, n=n, value=base["scheme"].map(cost) * n)
              for case in ("evaluation", "memory") for n in (8192, 4096)]  # fmt: skip
    write_atomic(folder / "speed" / "timings.csv", as_csv(pd.concat([training, *longer])))
    (folder / "speed" / "provenance.yaml").write_text("command: made up\n")
    return folder


@pytest.fixture(scope="module")
def drawn(results) -> dict[str, tuple]:
    """Every figure and its points."""
    return {name: remake.draw(one, tables(results, one), PUBLISHED) for name, one in FIGURES.items()}


def tables(results: Path, one) -> list[pd.DataFrame]:
    return [remake.load(results / need, one.HOLDS) for need in one.NEEDS]


def log_ppl(rows: pd.DataFrame, **wanted: object) -> np.ndarray:
    """By seed, from the sums."""
    rows = rows[[*wanted, "seed", "nll_sum", "n_tokens"]]
    for column, value in wanted.items():
        rows = rows[rows[column] == value]
    assert len(rows), wanted
    return np.array([part["nll_sum"].sum() / part["n_tokens"].sum() for _, part in rows.groupby("seed")])


def interval(values: np.ndarray) -> list[float]:
    """Mean, and the ends of its 95 % t interval."""
    if np.ptp(values) == 0:
        return [float(values[0])] * 3
    return [values.mean(), *stats.t.interval(0.95, len(values) - 1, values.mean(), stats.sem(values))]


def ours(points: pd.DataFrame) -> pd.DataFrame:
    return points[points["source"] == OURS]


def shown(*values: float) -> list[float]:
    """With the digits that are drawn and written."""
    return rounded(pd.DataFrame({"value": [*map(float, values)]}))["value"].to_list()


def check(points: pd.DataFrame, expected_of, columns=("value", "low", "high")) -> None:
    assert len(points)
    for _, point in points.iterrows():
        assert point[list(columns)].to_list() == pytest.approx(shown(*expected_of(point)), rel=1e-9, nan_ok=True), dict(
            point
        )


# points are what rows say


def rows_of(results: Path, *names: str) -> pd.DataFrame:
    return pd.concat([load_rows(results / name / "rows.csv") for name in names])


@pytest.mark.parametrize("name", ["press2022_figure1", *slow("press2022_figure11", "veisi2025_table1")])
def test_our_ratios_are_paired_by_seed(name, results, drawn):
    rows = rows_of(results, *(need.partition("/")[0] for need in FIGURES[name].NEEDS))
    rows = rows[rows["extension"] == "none"]
    points = ours(drawn[name][1])

    def expected(point):
        cell = {key: point[key] for key in ("protocol", "scheme", "train_len")}
        far, near = (log_ppl(rows, eval_len=n, **cell) for n in (point["eval_len"], point["train_len"]))
        return np.exp(interval(far - near))

    check(points, expected)
    seen = rows[rows["scheme"].isin(points["scheme"]) & rows["protocol"].isin(points["protocol"])]
    assert set(points["train_len"]) == set(seen["train_len"])
    assert set(points["eval_len"]) == set(seen["eval_len"])


def test_intervals_of_unpaired_seeds_and_means_of_means_would_be_noticed(results, drawn):
    rows = rows_of(results, "causal_64", "causal").query("extension == 'none' and protocol == 'nonoverlap'")
    points = ours(drawn["press2022_figure1"][1]).query("scheme == 'rope' and eval_len > train_len")

    def cell(point, n):
        return rows.query(f"scheme == 'rope' and train_len == {point['train_len']} and eval_len == {n}")

    def unpaired(point):
        far, near = (log_ppl(cell(point, n)) for n in (point["eval_len"], point["train_len"]))
        half = stats.t.ppf(0.975, 4) * np.hypot(stats.sem(far), stats.sem(near))
        middle = far.mean() - near.mean()
        return np.exp([middle, middle - half, middle + half])

    def means_of_means(point):
        far, near = (
            cell(point, n).eval("ppl = nll_sum / n_tokens").groupby("seed")["ppl"].mean().to_numpy()
            for n in (point["eval_len"], point["train_len"])
        )
        return np.exp(interval(far - near))

    for wrong in (unpaired, means_of_means):
        with pytest.raises(AssertionError):
            check(points, wrong)


def test_alibi_stands_over_sinusoidal_of_the_same_training_length(results, drawn):
    rows = rows_of(results, "causal_32", "causal_64", "causal", "causal_256")
    rows = rows[(rows["extension"] == "none") & (rows["protocol"] == "nonoverlap")]
    points = ours(drawn["press2022_figure4"][1])

    def expected(point):
        length = point["alibi_train_len"]
        far = log_ppl(rows, scheme=point["scheme"], train_len=point["train_len"], eval_len=point["eval_len"])
        return np.exp(interval(far - log_ppl(rows, scheme="sinusoidal", train_len=length, eval_len=length)))

    check(points, expected)
    alibi = points[points["scheme"] == "alibi"]
    assert (alibi["train_len"] == alibi["alibi_train_len"]).all()
    sinusoidal = points[points["scheme"] == "sinusoidal"]
    assert (sinusoidal["train_len"] == sinusoidal["eval_len"]).all(), "read on what it was trained on"
    assert sorted(sinusoidal.loc[sinusoidal["alibi_train_len"] == 64, "eval_len"]) == [64, 128, 256]


@pytest.mark.slow
def test_loss_by_position_is_that_of_the_rows(results, drawn):
    rows = rows_of(results, "causal").query("protocol == 'position'")
    points = ours(drawn["chi2022_figure5"][1])

    def expected(point):
        loss = log_ppl(rows, **{key: point[key] for key in ("scheme", "extension", "eval_len")})
        if point["extension"] == "window":
            loss = loss - log_ppl(rows, scheme="alibi", extension="none", eval_len=point["eval_len"])
        return interval(loss)

    check(points, expected)
    assert len(points) == 4 * 2 * 17


@pytest.mark.slow
def test_losses_are_averaged_over_parts_of_the_training(results, drawn):
    points = drawn["su2021_figure3"][1]
    assert set(points["experiment"]) == {"main", "prose_mlm"}
    assert set(points["scheme"]) == {"rope", "learned"}

    def expected(point):
        rows = load_training(results / point["experiment"] / "training.csv").query(f"scheme == '{point['scheme']}'")
        rows = rows[(rows["step"] > point["step"] - 60) & (rows["step"] <= point["step"])]
        return interval(rows.groupby("seed")["loss"].mean().to_numpy())

    check(points, expected, ("loss", "low", "high"))
    assert points.groupby(["experiment", "scheme"])["step"].agg(list).map(tuple).nunique() == 1
    assert (points["tokens_a_step"] == 1024).all()


@pytest.mark.parametrize("name", ["press2022_figure1", *slow("press2022_figure11", "chi2022_figure5", "su2021_figure3")])
def test_an_own_scheme_is_drawn_beside_them(name, results, drawn):
    """Also where only one of the experiments has trained it; nothing else changes, and it looks like none of the others."""
    one, before = FIGURES[name], drawn[name][1]
    rows = pd.concat(tables(results, one))
    experiment, known = rows["experiment"].iloc[0], one.SCHEMES[-1]
    own = rows[(rows["experiment"] == experiment) & (rows["scheme"] == known)].assign(scheme="mine")
    figure, points = remake.draw(one, [rows, own], PUBLISHED)
    assert any(text.get_text() == "mine" for text in figure.findobj(Text))
    rest = points[points["scheme"] != "mine"].reset_index(drop=True)
    pd.testing.assert_frame_equal(rest, before[before["scheme"] != "mine"].reset_index(drop=True), check_exact=True)
    same = ours(before)[ours(before)["scheme"] == known]
    columns = [column for column in before if column not in ("scheme", "experiment", "data")]
    mine = points.loc[points["scheme"] == "mine", columns]
    assert len(mine)
    assert set(mine.itertuples(index=False, name=None)) <= set(same[columns].itertuples(index=False, name=None))
    lines = [line for axes in figure.axes for line in axes.get_lines() if len(line.get_xdata()) > 2]
    looks = {(line.get_color(), line.get_marker()) for line in lines if line.get_marker() != "None"}
    assert len(looks) == len({*before["scheme"], "mine"}) + (name == "press2022_figure11")  # ALiBi in grey


def test_nope_stands_over_schemes_with_positions_at_the_training_length(results, drawn):
    rows = rows_of(results, "main", "causal")
    rows = rows[(rows["protocol"] == "nonoverlap") & (rows["extension"] == "none") & (rows["eval_len"] == 128)]

    def expected(point):
        nope, other = (log_ppl(rows, objective=point["objective"], scheme=name) for name in ("nope", point["over"]))
        return np.exp(interval(nope - other))

    points = ours(drawn["haviv2022_table4"][1])
    check(points, expected)
    assert len(points) == 4


def test_costs_are_those_of_the_timings(results, drawn):
    timings = load_timings(results / "speed" / "timings.csv")
    steps = timings[(timings["case"] == "training") & (timings["objective"] == "causal")]
    seconds = steps.pivot(index="round", columns="scheme", values="value")
    points = ours(drawn["press2022_figure2"][1])
    for _, point in points[points["panel"] == "training speed"].iterrows():
        faster = (seconds["sinusoidal"] / seconds[point["scheme"]]).to_numpy()
        expected = [np.median(faster), faster.min(), faster.max()]
        assert point[["value", "low", "high"]].to_list() == pytest.approx(shown(*expected), rel=1e-9)
    others = points[points["panel"] != "training speed"].set_index(["panel", "scheme"])
    assert set(others["over"]) == {"nope"}, "sinusoidal ones were not measured there"
    assert set(others["n"]) == {4096}
    for scheme, cost in {"rope": 1.5, "alibi": 1.25, "t5": 4.0}.items():
        assert others.loc[("evaluation speed", scheme), "value"] == pytest.approx(*shown(1 / cost), rel=1e-9)
        assert others.loc[("memory", scheme), "value"] == pytest.approx(cost)


def test_randomized_positions_are_over_the_plain_ones_at_l(results, drawn):
    points, rows = drawn["ruoss2023_lengths"][1], rows_of(results, "zoo_mlm")
    assert len(points) == 5 * 6

    def expected(point):
        plain = "rope" if "rope" in point["scheme"] else "alibi"
        far = log_ppl(rows, scheme=point["scheme"], eval_len=point["eval_len"])
        return np.exp(interval(far - log_ppl(rows, scheme=plain, eval_len=128)))

    check(points, expected)


def test_what_each_objective_loses_is_over_its_own_loss_at_l(results, drawn):
    points = drawn["clark2020_objectives"][1]
    assert {*points["objective"]} == {"causal", "mlm", "rtd", "electra", "electra_generator"}
    for experiment, objective in (("rtd", "rtd"), ("electra", "electra_generator"), ("main", "mlm")):
        rows = load_rows(results / experiment / "rows.csv")
        rows = rows[(rows["protocol"] == "same_targets") & (rows["objective"] == objective) & (rows["scheme"] == "rope")]
        sums = rows.groupby(["seed", "eval_len"])[["nll_sum", "n_tokens"]].sum()
        loss = (sums["nll_sum"] / sums["n_tokens"]).unstack("seed")
        own = points[(points["objective"] == objective) & (points["scheme"] == "rope")].set_index("eval_len")
        assert own["loss"].to_numpy() == pytest.approx(loss.mean(axis=1).to_numpy(), rel=1e-5)
        assert own["value"].to_numpy() == pytest.approx((loss - loss.loc[128]).mean(axis=1).to_numpy(), abs=1e-5)
    told = clark2020_objectives.table(points)
    assert told.count("| ELECTRA, generator") == 5
    assert (
        f"{np.exp(points.set_index(['objective', 'scheme', 'eval_len']).loc[('mlm', 'alibi', 128), 'loss']):.2f} ±" in told
    )


def test_what_is_done_to_weights_is_over_them_as_trained_at_l(results, drawn):
    points = ours(drawn["su2023_extensions"][1])
    assert len(points) == 2 * (1 + len(EXTENSIONS))
    rows = {"causal": rows_of(results, "extend"), "mlm": rows_of(results, "extend_mlm")}

    def expected(point):
        of = rows[point["objective"]]
        far = log_ppl(of, protocol="nonoverlap", extension=point["extension"], eval_len=point["eval_len"])
        return np.exp(interval(far - log_ppl(of, protocol="nonoverlap", extension="none", eval_len=128)))

    check(points, expected)


def test_what_is_done_to_rope_by_length_begins_where_its_weights_do(results, drawn):
    points = ours(drawn["peng2023_lengths"][1])
    done = ("none", "pi", "ntk", "yarn", "window")
    assert len(points) == 2 * len(done) * 4
    rows = {"causal": rows_of(results, "extend"), "mlm": rows_of(results, "extend_mlm")}

    def expected(point):
        of = rows[point["objective"]]
        extension = point["extension"] if point["eval_len"] > 128 else "none"
        far = log_ppl(of, protocol="same_targets", extension=extension, eval_len=point["eval_len"])
        return np.exp(interval(far - log_ppl(of, protocol="same_targets", extension="none", eval_len=128)))

    check(points, expected)


def test_kernels_are_those_of_the_weights_the_flattest_head_first(drawn):
    points = drawn["chi2022_kernels"][1]
    assert len(points) == 3 * 3 * 2 * 14
    assert (points["rank"] == points["head"] + 1).all()
    expected = -(points["head"] + 1 + points["seed"] / 10) * np.log2(1 + points["x"] * 128)
    assert points["bias"].to_numpy() == pytest.approx(expected.to_numpy())


# what was published stands beside them


def printed(source: str, metric: str, *tables: str) -> dict[tuple, float]:
    """(scheme, train_len, eval_len) -> number, read line by line."""
    with (ROOT / "experiments" / "published.csv").open() as file:
        return {
            (line["scheme"], int(float(line["train_len"])), int(float(line["eval_len"]))): float(line["value"])
            for line in csv.DictReader(file)
            if line["source"] == source and line["metric"] == metric and line["table"] in tables
        }


@pytest.mark.parametrize(("name", "tables"), [("press2022_figure1", ["2", "3"]), ("press2022_figure11", ["13-15", "5"])])
def test_published_curves_are_the_csv_over_the_training_length(name, tables, drawn):
    points = drawn[name][1]
    seen = 0
    for table in tables:
        numbers = printed("press2022alibi", "ppl", table)
        for _, point in points[points["source"] == f"press2022alibi, table {table}"].iterrows():
            scheme, length = point["scheme"], point["train_len"]
            ratio = numbers[scheme, length, point["eval_len"]] / numbers[scheme, length, length]
            assert [point["value"], point["x"]] == pytest.approx(shown(ratio, point["eval_len"] / length), rel=1e-9)
            seen += 1
    assert seen == (points["source"] != OURS).sum() > 10
    if name == "press2022_figure1":
        assert seen == len(printed("press2022alibi", "ppl", "2")) + len(printed("press2022alibi", "ppl", "3"))


def test_published_alibi_stands_over_published_sinusoidal(drawn):
    numbers = printed("press2022alibi", "ppl", "5")
    points = drawn["press2022_figure4"][1]
    published = points[points["source"] != OURS]
    for _, point in published.iterrows():
        home = point["alibi_train_len"]
        value = numbers[point["scheme"], point["train_len"], point["eval_len"]] / numbers["sinusoidal", home, home]
        assert point["value"] == pytest.approx(*shown(value), rel=1e-9)
    assert sorted(set(published["alibi_train_len"])) == [64, 128, 256, 512]


def test_training_lengths_are_not_compared_on_other_text(results):
    one = FIGURES["press2022_figure4"]
    rows = pd.concat(tables(results, one), ignore_index=True)
    other = rows["document"].where(rows["experiment"] != "causal_256", "other " + rows["document"])
    with pytest.raises(UserError, match="scored other tokens"):
        remake.draw(one, [rows.assign(document=other)], PUBLISHED)


def test_published_costs_are_the_csv_over_sinusoidal(drawn):
    points = drawn["press2022_figure2"][1]
    metrics = {"training speed": "train_words_per_s", "evaluation speed": "eval_words_per_s", "memory": "train_memory_gb"}
    for _, point in points[points["source"] != OURS].iterrows():
        numbers = printed("press2022alibi", metrics[point["panel"]], "1")
        by_length = {n: numbers[point["scheme"], n, n] / numbers["sinusoidal", n, n] for n in (512, 1024, 3072)}
        expected = [by_length[1024], min(by_length.values()), max(by_length.values())]
        assert point[["value", "low", "high"]].to_list() == pytest.approx(shown(*expected), rel=1e-9)


def test_published_nope_is_the_csv_over_the_others(drawn):
    points = drawn["haviv2022_table4"][1]
    published = points[points["source"] != OURS].set_index("over")["value"]
    assert published[["sinusoidal", "learned"]].to_list() == pytest.approx(shown(147.18 / 4.07, 147.18 / 4.06), rel=1e-9)


# what is drawn


CURVES = ("press2022_figure1", "press2022_figure4", "press2022_figure11", "chi2022_figure5", "peng2023_lengths",
          "ruoss2023_lengths")  # fmt: skip


@pytest.mark.parametrize("name", CURVES)
def test_every_curve_is_points_and_every_point_is_drawn(name, drawn):
    figure, points = drawn[name]
    plotted = {
        (round(float(x), 9), round(float(y), 9), line.get_linestyle() == "-")
        for axes in figure.axes for line in axes.lines for x, y in zip(line.get_xdata(), line.get_ydata(), strict=True)
        if line.get_marker() not in ("None", "_", "|")
    }  # fmt: skip
    known = {(round(p["x"], 9), round(p["value"], 9), p["source"] == OURS) for _, p in points.iterrows()}
    assert plotted == known
    for axes in figure.axes:
        curves = [line for line in axes.lines if line.get_linestyle() == "-" and line.get_marker() not in ("None", "_", "|")]
        bands = [band for band in axes.collections if isinstance(band, PolyCollection)]
        assert len(bands) == sum(len(line.get_xdata()) > 1 for line in curves) > 0


@pytest.mark.parametrize("name", [name for name in FIGURES if name != "chi2022_kernels"])  # its lines are heads
def test_a_scheme_looks_the_same_everywhere_and_published_is_hollow(name, drawn):
    figure, points = drawn[name]
    known = {look["color"]: look["marker"] for look in LOOKS.values()}
    lines = [line for axes in figure.axes for line in axes.lines if line.get_marker() in known.values()]
    lines = [line for line in lines if line.get_color() in known]
    assert lines
    hollow = 0
    for line in lines:
        assert line.get_marker() == known[line.get_color()]
        if line.get_markerfacecolor() == "white":
            hollow += 1
            assert line.get_linestyle() in ("--", "None")
        else:
            assert line.get_linestyle() in ("-", "None")
    assert (hollow > 0) == (points["source"] != OURS).any()
    assert len(known) == len(LOOKS), "no two schemes share a colour"
    assert DASHES


@pytest.mark.parametrize("name", [*CURVES, "chi2022_kernels"])
def test_the_training_length_is_marked(name, drawn):
    for axes in drawn[name][0].axes:
        assert any(list(line.get_xdata()) == [1, 1] for line in axes.lines)
        assert "training length" in [text.get_text() for text in axes.texts]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["press2022_figure4", *slow(*(name for name in FIGURES if name != "press2022_figure4"))])
def test_axes_have_names_and_ticks(name, drawn):
    figure, _ = drawn[name]
    for axes in figure.axes:
        assert axes.get_xlabel()
        assert axes.get_title(loc="left")
        for axis in (axes.xaxis, axes.yaxis):
            assert 3 <= len(shown_ticks(axis)) <= 12, (axes.get_title(loc="left"), shown_ticks(axis))
    assert figure.axes[0].get_ylabel() or name in ("press2022_figure2", "haviv2022_table4")  # their lines have names


def shown_ticks(axis: Axis) -> list[Text]:
    low, high = sorted(axis.get_view_interval())
    axis.axes.figure.canvas.draw()
    return [tick.label1 for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["press2022_figure4", *slow(*(name for name in FIGURES if name != "press2022_figure4"))])
def test_text_stays_in_the_figure_and_apart(name, drawn):
    figure, _ = drawn[name]
    figure.canvas.draw()
    texts = list(figure.legends[0].get_texts())
    for axes in figure.axes:
        texts += [*axes.texts, axes.xaxis.label, axes.yaxis.label, axes._left_title]
        texts += [label for axis in (axes.xaxis, axes.yaxis) for label in shown_ticks(axis)]
    shown = [text for text in texts if text.get_visible() and text.get_text()]
    boxes = [(text.get_text(), Text.get_window_extent(text)) for text in shown]  # without the line from a name to its curve
    for text, box in boxes:
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1, text  # noqa: PT018
    for (one, a), (other, b) in combinations(boxes, 2):
        apart = a.x1 <= b.x0 + 1 or b.x1 <= a.x0 + 1 or a.y1 <= b.y0 + 1 or b.y1 <= a.y0 + 1
        assert apart, f"{one!r} lies on {other!r}"


# files


@pytest.mark.slow
def test_all_are_written_with_captions_that_tell_what_differs(results, tmp_path):
    folder = tmp_path / "results"
    shutil.copytree(results, folder)
    printed_lines = list(remake.draw_papers(folder))
    assert set(printed_lines) == {
        str(folder / "papers" / f"{name}.{suffix}") for name in FIGURES for suffix in ("png", "pdf", "svg", "csv", "md")
    }
    for name, one in FIGURES.items():
        caption = (folder / "papers" / f"{name}.md").read_text()
        assert "Expected: " in caption
        assert f"]({name}.png)" in caption
        for need in one.NEEDS:
            assert f"ours: {need.partition('/')[0]}" in caption
            if not need.endswith("timings.csv"):
                length = LENGTHS[need.partition("/")[0]]
                for part in (f"1,638,400 tokens: 1,600 steps of {1024 // length} x {length}", "6.9 million bytes",
                             "width 128", "| 3 "):  # fmt: skip
                    assert part in caption, part
            if need.endswith("rows.csv"):
                rows = load_rows(folder / need)
                for protocol in one.HOLDS["protocol"]:
                    part = rows[rows["protocol"] == protocol]
                    n, longest = len(part[["document", "segment"]].drop_duplicates()), part["eval_len"].max()
                    assert f"{n} held-out segments, in windows of up to {longest:,} tokens ({protocol})" in caption
        for fact in one.PAPER.values():
            assert fact in caption
        sources = set(pd.read_csv(folder / "papers" / f"{name}.csv")["source"]) - {OURS}
        assert all(f"from {source}" in caption for source in sources)
        assert ("published: none" in caption) == (not sources)
        assert "nan" not in caption
    before = {path.name: path.read_bytes() for path in (folder / "papers").iterdir()}
    list(remake.draw_papers(folder, "press2022_figure11"))
    assert {path.name: path.read_bytes() for path in (folder / "papers").iterdir()} == before, "the same bytes again"


@pytest.mark.slow
def test_what_a_caption_tells_is_read_from_the_provenance(results, tmp_path):
    folder = tmp_path / "results"
    shutil.copytree(results, folder)
    told = folder / "causal_64" / "provenance.yaml"
    told.write_text(told.read_text().replace("max_steps: 1600", "max_steps: 2000").replace("d_model: 128", "d_model: 96"))
    list(remake.draw_papers(folder, "press2022_figure1"))
    caption = (folder / "papers" / "press2022_figure1.md").read_text()
    assert "2,048,000 tokens: 2,000 steps of 16 x 64" in caption
    assert "width 96" in caption


def test_a_sweep_over_options_is_no_experiment_of_a_figure(results, tmp_path):
    """Whichever of its settings have rows: provenance is without what varies."""
    folder = shutil.copytree(results, tmp_path / "results")
    told = folder / "main" / "provenance.yaml"
    config = yaml.safe_load(told.read_text())
    del config["config"]["model"]["n_layers"]
    config["config"]["vary"] = ["model.n_layers"]
    told.write_text(yaml.safe_dump(config))
    with pytest.raises(UserError, match=r"main is of a sweep that varies model.n_layers; expected one in which no option"):
        remake.draw_papers(folder, "su2021_figure3")


def test_seeds_are_those_of_schemes(results):
    rows = load_rows(results / "main" / "rows.csv")
    trained = rows[rows["seed"] > 0]
    reference = rows[rows["seed"] == 0].assign(kind="unigram", scheme="unigram", run="reference")
    assert remake.facts_of(results / "main", pd.concat([trained, reference]), {})["seeds"] == str(rows["seed"].nunique() - 1)


@pytest.mark.parametrize("content", ["a,b\n1,2\n", "", "step,loss\n1,2\n"])
def test_a_bad_table_of_training_losses_is_told_in_a_line(results, tmp_path, content):
    shutil.copytree(results / "main", tmp_path / "main")
    shutil.copytree(results / "prose_mlm", tmp_path / "prose_mlm")
    (tmp_path / "main" / "training.csv").write_text(content)
    with pytest.raises(UserError, match=r"main/training\.csv is no table with the columns run, .*, loss, held_out_loss: .*"):
        list(remake.draw_papers(tmp_path, "su2021_figure3"))


@pytest.mark.slow
def test_missing_rows_are_told_in_a_line_and_are_no_error(results, tmp_path, capsys):
    folder = tmp_path / "results"
    shutil.copytree(results, folder)
    shutil.rmtree(folder / "causal_64")
    (folder / "speed" / "timings.csv").unlink()
    rows = load_rows(folder / "causal" / "rows.csv")
    save_rows(folder / "causal" / "rows.csv", rows[rows["protocol"] != "position"])
    lines = [line for line in remake.draw_papers(folder) if not line.startswith(str(folder))]
    assert len(lines) == 4
    for name in ("press2022_figure1", "press2022_figure4"):
        (line,) = (line for line in lines if f" {name}:" in line)
        assert "causal_64/rows.csv does not exist" in line
        assert "`make sweep EXPERIMENT=causal_64`" in line
    assert any("press2022_figure2" in line and "`make bench-all`" in line for line in lines)
    assert any("chi2022_figure5" in line and "holds no protocol position" in line for line in lines)
    assert not (folder / "papers" / "press2022_figure1.png").exists()
    assert (folder / "papers" / "haviv2022_table4.png").exists()


@pytest.mark.slow
def test_make_figures_draws_them_too(results, tmp_path, capsys):
    for name in ("main", "causal"):
        shutil.copytree(results / name, tmp_path / name)
    for path in tmp_path.glob("*/rows.csv"):
        rows = load_rows(path)
        save_rows(path, rows[(rows["protocol"] == "nonoverlap") & (rows["extension"] == "none")])
    draw_all(tmp_path)
    told = capsys.readouterr().out
    assert str(tmp_path / "papers" / "haviv2022_table4.md") in told
    assert "not drawn yet: press2022_figure1: " in told


@pytest.mark.slow
def test_a_larger_sibling_has_a_figure_of_its_own(results, tmp_path):
    folder = tmp_path / "results"
    for name in ("main", "causal"):
        shutil.copytree(results / name, folder / f"{name}_gpu")
    written = [line for line in remake.draw_papers(folder) if line.startswith(str(folder))]
    assert set(written) == {
        str(folder / "papers" / f"{name}_gpu.{suffix}")
        for name in ("chi2022_figure5", "haviv2022_table4") for suffix in ("png", "pdf", "svg", "csv", "md")
    }  # fmt: skip
    assert "make paper FIGURE=haviv2022_table4 SCALE=gpu" in (folder / "papers" / "haviv2022_table4_gpu.md").read_text()
    assert remake.needed_experiments("haviv2022_table4", "_gpu") == ["causal_gpu", "main_gpu"]


@pytest.mark.slow
def test_adding_a_figure_is_adding_a_file(results, tmp_path, monkeypatch):
    code = inspect.getsource(importlib.import_module("experiments.papers.haviv2022_table4"))
    (tmp_path / "somebody2030_figure9.py").write_text(code.replace("haviv2022_table4", "somebody2030_figure9"))
    monkeypatch.setattr(papers, "__path__", [*papers.__path__, str(tmp_path)])
    assert "somebody2030_figure9" in remake.paper_figures()
    folder = tmp_path / "results"
    for name in ("main", "causal"):
        shutil.copytree(results / name, folder / name)
    list(remake.draw_papers(folder, "somebody2030_figure9"))
    assert (folder / "papers" / "somebody2030_figure9.png").exists()


def test_an_unknown_figure_is_refused_with_a_hint():
    with pytest.raises(UserError, match="FIGURE=press2022_figur1: no such figure; did you mean press2022_figure1"):
        remake.chosen("press2022_figur1")


@pytest.mark.parametrize("name", FIGURES)
def test_a_file_opens_with_its_paper_its_picture_and_its_command(name):
    first, *paragraphs, command = inspect.getdoc(FIGURES[name]).split("\n\n")
    assert re.match(r"[A-Z]\w+ (et al\. )?20\d\d ", first)
    assert any(paragraph.startswith("Expected: ") for paragraph in paragraphs)
    assert command in (f"make paper FIGURE={name}", "make bench-all", "make kernels")


@pytest.mark.parametrize("name", ["press2022_figure4", *slow(*(name for name in FIGURES if name != "press2022_figure4"))])
def test_committed_figures_show_the_committed_rows(name, tmp_path):
    names = ("runs.csv", "rows.csv", "timings.csv", "training.csv", "kernels.csv", "provenance.yaml")
    for path in (path for name in names for path in (ROOT / "results").glob(f"*/{name}")):
        (tmp_path / path.parent.name).mkdir(exist_ok=True)
        shutil.copy(path, tmp_path / path.parent.name)
    list(remake.draw_papers(tmp_path, name))
    committed = [path for path in (ROOT / "results" / "papers").glob(f"{name}.*") if path.suffix != ".svg"]
    assert {path.name for path in committed} == {p.name for p in (tmp_path / "papers").glob("*") if p.suffix != ".svg"}
    for path in committed:
        again = tmp_path / "papers" / path.name
        if path.suffix == ".png":  # compression differs between processors, pictures do not
            assert (imread(path) == imread(again)).all(), f"make figures changes {path.name}"
        elif path.suffix != ".pdf":
            assert path.read_bytes() == again.read_bytes(), f"make figures changes {path.name}"


# experiments


def cell(name: str):
    return compose_grid([f"experiment={name}", "position=alibi", "seed=0"])[0]


@pytest.fixture
def corpora(monkeypatch):
    monkeypatch.setenv("EXTRAP_CORPORA", "somewhere")


@pytest.mark.slow
@pytest.mark.parametrize("scale", ["", *slow("_gpu")])
def test_what_figures_need_can_be_run(scale, corpora):
    for name in remake.needed_experiments(None, scale):
        assert name in experiments(CONF)
        assert cell(name).name == name


@pytest.mark.slow
@pytest.mark.parametrize("name", FIGURES)
def test_experiments_score_what_their_figure_shows(name, corpora):
    """A sweep that would end with a figure not drawn is noticed before it is run."""
    holds = FIGURES[name].HOLDS
    for scale in ("", "_gpu"):
        for experiment in remake.needed_experiments(name, scale):
            cells = compose_grid([f"experiment={experiment}"])
            assert {one.seed for one in cells} >= {0, 1, 2}
            assert {one.scheme for one in cells} >= set(holds.get("scheme", ()))
            scored = cells[0].eval
            protocols = {f"sliding(stride={scored.stride})" if p == "sliding" else p for p in scored.protocols}
            assert protocols >= set(holds.get("protocol", ()))
            assert set(scored.extensions) >= set(holds.get("extension", ()))


@pytest.mark.slow
def test_training_lengths_share_tokens_segments_and_lengths():
    cells = [cell(name) for name in ("causal_32", "causal_64", "causal", "causal_256")]
    assert len({(one.train.batch_size * one.train.train_len, one.train.max_steps) for one in cells}) == 1
    assert {max(one.eval.lengths) for one in cells} == {4096}, "so that segments are the same text"
    assert len({one.eval.n_segments for one in cells}) == 1
    for one in cells:
        assert {n for n in one.eval.lengths if n % one.train.train_len == 0} >= {
            one.train.train_len * 2**k for k in range(5)
        }
        assert one.eval.stride == one.train.train_len // 8


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[] if name == "stride1" else pytest.mark.slow) for name in names(CONF, "experiment")],
)
def test_an_experiment_at_a_larger_scale_keeps_its_proportions(name, corpora):
    grids = [compose_grid([f"experiment={one}", "seed=0"]) for one in (name, f"{name}_gpu")]
    small, large = grids[0][0], grids[1][0]
    assert (small.name, large.name) == (name, f"{name}_gpu")
    factor = large.train.train_len / small.train.train_len
    assert factor == 4
    assert [4 * n for n in small.eval.lengths] == large.eval.lengths
    assert [4 * n for n in small.eval.windows] == large.eval.windows
    assert large.train.batch_size == 8 * small.train.batch_size
    fixed = name == "stride1"  # what its figure is about
    assert large.eval.stride == (1 if fixed else factor * small.eval.stride)
    assert large.eval.n_segments == (4 if fixed else 12)
    assert large.eval.n_targets == 4 * small.eval.n_targets
    steps = small.train.max_steps if name == "budget" else 750  # what it is about
    assert (large.model.d_model, large.train.max_steps, large.train.lr) == (512, steps, small.train.lr)
    assert (large.model.output, large.objective, large.data) == (small.model.output, small.objective, small.data)
    assert [(one.scheme, one.seed) for one in grids[0]] == [(one.scheme, one.seed) for one in grids[1]]
