"""Figures: the same bytes for the same rows, the points that they show, labels that can be read."""

import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from marks import slow
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Annotation, Text
from matplotlib.transforms import Bbox
from rows import FLOOR, both_protocols, forced, many, scheme_rows, shuffled, with_floor

from extrap.config.compose import CONF
from extrap.report import figures
from extrap.report import pairs as pairs_report
from extrap.report.drawing import few_colours, save_drawing, save_figure, snapped
from extrap.report.families import trade_off_figure
from extrap.report.labels import spread
from extrap.report.looks import LOOKS, looks_of
from extrap.report.overview import overview_page
from extrap.report.report import report_again
from extrap.results.rows import load_rows, save_rows
from extrap.results.shown import rounded
from extrap.stats.extrapolates import extrapolates
from extrap.stats.pairs import pairs
from extrap.stats.statistics import Statistics


def of_rows(function):
    return lambda rows, *more, **how: function(Statistics(rows), *more, **how)


draw, perplexity_figure, floor_figure, position_figure, controls_figure, pairs_figure, pairs_table = map(
    of_rows,
    [
        figures.draw,
        figures.perplexity_figure,
        figures.floor_figure,
        figures.position_figure,
        figures.controls_figure,
        pairs_report.pairs_figure,
        pairs_report.pairs_table,
    ],
)

ROOT = Path(__file__).parents[1]
THREE = {
    "rope": {128: [1.6, 1.61], 256: [1.7, 1.75], 512: [2.5, 2.7]},
    "alibi": {128: [1.7, 1.72], 256: [1.69, 1.71], 512: [1.69, 1.7]},
    "learned": {128: [2.0, 2.1]},
}


SURE = {"rope": {128: [1.6, 1.601], 256: [1.6, 1.601]}, "alibi": {128: [1.7, 1.7012], 256: [1.601, 1.6]}}


def flat(n_schemes: int) -> dict[str, dict[int, list[float]]]:
    """Schemes that all end at the same place."""
    return {f"scheme-{i}": {128: [1.5, 1.5], 256: [1.5, 1.5], 512: [1.5, 1.5]} for i in range(n_schemes)}


# bytes


@pytest.mark.slow
def test_the_same_rows_give_the_same_bytes_in_another_process_and_under_other_settings(tmp_path):
    rows = with_floor(THREE)
    save_rows(tmp_path / "rows.csv", rows)
    fresh = (
        "import sys; from pathlib import Path; from extrap.report.figures import draw\n"
        "from extrap.results.rows import load_rows; from extrap.stats.statistics import Statistics\n"
        "draw(Statistics(load_rows(Path(sys.argv[1]))), Path(sys.argv[2])); assert 'torch' not in sys.modules"
    )
    for folder in ("here", "there", "again"):
        (tmp_path / folder).mkdir()
    command = [sys.executable, "-W", "error", "-c", fresh, str(tmp_path / "rows.csv"), str(tmp_path / "there")]
    there = subprocess.Popen(command, cwd=ROOT)
    draw(rows, tmp_path / "here")
    with mpl.rc_context(
        {"axes.facecolor": "red", "font.size": 20, "xtick.direction": "in", "axes.prop_cycle": "cycler(color='k')"}
    ):
        draw(rows, tmp_path / "again")  # somebody's own matplotlibrc
    assert there.wait(timeout=60) == 0
    shown = floor_figure(rows)[1].drop(columns="setting")  # of which there is one
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "here" / "floor.csv"), shown, check_dtype=False)
    pictures = {
        f"{name}.{suffix}"
        for name in ("perplexity", "perplexity_column", "floor", "pairs")
        for suffix in ("png", "pdf", "svg")
    }
    written = [*(tmp_path / "here").iterdir()]
    assert {path.name for path in written} == pictures | {"perplexity.csv", "floor.csv"}
    for path in written:
        content = path.read_bytes()
        assert content == (tmp_path / "there" / path.name).read_bytes(), path.name
        assert content == (tmp_path / "again" / path.name).read_bytes(), path.name
        for trace in (b"CreationDate", b"dc:date", str(tmp_path).encode()):
            assert trace not in content, (path.name, trace)


def nudged(rows: pd.DataFrame, draw_of: int) -> pd.DataFrame:
    """What another processor might have measured: every loss off by 1e-12 of itself, up or down."""
    signs = np.random.default_rng(draw_of).choice([-1, 1], len(rows))
    return rows.assign(nll_sum=rows["nll_sum"] * (1 + 1e-12 * signs))


@pytest.mark.parametrize("n_alike", [2, 13])
def test_who_is_the_same_is_ranked_alike_whatever_the_last_digits_say(n_alike):
    """Of thirteen and more schemes each is compared with one alone."""
    alike = {f"alike-{i}": {128: [1.5, 1.52], 512: [1.6, 1.63]} for i in range(n_alike)}
    rows = both_protocols({"rope": {128: [1.4, 1.41], 512: [1.9, 1.8]}} | alike)

    def told(draw_of: int) -> tuple[str, str, str]:
        found = Statistics(nudged(rows, draw_of))
        ranking = trade_off_figure(found)[1]["scheme"] if n_alike > 2 else []
        return pairs_report.pairs_table(found), overview_page(found) if n_alike > 2 else "", " ".join(ranking)

    first = told(1)
    assert all(told(draw_of) == first for draw_of in (2, 3))


TRACKED = sorted(path.parent.name for path in (ROOT / "results").glob("*/rows.csv"))


