"""Extensions of finished weights in a report: each against the window and the scheme as trained."""

import pandas as pd
import pytest
from rows import scheme_rows

from extrap.report.extensions import MOST_IN_PANEL, extensions_figure, extensions_page, is_crowded
from extrap.report.report import write_report
from extrap.stats.extrapolates import extended
from extrap.stats.statistics import Statistics

SPREAD = (0.0, 0.001, 0.002)
AT_1024 = {"none": 2.0, "window": 1.3, "pi": 2.5, "ntk": 1.2, "yarn": 1.3005, "rerope": 1.1, "lambda": 1.4, "drop": 3.0}


def rows_of(extensions):
    parts = []
    for extension in extensions:
        noise = SPREAD[::-1] if extension == "yarn" else SPREAD
        curve = {128: [1.2 + one for one in SPREAD], 1024: [AT_1024[extension] + one for one in noise]}
        parts.append(scheme_rows("rope", curve, extension=extension, protocol="same_targets"))
    return pd.concat([*parts, scheme_rows("learned", {128: [1.5, 1.5, 1.5]}, protocol="same_targets")])


@pytest.fixture(scope="module")
def found():
    return Statistics(rows_of(AT_1024))


def test_each_is_compared_with_the_window_and_with_the_scheme_as_trained(found):
    lines = found.extended.set_index(["extension_a", "extension_b"])
    assert set(lines["eval_len"]) == {1024}
    assert set(lines["n_pairs"]) == {12}  # six extensions, two opponents
    assert lines.loc[("pi", "none"), ["verdict"]].item() == "b"
    assert lines.loc[("pi", "window"), ["verdict"]].item() == "b"
    assert lines.loc[("ntk", "window"), ["verdict"]].item() == "a"
    assert lines.loc[("yarn", "window"), ["verdict"]].item() == "undecided"
    assert lines.loc[("rerope", "none"), "difference"] == pytest.approx(-0.9)
    assert not {"none", "window"} & {*lines.index.get_level_values("extension_a")}


def test_without_extensions_nothing_is_compared():
    assert extended(rows_of(["none", "window"])).empty


def test_the_page_has_a_line_each_the_best_first(found):
    lines = [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in extensions_page(found).splitlines() if line[:1] == "|"
    ]
    assert [line[1] for line in lines[2:]] == ["rerope", "ntk", "window", "yarn", "lambda", "as trained", "pi", "drop"]
    told = {line[1]: line[2:] for line in lines[2:]}
    assert told["ntk"][1:] == ["**-0.100**", "**-0.800**"]
    assert told["yarn"][1] == "+0.001" or told["yarn"][1] == "+0.000"
    assert told["window"][1:] == ["–", "–"]
    assert told["pi"][0].endswith("(3.67)")


def test_an_extension_of_fewer_seeds_says_so():
    rows = rows_of(["none", "window", "ntk"])
    page = extensions_page(Statistics(rows[(rows["extension"] != "ntk") | (rows["seed"] < 2)]))
    (line,) = (line for line in page.splitlines() if " ntk " in line)
    assert "(1.00), 2 of 3 seeds |" in line
    assert page.count("of 3 seeds") == 1


def test_the_figure_has_them_in_the_same_order(found):
    (axes,) = extensions_figure(found).axes
    assert axes.get_title(loc="left") == "rope"
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == ["rerope", "ntk", "window", "yarn", "lambda", "as trained", "pi", "drop"]
    assert axes.get_xlabel() == "perplexity at 1,024 (8 L) / at L, same_targets"
    assert axes.yaxis_inverted()


def test_a_report_has_them_and_curves_only_where_they_can_be_told_apart(found, tmp_path, svg_alone):
    write_report(found, tmp_path)
    assert {path.name for path in tmp_path.glob("extensions*")} == {"extensions.md", "extensions.csv", "extensions.svg"}
    assert not list(tmp_path.glob("controls*"))
    few = Statistics(rows_of([*AT_1024][: MOST_IN_PANEL + 1]))
    assert is_crowded(found)
    assert not is_crowded(few)
