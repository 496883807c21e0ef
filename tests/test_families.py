"""More schemes than a panel can show: one yardstick, one line a scheme, a panel a family."""

import re

import numpy as np
import pandas as pd
import pytest
import yaml
from rows import both_protocols, scheme_rows

from extrap.config.compose import CONF
from extrap.report.answer import answer
from extrap.report.families import (
    COLOURS,
    FAMILIES,
    MARKERS,
    OTHERS,
    by_family,
    families_figure,
    family_of,
    looks_within,
    trade_off_figure,
)
from extrap.report.looks import LOOKS
from extrap.report.overview import overview_page
from extrap.report.report import write_report
from extrap.stats.pairs import MOST_PAIRED, pairs, yardstick
from extrap.stats.statistics import Statistics

PROTOCOLS = ("nonoverlap", "same_targets")
SEEDS = (0.0, 0.001, 0.002)


def by_length(at_start, rise, spread=SEEDS):
    return {n: [at_start + rise * i + one for one in spread] for i, n in enumerate((128, 512, 4096))}


SCHEMES = {
    "rope": by_length(1.3, 0.5),
    "alibi": by_length(1.4, 0.0),  # worse at L, and survives
    "fox": by_length(1.2, -0.01),  # better, and survives
    "t5": by_length(1.3, 0.1, (-0.02, 0.01, 0.01)),  # undecided
    "learned": {128: [1.5, 1.5, 1.5]},
    **{f"mine{i}": by_length(1.6 + 0.1 * i, 0.2) for i in range(8)},
}


@pytest.fixture(scope="module")
def many():
    found = Statistics(both_protocols(SCHEMES))
    assert len(SCHEMES) == MOST_PAIRED + 1
    return found


def test_families_are_of_schemes_of_the_project():
    specs = [yaml.safe_load(path.read_text()) for path in (CONF / "position").glob("*.yaml")]
    labels = {spec["_target_"].rpartition(".")[2].lower() for spec in specs if "_target_" in spec}
    assert {label for labels in FAMILIES.values() for label in labels} <= labels
    assert family_of("none_of_them") == OTHERS
    assert family_of("local(alibi, window=32)") == "windows and layers"
    assert len(FAMILIES) < len(COLOURS) == len(set(COLOURS)) == len(set(MARKERS))


def test_of_a_few_schemes_every_two_are_compared_of_many_each_with_one(many):
    few = both_protocols({key: SCHEMES[key] for key in [*SCHEMES][:MOST_PAIRED]})
    assert yardstick(few) is None
    assert len(pairs(few).query("eval_len == 128 and protocol == 'nonoverlap'")) == 11 * 10 / 2 + 11
    assert many.yardstick == "rope"
    at_start = many.pairs.query("eval_len == 128 and protocol == 'nonoverlap'")
    assert list(at_start["scheme_b"].unique()) == ["rope"]
    assert set(at_start["n_pairs"]) == {12}
    verdicts = at_start.set_index("scheme_a")["verdict"].to_dict()
    assert [verdicts[scheme] for scheme in ("fox", "alibi", "t5", "mine7")] == ["a", "b", "undecided", "b"]
    without = many.rows[many.rows["scheme"] != "rope"]
    assert yardstick(pd.concat([without, without.assign(scheme="zzz")])) == "alibi"


def test_groups_are_compared_each_in_its_own_way(many):
    """Many schemes of one objective beside a few of another."""
    few = both_protocols({key: SCHEMES[key] for key in ("alibi", "fox", "t5")}, objective="causal")
    found = Statistics(pd.concat([many.rows, few]))
    of_few = found.pairs[found.pairs["objective"] == "causal"]
    assert set(zip(of_few["scheme_a"], of_few["scheme_b"], strict=True)) == {
        ("alibi", "fox"),
        ("alibi", "t5"),
        ("fox", "t5"),
    }
    assert set(found.pairs.loc[found.pairs["objective"] == "mlm", "scheme_b"]) == {"rope"}
    assert overview_page(found).count("**Overview") == 1


def test_what_was_not_asked_and_what_is_not_compared_is_told(many):
    text = " ".join(answer(many).split())
    assert "extrapolates not asked: that takes same_targets" in text
    apart = many.rows.assign(seed=many.rows["seed"].where(many.rows["scheme"] != "rope", many.rows["seed"] + 10))
    text = " ".join(answer(Statistics(apart)).split())
    assert "none is compared: no other has a seed in common with rope" in text
    alone = many.rows[(many.rows["seed"] == 0) | (many.rows["scheme"] != "rope")]
    assert "0 better, 0 worse, 0 undecided, 12 one seed" in " ".join(answer(Statistics(alone)).split())
    of_two = many.rows["scheme"].isin(["fox", "t5"])
    some = many.rows.assign(seed=many.rows["seed"].where(~of_two, many.rows["seed"] + 10))
    told = " ".join(answer(Statistics(some)).split())
    assert "each of the others: 0 better, 10 worse, 0 undecided, 2 not compared, without a seed in common" in told
    single = Statistics(many.rows[many.rows["seed"] == 0])
    assert "One seed decides nothing" in overview_page(single)