@pytest.mark.slow
@pytest.mark.parametrize("name", TRACKED)
def test_nothing_shown_hangs_on_the_last_digits_of_the_rows(name, tmp_path):
    rows = load_rows(ROOT / "results" / name / "rows.csv")
    for draw_of in range(2):
        folder = tmp_path / str(draw_of)
        folder.mkdir()
        save_rows(folder / "rows.csv", nudged(rows, draw_of) if draw_of else rows)
        written = report_again(folder)
    for path in written:
        assert path.read_bytes() == (tmp_path / "0" / path.name).read_bytes(), path.name


def test_coordinates_half_way_go_the_same_way_everywhere():
    half = np.array([0.0625, 12.5 / 8, 70.8395])
    for noise in (-1e-13, 1e-13):
        assert (snapped(half + noise) == snapped(half)).all()


def test_numbers_are_shown_with_six_digits_and_differences_of_nothing_are_nothing():
    table = pd.DataFrame(
        {"ppl": [1234567.8, 4.97786344], "difference": [-3e-13, -0.0123456789], "self_p_holm": [1.23456e-7, np.nan]}
    )
    found = rounded(table)
    assert found["ppl"].to_list() == [1234570, 4.97786]
    assert [*map(str, found["difference"])] == ["0.0", "-0.012346"]
    assert found["self_p_holm"][0] == 1.23e-7
    assert np.isnan(found["self_p_holm"][1])


@pytest.mark.usefixtures("svg_alone")
def test_without_a_floor_no_figure_of_it_is_drawn(tmp_path):
    draw(many(flat(1)), tmp_path)
    assert {path.stem for path in tmp_path.iterdir()} == {"perplexity", "perplexity_column"}


# points


def panels(figure: Figure) -> list[Axes]:
    figure.canvas.draw()
    return figure.axes


def curve_points(axes: Axes) -> list[list[tuple[float, float]]]:
    """Every curve as points; the line at the training length and error bars have no more than their two ends."""
    curves = [line for line in axes.lines if line.get_linestyle() != "None" and set(line.get_ydata()) != {0.0, 1.0}]
    return [list(zip(map(float, line.get_xdata()), map(float, line.get_ydata()), strict=True)) for line in curves]


@pytest.mark.parametrize(("figure_of", "middle"), [(perplexity_figure, "ppl"), (floor_figure, "excess")])
def test_the_points_are_what_is_plotted(figure_of, middle):
    figure, points = figure_of(shuffled(with_floor(THREE)))
    (axes,) = panels(figure)
    plotted = curve_points(axes)
    bands = [band.get_paths()[0].vertices for band in axes.collections if isinstance(band, PolyCollection)]
    n_bands = 0
    for name, line in points.groupby("scheme"):
        line = line.sort_values("eval_len")
        x = (line["eval_len"] / line["train_len"]).to_list()
        assert list(zip(x, line[middle].to_list(), strict=True)) in plotted, name
        if len(line) > 1 and (line["kind"] == "scheme").all():
            n_bands += 1
            edges = {(a, b) for c in points.columns[-2:] for a, b in zip(x, line[c].to_list(), strict=True)}
            assert any(edges <= set(map(tuple, band)) for band in bands), name
    assert n_bands == len(bands) == 2
    if middle == "ppl":
        a = points[(points["scheme"] == "rope") & (points["eval_len"] == 128)].iloc[0]
        assert a["ppl"] == pytest.approx(np.exp(1.605))
        assert (
            a["ppl_high"] / a["ppl"] == pytest.approx(a["ppl"] / a["ppl_low"]) == pytest.approx(np.exp(12.7062047 * 0.005))
        )
    else:
        a = points[(points["scheme"] == "rope") & (points["eval_len"] == 512)].iloc[0]
        assert a["excess"] == pytest.approx(1.4)
        assert (a["high"] - a["low"]) / 2 == pytest.approx(12.7062047 * 0.1)


def test_every_panel_shows_its_own_protocol_on_one_scale():
    rows = both_protocols(THREE)
    rows.loc[rows["protocol"] == "same_targets", "nll_sum"] *= 2
    figure, points = perplexity_figure(rows)
    axes = panels(figure)
    assert [a.get_title(loc="left").split(":")[0] for a in axes] == ["nonoverlap", "same_targets"]
    assert axes[0].get_ylim() == axes[1].get_ylim()
    for a, protocol in zip(axes, ("nonoverlap", "same_targets"), strict=True):
        rope = points[(points["protocol"] == protocol) & (points["scheme"] == "rope")]
        assert rope["ppl"].to_list() in [[y for _, y in curve] for curve in curve_points(a)]
        low, high = a.get_ylim()
        assert all(low <= y <= high for curve in curve_points(a) for _, y in curve)


@pytest.mark.slow
def test_a_scheme_looks_the_same_in_every_panel_and_unlike_any_other():
    figure, _ = perplexity_figure(both_protocols({**THREE, **flat(17)}))
    looks = [[look(line) for line in marked(axes)] for axes in panels(figure)]
    assert looks[0] == looks[1]
    assert len(set(looks[0])) == len(looks[0]) == 20


def marked(axes: Axes) -> list[Line2D]:
    """The curves of schemes; "_" ends an error bar."""
    return [line for line in axes.lines if line.get_marker() not in ("None", "", "_")]


def look(line: Line2D) -> tuple[object, ...]:
    return line.get_color(), line.get_marker(), line.get_linestyle()


@pytest.mark.slow
def test_panels_that_share_their_lengths_show_all_of_them():
    rows = both_protocols(THREE)
    fewer = rows[(rows["protocol"] != "same_targets") | (rows["eval_len"] < 512)]
    figure, points = perplexity_figure(fewer, column=True)
    assert points.groupby("protocol")["eval_len"].max().to_dict() == {"nonoverlap": 512, "same_targets": 256}
    assert [axes.get_xlim()[1] for axes in panels(figure)] == [4, 4]
    assert [axes.get_xlim()[1] for axes in panels(perplexity_figure(fewer)[0])] == [4, 2]


@pytest.mark.parametrize("figure_of", [controls_figure, *slow(perplexity_figure, floor_figure, position_figure)])
def test_a_scheme_looks_the_same_whoever_stands_beside_it(figure_of):
    nll = {128: [1.5, 1.6], 256: [1.7, 1.9], 512: [2.5, 2.7]}
    found = set()
    for others in ([], ["alibi"], ["a scheme of mine", "t5"], sorted(LOOKS)):
        rows = with_floor(dict.fromkeys([*others, "sinusoidal"], nll))
        rows = rows.assign(protocol="position") if figure_of is position_figure else rows
        window = scheme_rows("sinusoidal", nll, extension="window")
        figure, _ = figure_of(pd.concat([rows, window]) if figure_of is controls_figure else rows)
        lines = [line for axes in panels(figure) for line in marked(axes) if line.get_marker() == "s"]
        found.add(tuple(map(look, lines)))
    assert len(found) == 1
    assert look(lines[0]) == (LOOKS["sinusoidal"]["color"], LOOKS["sinusoidal"]["marker"], "-")


def test_schemes_that_nobody_has_heard_of_look_like_no_other():
    unknown = [f"scheme-{i}" for i in range(100)]
    for known in ([], ["rope", "alibi"], list(LOOKS)):
        looks = looks_of([*known, *unknown])
        assert looks == looks_of([*unknown[::-1], *known, *known])
        assert len({tuple(look.values()) for look in looks.values()}) == len(known) + len(unknown)
        assert all(looks[scheme] == LOOKS[scheme] | {"linestyle": "-"} for scheme in known)
    few = looks_of(["alibi", "mine", "yours"])
    assert len({look["color"] for look in few.values()}) == len({look["marker"] for look in few.values()}) == 3


def test_a_look_stays_when_others_join():
    """Colour by family, marker by member; two that come to the same look are a rare case of their own."""
    labels = ["mine", "yours", "fox", "cope", "rope(base=500)", "rope(base=1000)", "local(alibi)", "rerope"]
    alone = {label: looks_of([label])[label] for label in labels}
    assert len({tuple(look.values()) for look in alone.values()}) == len(labels)
    for others in (labels, [*LOOKS, *labels], labels[::2]):
        looks = looks_of(others)
        assert all(looks[label] == alone[label] for label in labels if label in looks)
    assert alone["rope(base=500)"]["color"] == alone["rope(base=1000)"]["color"] == LOOKS["rope"]["color"]
    assert alone["local(alibi)"]["color"] == LOOKS["local(rope)"]["color"]
    colours = {look["color"] for look in LOOKS.values()}
    assert not {alone[label]["color"] for label in ("mine", "yours", "fox", "cope", "rerope")} & colours


def test_looks_of_their_own_are_of_schemes_that_there_are():
    assert {scheme.partition("(")[0] for scheme in LOOKS} <= {path.stem for path in (CONF / "position").glob("*.yaml")}
    for part in ("color", "marker"):
        assert len({look[part] for look in LOOKS.values()}) == len(LOOKS)


def test_those_that_most_figures_show_differ_in_grey():
    light = []
    for scheme in ("alibi", "rope", "sinusoidal", "t5"):
        linear = (np.array(mpl.colors.to_rgb(LOOKS[scheme]["color"])) + 0.055) ** 2.4 / 1.055**2.4  # sRGB, near enough
        light.append(116 * np.cbrt(linear @ [0.2126, 0.7152, 0.0722]) - 16)  # CIE L*, 0 to 100
    assert np.diff(sorted(light)).min() > 10


@pytest.mark.slow
def test_axes_can_be_read():
    for nll in (THREE, flat(2)):  # over decades, and all but flat
        for axes in panels(perplexity_figure(many(nll))[0]):
            low, high = axes.get_ylim()
            ticks = [t for t in axes.get_yticklabels() if t.get_text() and low <= t.get_position()[1] <= high]
            assert len(ticks) >= 2
            assert [t.get_text() for t in axes.get_xticklabels()] == ["1", "2", "4"]


# labels


def annotations(axes: Axes) -> dict[str, Bbox]:
    texts = [text for text in axes.texts if isinstance(text, Annotation) and text.get_text() != "training length"]
    return {text.get_text(): Bbox(Text.get_window_extent(text)) for text in texts}  # without the line to it


@pytest.mark.parametrize("n_schemes", [12, *slow(2, 6, 9)])
def test_labels_do_not_overlap(n_schemes):
    figure, _ = perplexity_figure(both_protocols(flat(n_schemes)))
    for axes in panels(figure):
        boxes = annotations(axes)
        assert boxes.keys() == flat(n_schemes).keys()
        edges = sorted((box.y0, box.y1) for box in boxes.values())
        assert all(below[1] <= above[0] + 0.5 for below, above in pairwise(edges))
        for box in boxes.values():
            assert box.x0 >= axes.get_window_extent().x1
            assert box.x1 <= figure.bbox.x1
            assert 0 <= box.y0 <= box.y1 <= figure.bbox.y1


def test_labels_stand_in_the_order_of_their_lines():
    nll = {f"s{i}": {128: [1.0], 256: [1.0], 512: [1.0 + 0.3 * v]} for i, v in enumerate([3, 0, 4, 1, 2])}
    (axes,) = panels(perplexity_figure(many(nll))[0])
    heights = {name: box.y0 for name, box in annotations(axes).items()}
    assert sorted(heights, key=heights.get) == ["s1", "s3", "s4", "s0", "s2"]