def test_who_is_below_the_floor_leads_nobody():
    below = {**SCHEMES, "leaky": {128: [0.3] * 3, 512: [0.3] * 3, 4096: [0.3] * 3}}
    known = {"floor": ("floor", 1.0), "floor, last 128": ("window_floor", 1.0), "symbol counts": ("plateau", 3.0)}
    references = [
        scheme_rows(name, {n: [nll] for n in (128, 512, 4096)}, kind=kind, protocol=protocol)
        for name, (kind, nll) in known.items()
        for protocol in PROTOCOLS
    ]
    rows = pd.concat([both_protocols(below), *references]).assign(data="markov", objective="causal")
    found = Statistics(rows)
    text = " ".join(answer(found).split())
    assert "lowest is fox, perplexity 3.32, better than rope; compared with rope alone, each of the others: 1 better" in text
    assert "| leaky ‡" in overview_page(found)


def test_no_two_members_of_a_family_look_alike_and_known_ones_as_in_all_figures():
    looks = looks_within({"ours": [*LOOKS, *(f"alibi(variant={i})" for i in range(40))]})
    assert len({(look["color"], look["marker"]) for look in looks.values()}) == 40 + len(LOOKS)
    for scheme, known in LOOKS.items():
        assert looks[scheme, "none"].items() >= known.items()
    few = looks_within({"ours": ["alibi", "cpb", "fire"]})
    assert len({look["color"] for look in few.values()}) == 3


def test_each_scheme_has_one_line_under_its_family(many):
    text = overview_page(many)
    lines = {line.split("|")[1].strip(): line for line in text.splitlines() if line.startswith("|")}
    assert set(SCHEMES) <= set(lines)
    assert text.index("**absolute, or none**") < text.index("**rotary**") < text.index("**others**")
    assert [re.sub(" +", " ", lines[scheme]).split(" | ")[2] for scheme in ("fox", "alibi", "t5", "rope")] == [
        "-0.100 better", "+0.100 worse", "-0.001 undecided", "–",
    ]  # fmt: skip
    for scheme, word in (("rope", "breaks"), ("alibi", "survives"), ("learned", "ends")):
        assert f" {word} |" in lines[scheme]
    assert "after Holm over all 12 comparisons" in text


def test_the_answer_names_and_counts(many):
    text = " ".join(answer(many).split())
    assert (
        "lowest is fox, perplexity 3.32, better than rope; compared with rope alone, each of the others: "
        "1 better, 10 worse, 1 undecided" in text
    )
    assert "survives 2: fox, alibi" in text
    assert "ends 1: learned" in text
    assert max(map(len, answer(many).splitlines())) <= 100


def test_every_family_has_a_panel_and_every_scheme_a_name(many):
    figure, points = families_figure(many)
    panels = {axes.get_title(loc="left"): axes for axes in figure.axes if axes.get_visible()}
    assert list(panels) == ["absolute, or none", "rotary", "biases of the distance", "forgetting", "others"]
    assert set(points["scheme"]) == set(SCHEMES)
    assert set(points["protocol"]) == {"same_targets"}
    for title, schemes in by_family(list(SCHEMES)).items():
        named = [text.get_text() for text in panels[title].texts if text.get_text() != "training length"]
        assert sorted(named) == sorted(f"{one} (to 128)" if one == "learned" else one for one in schemes)
        coloured = [line for line in panels[title].lines if line.get_marker() != "None"]
        assert len({line.get_color() for line in coloured}) == len(schemes)


def test_the_trade_off_has_a_row_for_each_scheme_from_the_best_on(many):
    figure, points = trade_off_figure(many)
    at_start, beyond = figure.axes
    ordered = sorted(SCHEMES, key=lambda scheme: np.mean(SCHEMES[scheme][128]))
    assert [*points["scheme"]] == ordered
    names = [text.get_text() for text in at_start.get_yticklabels()]
    assert names == [f"{scheme} (to 128)" if scheme == "learned" else scheme for scheme in ordered]
    low, high = at_start.get_ylim()
    assert low > high  # the first row is on top
    assert beyond.get_xlabel() == "perplexity at 4,096 (32 L) / at L"
    told = points.set_index("scheme")
    assert told.loc["fox", "ratio"] == pytest.approx(0.980199, abs=1e-6)
    assert told["ratio"].isna().sum() == 1
    assert told["ratio"].isna()["learned"]
    for axes, value in zip(figure.axes, ("ppl", "ratio"), strict=True):
        marks = [line for line in axes.lines if line.get_marker() in MARKERS and line.get_clip_on()]
        shown = {row: (x, line.get_color()) for line in marks for x, row in zip(*line.get_data(), strict=True)}
        families = [*by_family(ordered)]
        assert [shown[row][1] for row in points.index] == [COLOURS[families.index(family_of(one))] for one in ordered]
        np.testing.assert_array_equal([shown[row][0] for row in points.index], points[value])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [*by_family(ordered)]


def test_a_bar_that_leaves_the_trade_off_ends_in_an_arrowhead():
    seeds_apart = {**SCHEMES, "cpb": by_length(1.3, 0.5, (-1, 0, 1))}
    figure, points = trade_off_figure(Statistics(both_protocols(seeds_apart)))
    (row,) = points.index[points["scheme"] == "cpb"]
    heads = [line for line in figure.axes[0].lines if not line.get_clip_on()]
    assert [(line.get_marker(), line.get_ydata()) for line in heads] == [("<", row), (">", row)]


@pytest.mark.slow
def test_a_report_of_many_schemes_draws_families_and_no_wall_of_curves(many, tmp_path, svg_alone):
    write_report(many, tmp_path)
    written = {path.name for path in tmp_path.iterdir()}
    assert {
        "overview.md",
        "families.svg",
        "families.csv",
        "trade_off.svg",
        "trade_off.csv",
        "table.md",
        "pairs.md",
    } <= written
    assert not {name for name in written if name.startswith(("perplexity", "pairs.svg", "controls"))}