def test_a_scheme_that_ends_says_so():
    (axes,) = panels(perplexity_figure(many(THREE))[0])
    assert set(annotations(axes)) == {"rope", "alibi", "learned (to 128)"}


@pytest.mark.parametrize("start", [1.6, 2.0, 2.5])
def test_the_name_of_a_scheme_that_ends_covers_no_curve(start):
    """However many start where it ends."""
    near = {f"s{i}": {128: [start + 0.05 * i], 256: [1.8 + 0.1 * i], 512: [2.0 + 0.2 * i]} for i in range(5)}
    (axes,) = panels(perplexity_figure(many({**near, "learned": {128: [start + 0.1]}}))[0])
    (name,) = (text for text in axes.texts if text.get_text() == "learned (to 128)")
    box = Text.get_window_extent(name)  # without the line to its point
    for line in axes.lines:
        path = line.get_transform().transform_path(line.get_path())
        assert not path.intersects_bbox(box, filled=False), line
    assert axes.get_window_extent().containsx(box.x0) and axes.get_window_extent().containsx(box.x1)  # noqa: PT018


# as many labels as there are schemes at most, at heights of any spread, on an axis that may be too short for them
HEIGHTS = st.lists(st.floats(-50, 300), min_size=1, max_size=25) | st.tuples(st.floats(0, 200), st.integers(1, 25)).map(
    lambda pair: [pair[0]] * pair[1]
)


@pytest.mark.slow
@settings(deadline=None, derandomize=True)
@given(wanted=HEIGHTS, room=st.floats(1.0, 3.0))
def test_spread_keeps_gap_order_and_bounds(wanted, room):
    gap, low = 9.0, 10.0
    high = low + room * gap * (len(wanted) - 1)
    places = spread(wanted, gap, low, high)
    order = np.argsort(wanted, kind="stable")
    assert len(places) == len(wanted)
    assert (np.diff(np.array(places)[order]) >= gap - 0.01).all()
    assert min(places) >= low - 0.01
    assert max(places) <= high + 0.01


@pytest.mark.slow
@settings(deadline=None, derandomize=True)
@given(wanted=HEIGHTS)
def test_spread_leaves_alone_what_has_room(wanted):
    apart = sorted(wanted)
    apart = [value + 20 * i for i, value in enumerate(apart)]
    assert spread(apart, 9.0, -1000.0, 2000.0) == pytest.approx(apart)


@settings(deadline=None, derandomize=True)
@given(wanted=HEIGHTS)
def test_spread_without_room_keeps_the_order(wanted):
    order = np.argsort(wanted, kind="stable")
    assert (np.diff(np.array(spread(wanted, 9.0, 0.0, 20.0))[order]) >= -1e-9).all()


# the early-token null, controls, positions


def everything() -> pd.DataFrame:
    """Schemes with controls under both protocols, sliding at the training length, and loss by position."""
    controls = {"rope": {128: [1.6, 1.61], 256: [1.59, 1.6], 512: [1.58, 1.59]}, "alibi": THREE["alibi"]}
    tile = {"learned": {128: [2.0, 2.1], 256: [2.2, 2.3], 512: [2.5, 2.6]}}
    sliding = {scheme: {128: by_length[128]} for scheme, by_length in THREE.items()}
    return pd.concat([
        both_protocols(THREE), both_protocols(controls, extension="window"), both_protocols(tile, extension="tile"),
        both_protocols({"learned": {128: [2.0, 2.1]}}, extension="window"),  # ends as the scheme does
        many(sliding, protocol="sliding(stride=32)"),
        many({**THREE, "rope": {64: [2.0, 2.0], **THREE["rope"]}}, protocol="position"),
        scheme_rows("unigram", {128: [3.0], 256: [3.0], 512: [3.0]}, kind="unigram"),
        scheme_rows("unigram", {128: [3.0], 256: [3.0], 512: [3.0]}, kind="unigram", protocol="same_targets"),
    ], ignore_index=True)  # fmt: skip


@pytest.mark.slow
@pytest.mark.usefixtures("svg_alone")
def test_everything_is_drawn_once(tmp_path):
    draw(everything(), tmp_path)
    assert {path.stem for path in tmp_path.iterdir()} == {
        "perplexity",
        "perplexity_column",
        "controls",
        "position",
        "pairs",
    }


def test_the_perplexity_figure_has_schemes_as_trained_and_no_panel_of_one_length():
    figure, points = perplexity_figure(everything())
    assert [a.get_title(loc="left").split(":")[0] for a in panels(figure)] == ["nonoverlap", "same_targets"]
    assert set(points["extension"]) == {"none"}
    for axes in panels(figure):
        assert set(annotations(axes)) == {"rope", "alibi", "learned (to 128)", "unigram"}


def dotted(axes: Axes) -> dict[str, list[tuple[float, float]]]:
    """By colour, the points of lines without a mark."""
    lines = [line for line in axes.lines if line.get_marker() == "None" and len(line.get_xdata()) > 2]
    return {line.get_color(): list(zip(line.get_xdata(), line.get_ydata(), strict=True)) for line in lines}


def test_the_null_is_dotted_in_the_colour_of_its_scheme_where_text_is_cut():
    figure, points = perplexity_figure(everything().query("kind == 'scheme'"))
    cut, same = panels(figure)
    assert not dotted(same)
    colours = {line.get_color(): line for line in marked(cut) if len(line.get_xdata()) > 1}
    assert set(dotted(cut)) == set(colours)
    for colour, null in dotted(cut).items():
        (scheme,) = (
            name for name, part in points[points["protocol"] == "nonoverlap"].groupby("scheme")
            if part["ppl"].to_list() == list(colours[colour].get_ydata())
        )  # fmt: skip
        shown = points[(points["scheme"] == scheme) & (points["protocol"] == "nonoverlap")]
        assert shown["null"].to_list() == [y for _, y in null]
        assert shown["null"].iloc[0] == pytest.approx(shown["ppl"].iloc[0])  # at the training length
    assert "dotted: " in figure._suptitle.get_text()


def test_a_null_of_other_tokens_is_not_drawn():
    figure, points = perplexity_figure(both_protocols(THREE))
    assert points["null"].isna().all()
    assert not any(dotted(axes) for axes in panels(figure))
    assert "dotted" not in figure._suptitle.get_text()


def test_controls_stand_beside_their_scheme_in_a_panel_of_its_own():
    figure, points = controls_figure(everything())
    assert set(points["protocol"]) == {"same_targets"}
    shown = {axes.get_title(loc="left"): axes for axes in panels(figure)}
    assert set(shown) == {"rope", "alibi", "learned"}
    assert set(annotations(shown["rope"])) == {"as trained", "window"}
    assert set(annotations(shown["learned"])) == {"as trained (to 128)", "tile"}
    for scheme, axes in shown.items():
        lines = marked(axes)
        assert len({line.get_color() for line in lines}) == 1
        assert len({line.get_linestyle() for line in lines}) == len(lines) == 2
        ppl = points[points["scheme"] == scheme].groupby("extension")["ppl"].apply(list)
        assert sorted(map(list, (line.get_ydata() for line in lines))) == sorted(ppl)
        low, high = axes.get_ylim()
        ticks = [t for t in axes.get_yticklabels() if t.get_text() and low <= t.get_position()[1] <= high]
        assert len(ticks) >= 2, scheme


def test_a_thousandth_is_no_cliff():
    flat = {"a": {128: [1.5], 256: [1.5001], 512: [1.501]}}
    rows = pd.concat([many(flat), many({"a": {128: [1.5], 256: [1.5], 512: [1.5]}}, extension="window")])
    for figure_of in (controls_figure, perplexity_figure):
        low, high = panels(figure_of(rows)[0])[0].get_ylim()
        assert high / low >= 1.2 - 1e-9


@pytest.mark.slow
def test_the_title_names_the_experiment_and_what_is_dotted():
    rows = everything().assign(experiment="tied")
    for figure_of in (perplexity_figure, controls_figure):
        assert figure_of(rows)[0]._suptitle.get_text().startswith("tied: ")
    assert "no use of context beyond L, the training length" in " ".join(
        perplexity_figure(rows)[0]._suptitle.get_text().split()
    )


@pytest.mark.parametrize("figure_of", [figures.perplexity_figure, *slow(figures.controls_figure)])
def test_a_title_tells_how_many_parameters_models_have(figure_of):
    rows = everything()
    sizes = rows.loc[rows["kind"] == "scheme", ["run"]].drop_duplicates().assign(parameters=432_100.0)
    figure, _ = figure_of(Statistics(rows, costs=sizes))
    assert " (0.432 M parameters): " in " ".join(figure._suptitle.get_text().split())
    sizes.iloc[0, 1] = np.nan
    figure, _ = figure_of(Statistics(rows, costs=sizes))
    assert "parameters" not in figure._suptitle.get_text(), "where one is not known"


@pytest.mark.usefixtures("svg_alone")
@pytest.mark.parametrize("figure_of", [perplexity_figure, *slow(controls_figure)])
def test_titles_stand_above_the_panels(figure_of, tmp_path):
    figure, points = figure_of(everything())
    save_figure(figure, points, tmp_path / "figure")
    title = figure._suptitle.get_window_extent()
    assert title.x1 <= figure.bbox.x1
    assert all(title.y0 >= axes._left_title.get_window_extent().y1 for axes in panels(figure) if axes.get_visible())


@pytest.mark.slow
def test_a_column_of_a_paper_holds_all_that_the_wide_figure_shows(tmp_path):
    rows = everything()
    wide, _ = perplexity_figure(rows)
    narrow, _ = perplexity_figure(rows, column=True)
    save_drawing(narrow, tmp_path / "column")
    assert narrow.get_figwidth() == pytest.approx(3.3)
    for one, other in zip(panels(wide), panels(narrow), strict=True):
        assert [line.get_xydata().tolist() for line in one.get_lines()] == [
            line.get_xydata().tolist() for line in other.get_lines()
        ]
        inside = [other._left_title, *other.texts, other.yaxis.label]
        assert all(text.get_window_extent().x1 <= narrow.bbox.x1 for text in inside)
    assert narrow._suptitle.get_window_extent().x1 <= narrow.bbox.x1
    above, below = panels(narrow)
    assert above._left_title.get_window_extent().y1 <= narrow._suptitle.get_window_extent().y0
    assert below._left_title.get_window_extent().y1 <= above.get_window_extent().y0


def test_without_the_same_targets_controls_are_those_of_what_there_is():
    rows = everything().query("protocol == 'nonoverlap'")
    assert set(controls_figure(rows)[1]["protocol"]) == {"nonoverlap"}


def test_loss_by_position_is_drawn_in_nats():
    rows = everything().query("protocol == 'position'")
    figure, points = position_figure(rows)
    (axes,) = panels(figure)
    rope = points[points["scheme"] == "rope"].sort_values("eval_len")
    assert rope["log_ppl"].to_list() == pytest.approx([2.0, 1.605, 1.725, 2.6])
    assert [(n / 128, y) for n, y in zip(rope["eval_len"], rope["log_ppl"], strict=True)] in curve_points(axes)
    assert [t.get_text() for t in axes.get_xticklabels()] == ["1/2", "1", "2", "4"]
    assert rope["high"].iloc[1] == round(1.605 + 12.7062047 * 0.005, 5)


@pytest.mark.parametrize(("objective", "what"), [("mlm", "nearer end"), ("causal", "read")])
def test_the_position_of_a_token_in_an_encoder_is_not_what_it_reads(objective, what):
    rows = everything().query("protocol == 'position'").assign(objective=objective)
    (axes,) = panels(position_figure(rows)[0])
    assert [what in text for text in (axes.get_title("left"), axes.get_xlabel())] == [True, True]
    assert ("read" in axes.get_title("left") + axes.get_xlabel()) == (objective == "causal")


@pytest.mark.parametrize(
    ("lengths", "told"),
    [
        ((128, 166, 180, 256, 460, 512, 896, 1024), ["1", "2", "4", "8"]),
        ((128, 192, 400, 520), ["1", "1.5", "4.06"]),  # 3.12 has no room
        ((100, 128, 140), ["0.78", "1", "1.09"]),
        ((128,), ["1"]),
    ],
)
def test_ticks_of_lengths_near_each_other_do_not_overlap(lengths, told):
    (axes,) = panels(perplexity_figure(many({"a": {n: [1.0, 1.1] for n in lengths}}))[0])
    shown = sorted(axes.get_xticklabels(), key=lambda tick: tick.get_position()[0])
    assert [tick.get_text() for tick in shown] == told
    boxes = [tick.get_window_extent() for tick in shown]
    assert all(one.x1 < other.x0 for one, other in pairwise(boxes))


# pairs


def five() -> pd.DataFrame:
    """d beats c beats ... by 0.1 nats at 128; at 1,024 a is better than all and all else is noise. Ten documents of two."""
    noise = np.array([0.0, 0.001, -0.001])
    nll = {
        name: {
            128: list(1 + 0.1 * (4 - i) + i * noise),
            256: [1.0, 1.0, 1.0],
            512: list(1 + 0.1 * i + i * noise),
            1024: [1.0, 1.0, 1.0] if name == "a" else list(2 + i * 0.01 + np.roll([0.0, 0.5, -0.5], i)),
        }
        for i, name in enumerate("abcde")
    }
    rows = [many(nll).assign(document=lambda rows, d=d: rows["document"] + f"-{d}") for d in range(10)]
    return pd.concat(rows, ignore_index=True)


def matrix(axes: Axes) -> dict[tuple[str, str], tuple[str, tuple[float, ...]]]:
    """(row, column) -> what stands there, and the colour of the cell."""
    columns = [t.get_text() for t in axes.get_xticklabels()]
    rows = [t.get_text() for t in axes.get_yticklabels()]
    colours = {(int(p.get_y()), int(p.get_x())): p.get_facecolor() for p in axes.patches}
    found = {(int(t.get_position()[1]), int(t.get_position()[0])): t.get_text() for t in axes.texts}
    return {(rows[i], columns[j]): (text, colours[i, j]) for (i, j), text in found.items()}


def is_grey(colour: tuple[float, ...]) -> bool:
    return len(set(colour[:3])) == 1


def test_the_matrix_shows_who_beats_whom():
    rows = shuffled(five())
    points, figure = pairs(rows), pairs_figure(rows)
    shown = {axes.get_title(loc="left"): matrix(axes) for axes in panels(figure)}
    assert list(shown) == ["nonoverlap, 128 (L)", "nonoverlap, 512 (4 L)", "nonoverlap, 1,024 (8 L)"]
    at_l, at_4, far = shown.values()
    assert at_l.keys() == {(a, b) for a in "abcde" for b in "abcde" if a > b}  # the better stands before the worse
    assert at_4.keys() == {(a, b) for a in "abcde" for b in "abcde" if a < b}
    assert {pair: text for pair, (text, _) in at_l.items()} == {(a, b): f"{0.1 * (ord(a) - ord(b)):.2f}" for a, b in at_l}
    for table, eval_len in ((at_l, 128), (at_4, 512), (far, 1024)):
        verdicts = points[points["eval_len"] == eval_len].set_index(["scheme_a", "scheme_b"])["verdict"]
        for pair, (_, colour) in table.items():
            verdict = verdicts.get(pair) or verdicts[pair[::-1]]
            assert is_grey(colour) == (verdict == "undecided"), (eval_len, pair)
    assert not any(is_grey(colour) for _, colour in at_l.values())
    assert any(is_grey(colour) for _, colour in far.values())


@pytest.mark.slow
def test_the_stronger_is_the_darker_and_can_be_read():
    figure = pairs_figure(five())
    axes = panels(figure)[0]
    cells = sorted((float(text), sum(colour[:3])) for text, colour in matrix(axes).values())
    assert cells[0][1] > cells[-1][1]
    renderer = figure.canvas.get_renderer()
    for axes in figure.axes:
        for text, cell in zip(axes.texts, axes.patches, strict=True):
            assert text.get_window_extent(renderer).width < cell.get_window_extent(renderer).width


@pytest.mark.parametrize("n_schemes", [2, *slow(3, 7)])
@pytest.mark.parametrize("lengths", [(128,), (128, 512, 4096)])
def test_however_few_are_compared_titles_fit(n_schemes, lengths):
    """Warnings are errors: none of axes without room either."""
    schemes = {f"scheme {i}": {n: [1.0 + i, 1.1 + i] for n in lengths} for i in range(n_schemes)}
    figure = pairs_figure(many(schemes, protocol="same_targets", objective="causal"))
    figure.canvas.draw()
    renderer = figure.canvas.get_renderer()
    boxes = [axes._left_title.get_window_extent(renderer) for axes in panels(figure)]
    titles = list(boxes)
    boxes.append(figure._suptitle.get_window_extent(renderer))
    for box in boxes:
        assert box.x0 >= 0
        assert box.x1 <= figure.bbox.width
        assert box.y1 <= figure.bbox.height
    assert all(left.x1 < right.x0 for left, right in pairwise(titles))
    assert all(axes.patches[0].get_window_extent(renderer).width > 0.25 * figure.dpi for axes in panels(figure))


@pytest.mark.usefixtures("svg_alone")
@pytest.mark.parametrize(("n_schemes", "n_seeds", "drawn"), [(3, 2, True), *slow((3, 1, False), (2, 2, False))])
def test_pairs_are_drawn_where_a_picture_says_more_than_a_line(tmp_path, n_schemes, n_seeds, drawn):
    rows = many({f"s{i}": {128: [1.0 + 0.1 * i + 0.01 * s for s in range(n_seeds)]} for i in range(n_schemes)})
    save_rows(tmp_path / "rows.csv", rows)
    names = {path.name for path in report_again(tmp_path)}
    assert {"pairs.csv", "pairs.md"} <= names
    assert ("pairs.svg" in names) == drawn
    assert ("One seed decides nothing" in (tmp_path / "pairs.md").read_text()) == (n_seeds == 1)


def test_the_table_of_pairs_says_the_same():
    points = pairs(five())
    text = pairs_table(five())
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("| ")]
    head, *body = lines
    assert head == ["length", "better", "worse", "by", "over seeds", "over text", "p (Holm)", "verdict", "seeds needed"]
    assert len(body) == 30
    assert body[0][:4] == ["128", "e", "d", "0.100"]
    decided = points[points["eval_len"].isin([128, 512, 1024])]["verdict"] != "undecided"
    assert sum(line[7].startswith("**decided**") for line in body) == decided.sum()
    for line in body:
        low, high = map(float, line[4].split(" to "))
        assert low <= float(line[3]) <= high
    assert "extrapolates" not in text


@pytest.mark.slow
def test_the_table_of_pairs_opens_with_who_extrapolates():
    schemes = five().assign(protocol="same_targets")
    window = schemes.assign(extension="window")
    window.loc[window["eval_len"] > 128, "nll_sum"] *= 1 + 0.1 * (1 + 0.01 * window["seed"])
    rows = pd.concat([schemes, window])
    text = pairs_table(rows)
    table = text[text.index("| scheme") :].split("\n\n")[0].splitlines()
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table]
    assert cells[0] == ["scheme", "length", "to its window", "to itself at L", "its window to L", "verdict", "seeds needed"]
    told = extrapolates(rows).sort_values(["scheme", "eval_len"])
    words = [word if word == "undecided" else f"**{word}**" for word in told["verdict"]]
    assert [line[5] for line in cells[2:]] == words
    assert [line[1] for line in cells[2:5]] == ["256", "512", "1,024"]
    for line, of in zip(cells[2:], told.itertuples(), strict=True):
        assert line[2].startswith(f"{of.difference:+.3f} ±")
        assert line[3].startswith(f"{of.self_difference:+.3f}")
        assert line[4].startswith(f"{of.control_difference:+.3f} ±")
    assert "**control breaks**" in words
    by_seeds_alone = pairs_report.pairs_table(forced(Statistics(rows), extrapolates=extrapolates(rows).assign(unit="none")))
    assert by_seeds_alone.count("** on this text") == len(words) - words.count("undecided")
    assert "in an encoder at L/2 on either side" in " ".join(text.split())


@pytest.mark.slow
def test_who_is_below_the_floor_is_told_beside_what_is_decided():
    leak = {n: [nll - 1.0, nll - 1.001] for n, (nll, *_) in FLOOR.items()}
    text = pairs_table(with_floor({"leak": leak, "fair": {n: [nll + 0.1, nll + 0.101] for n, (nll, *_) in FLOOR.items()}}))
    assert re.search(r"\| *leak ‡ \|", text)
    assert "fair ‡" not in text
    assert "‡: below the floor" in text
    assert "‡" not in pairs_table(five())


@pytest.mark.slow
def test_the_table_says_which_text_its_intervals_are_about():
    """Two documents in a segment each: the seeds alone; in eight: their parts; eight documents: others like them."""
    assert pairs(both_protocols(SURE))["text_low"].isna().all()
    text = pairs_table(both_protocols(SURE))
    body = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("| ")]
    told = {(line[5], line[7]) for line in body if line[0] != "length"}
    assert told <= {("", "undecided"), ("", "**decided** on this text")}
    assert ("", "**decided** on this text") in told
    assert "Verdicts rest on the seeds alone and hold for this text" in " ".join(text.split())
    assert "2 seeds, 2 documents**" in text

    def spread(**columns: object) -> str:
        parts = [points_of.assign(**{name: of(i) for name, of in columns.items()}) for i in range(4)]
        rows = pd.concat(parts, ignore_index=True)
        return " ".join(pairs_table(rows).split())

    points_of = both_protocols(SURE)
    parts = spread(segment=lambda i: i)
    assert "other parts of these 2 documents" in parts
    assert "the 8 segments that were scored" in parts
    assert "2 seeds, 8 segments of 2 documents**" in parts
    others = spread(document=lambda i: points_of["document"] + f"-{i}")
    assert "other documents like the 8 that were scored" in others
    assert "2 seeds, 8 documents**" in others


# what else may come; warnings are errors


ODD = {
    "one seed": many({"a": {128: [1.0], 256: [2.0]}, "b": {128: [1.0], 256: [1.0]}}),
    "only what ends": many({"learned": {128: [1.0, 1.1]}}),
    "only what ends, one seed": many({"learned": {128: [1.0]}}),
    "one scheme beside one that ends": many({"learned": {128: [1.0, 1.1]}, "a": {128: [1.0, 1.1], 256: [1.0, 1.2]}}),
    "lengths below the training length": many({"a": {32: [2.0, 2.1], 128: [1.0, 1.1], 256: [1.0, 1.2]}}),
    "twenty schemes": many(flat(20)),
    "huge": many({"a": {128: [1.0, 1.1], 256: [90.0, 91.0]}, "b": {128: [1.0, 1.1], 256: [1.0, 1.2]}}),
    "no difference at all": many(flat(1)),
    "a name as long as they come": many(
        {"local(randomized(rope(base=500000.0), max_len=2048), window=64)": {128: [1.0, 1.1], 256: [1.0, 1.1]}}
    ),
    "signs": many(
        {name: {128: [1.0, 1.1], 256: [1.0, 1.1]} for name in ("$x^", r"$\foo$", "a_b", "{}", "50%", "<b>", "é – ±")}
    ),
}


@pytest.mark.parametrize("case", ["one seed", *slow(*(case for case in ODD if case != "one seed"))])
def test_odd_rows_are_drawn_without_a_warning(case):
    figure, points = perplexity_figure(ODD[case])
    (axes,) = panels(figure)
    assert np.isfinite(axes.get_ylim()).all()
    assert len(points) == len(ODD[case].drop_duplicates(["scheme", "eval_len"]))
    assert axes.get_window_extent().width > 0.3 * figure.bbox.width  # names do not push the curves aside
    shown = {"".join(re.sub(r" \(to .*\)", "", name).split()) for name in annotations(axes)}  # on more lines than one, maybe
    assert shown == {"".join(name.split()) for name in ODD[case]["scheme"]}


def test_one_seed_has_no_band():
    figure, points = perplexity_figure(ODD["one seed"])
    assert points[["ppl_low", "ppl_high"]].isna().all(axis=None)
    for axes in panels(figure):
        for band in (c for c in axes.collections if isinstance(c, PolyCollection)):
            assert not any(np.isfinite(path.vertices).all() and len(path.vertices) > 3 for path in band.get_paths())


def test_one_seed_has_a_floor_without_a_band():
    figure, points = floor_figure(with_floor({"a": {128: [1.5], 256: [1.5]}}))
    panels(figure)
    assert points["excess"].to_list() == pytest.approx([0.1, 0.2])
    assert points[["low", "high"]].isna().all(axis=None)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "$x^2$\n<b>&amp;",
        *slow(
            "two\nlines", "two\r\nlines", "$x^2$", "$", "位置", "x" * 300, "\u202eturned", "👩\u200d👧", "שלום", "<b>&amp;"
        ),
    ],
)
def test_any_name_is_drawn_without_a_warning(tmp_path, name):
    nll = {128: [1.5, 1.51], 256: [1.4, 1.42], 512: [1.3, 1.32]}
    rows = pd.concat(
        [
            many({name: nll, f"{name}, tied": nll, f"{name} ends": {128: [1.6, 1.7]}}),
            scheme_rows(name, nll, extension="window"),
        ]
    )
    draw(rows, tmp_path)
    save_figure(pairs_figure(rows), pairs(rows), tmp_path / "pairs")
    width = float(re.search(r'width="([\d.]+)pt"', (tmp_path / "perplexity.svg").read_text())[1])
    assert width < 72 * 20


def test_a_picture_of_few_colours_keeps_lines_and_areas_as_they_are_and_no_shade_is_far_off():
    rng = np.random.default_rng(0)
    areas = rng.integers(0, 256, (50, 3), dtype=np.uint8)
    shades = rng.integers(0, 256, (1_000, 3), dtype=np.uint8)
    pixels = np.concatenate([areas.repeat(200, axis=0), shades])[rng.permutation(11_000)].reshape(110, 100, 3)
    palette, nearest = few_colours(pixels)
    assert (palette.shape, palette.dtype, nearest.shape, nearest.dtype) == ((128, 3), np.uint8, (110, 100), np.uint8)
    shown = palette[nearest]
    assert (shown == pixels).all(axis=2).sum() >= 10_000  # the areas
    away = np.sqrt(((shown.astype(int) - pixels) ** 2).sum(axis=2))
    among = np.sqrt(((pixels.reshape(-1, 1, 3) - palette.astype(int)) ** 2).sum(axis=2)).min(axis=1)
    assert (away.ravel() == among).all()  # each pixel has the nearest there is
    by_frequency = np.unique(pixels.reshape(-1, 3), axis=0, return_counts=True)
    most = by_frequency[0][np.argsort(-by_frequency[1], kind="stable")[:128]].astype(int)
    assert away.max() < 0.8 * np.sqrt(((pixels.reshape(-1, 1, 3) - most) ** 2).sum(axis=2)).min(axis=1).max()


def test_a_picture_of_fewer_colours_than_a_palette_has_is_exact():
    pixels = np.arange(100, dtype=np.uint8).reshape(10, 10, 1).repeat(3, axis=2)
    palette, nearest = few_colours(pixels)
    assert len(palette) == 100
    assert (palette[nearest] == pixels).all()
    assert (few_colours(np.full((2, 3, 3), 7, dtype=np.uint8))[1] == 0).all()
