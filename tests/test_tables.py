"""Tables show the numbers that their rows hold, whatever the schemes are called."""

import re
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rows import both_protocols, forced, many, scheme_rows, shuffled, with_floor

from extrap.report import tables
from extrap.report.typesetting import NONE, interval, number
from extrap.results.rows import load_rows, save_rows
from extrap.stats.floor import BELOW
from extrap.stats.perplexity import CONDITION, perplexity
from extrap.stats.statistics import Statistics

# log-perplexities over two seeds; t(0.975, 1) = 12.7062, so a difference of 0.02 between seeds is a half width of 0.127062
HALF = 12.706204736 * 0.01
TWO_SEEDS = {
    "rope": {128: [np.log(5) - 0.01, np.log(5) + 0.01], 256: [np.log(6) - 0.01, np.log(6) + 0.01]},
    "alibi": {128: [np.log(8)] * 2, 256: [np.log(7.9)] * 2},
    "learned": {128: [np.log(1234.5)] * 2},
}

Table = list[list[str]]


def decided(rows: pd.DataFrame) -> pd.DataFrame:
    """The lines of `pairs` as tables read them, as if each difference was beyond all noise."""
    trained = perplexity(
        rows[(rows["kind"] == "scheme") & (rows["extension"] == "none")], [*CONDITION, "eval_len", "scheme"]
    )
    lines = [
        dict(zip([*CONDITION, "eval_len"], key, strict=True))
        | {"scheme_a": a.scheme, "scheme_b": b.scheme, "verdict": "a" if a.log_ppl < b.log_ppl - 1e-9 else "undecided"}
        | dict.fromkeys(("difference", "low", "high", "text_low", "text_high"), a.log_ppl - b.log_ppl)
        for key, cell in trained.sort_values("log_ppl").groupby([*CONDITION, "eval_len"], sort=False)
        for a, b in combinations(cell.itertuples(), 2)
    ]
    return pd.DataFrame(lines)


def csv_table(rows: pd.DataFrame) -> pd.DataFrame:
    return tables.csv_table(forced(Statistics(rows), pairs=decided(rows)))


def markdown_table(rows: pd.DataFrame, **missing: pd.DataFrame) -> str:
    return tables.markdown_table(forced(Statistics(rows, **missing), pairs=decided(rows)))


def markdown_blocks(text: str) -> list[Table]:
    """Every table as cells, split as GitHub splits them: at pipes without a backslash before them, one row a line."""
    lines = re.split(r"\r\n|\r|\n", text)
    rows = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines if line.startswith("|")]
    blocks: list[Table] = []
    for i, row in enumerate(rows):
        if i + 1 < len(rows) and all(re.fullmatch(":?-+:?", cell) for cell in rows[i + 1]):
            blocks.append([row])
        elif not all(re.fullmatch(":?-+:?", cell) for cell in row):
            blocks[-1].append(row)
    return blocks


# numbers


def test_markdown_numbers_by_hand():
    (table,) = markdown_blocks(markdown_table(many(TWO_SEEDS)))
    percent = f"{100 * (np.exp(HALF) - 1):.0f}"
    assert percent == "14"
    bits = [f"{np.log2(ppl):.3f}" for ppl in (5, 8, 1234.5)]
    assert table == [
        ["scheme", "128", "256", "blow-up", "bits", "tokens"],
        ["rope", "**5.00** ±14% (1.00)", "**6.00** ±14% (1.20)", "128 to 256", bits[0], "100"],
        ["alibi", "8.00 ±0.0% (1.00)", "7.90 ±0.0% (0.99)", "none", bits[1], "100"],
        ["learned", "1,234 ±0.0% (1.00)", NONE, "ends at 128", bits[2], "100"],
    ]
    assert NONE == "–"


def test_csv_holds_everything_unrounded():
    rows = with_floor({"rope": {128: [1.5, 1.6], 512: [1.4, 1.6]}})
    table = csv_table(rows).set_index(["scheme", "eval_len"])
    assert table.loc[("rope", 128), "ppl"] == np.exp(table.loc[("rope", 128), "log_ppl"])
    assert table.loc[("rope", 128), "log_ppl"] == pytest.approx(1.55, rel=1e-14)
    assert table.loc[("rope", 512), "ratio"] == pytest.approx(np.exp(-0.05), rel=1e-13)
    assert table.loc[("rope", 512), "excess"] == pytest.approx(0.3, rel=1e-13)
    assert table.loc[("rope", 512), "gained"] == pytest.approx(0.25, rel=1e-12)
    assert table.loc[("floor", 512), "log_ppl"] == pytest.approx(1.2)
    assert np.isnan(table.loc[("floor", 512), "excess"])
    assert len(table) == 2 + 9
    assert not table.index.has_duplicates


def test_the_floor_table_by_hand():
    rows = with_floor({"uses": {128: [1.5] * 2, 256: [1.4] * 2, 512: [1.3, 1.32]}, "ends": {128: [1.54, 1.56]}})
    for made in (rows, shuffled(rows, seed=1), shuffled(rows, seed=2)):  # the order of rows is no matter
        plain = markdown_blocks(markdown_table(made))[1]
        assert plain[0] == ["scheme", "128", "256", "512", "learned at L", "gained", "verdict"]
        half = f"{12.706204736 * 0.01:.3f}"
        lines = {row[0]: row[1:] for row in plain[1:]}
        assert lines["uses"] == ["0.100 ±0.000", "0.100 ±0.000", f"0.110 ±{half}", "80 %", "95 %", "uses more context"]
        assert lines["ends"] == [f"0.150 ±{half}", NONE, NONE, "70 %", NONE, "ends"]
        assert lines.keys() == {"uses", "ends"}


def test_what_breaks_over_a_floor_does_so_by_its_whole_interval():
    """As everywhere else: a mean above the limit alone is unclear."""
    spread = {"breaks": [2.0, 2.01], "unclear": [1.5, 1.8], "survives": [1.5, 1.51]}
    found = Statistics(
        with_floor({scheme: {128: [1.5, 1.51], 256: [1.5, 1.51], 512: far} for scheme, far in spread.items()})
    )
    assert found.floor.drop_duplicates("scheme").set_index("scheme")["verdict"].to_dict() == {one: one for one in spread}


def test_a_loss_that_is_no_number_breaks_over_a_floor_too():
    levels = {128: [1.5, 1.51], 256: [1.5], 512: [1.3, 1.31]}
    lost = absent("a", 1, 256, "not a number") | {"data": "markov", "objective": "causal"}
    found = Statistics(with_floor({"a": levels}), pd.DataFrame([lost]))
    assert set(found.floor["verdict"]) == {"breaks"}
    assert set(Statistics(with_floor({"a": levels})).floor["verdict"]) == {"uses more context"}


def test_reasons_of_several_seeds_all_stand_in_a_cell():
    missing = pd.DataFrame([absent("learned", 0, 256, "out of memory"), absent("learned", 1, 256, "not a number")])
    (table,) = markdown_blocks(markdown_table(many(TWO_SEEDS), missing=missing))
    assert table[-1][2] == "not a number and out of memory"


def test_references_have_no_blow_up_and_no_interval():
    table = markdown_blocks(markdown_table(with_floor({"a": {128: [1.5, 1.6], 256: [1.4, 1.5], 512: [1.4, 1.5]}})))[0]
    lines = {row[0]: row[1:] for row in table}
    assert lines["floor"] == ["4.06 (1.00)", "3.67 (0.90)", "3.32 (0.82)", "", "2.020", "100"]
    assert lines["floor, last 128"][0] == "4.06 (1.00)"


def test_one_seed_shows_no_interval():
    rows = many({"a": {128: [1.0], 256: [2.0]}, "b": {128: [3.0], 256: [3.0]}})
    (table,) = markdown_blocks(tables.markdown_table(Statistics(rows)))
    assert table[1][1:4] == ["2.72 (1.00)", "7.39 (2.72)", "128 to 256"]
    assert "**" not in "".join(cell for row in table for cell in row)
    assert ", 1 seed**" in markdown_table(many({"a": {128: [1.0]}}))


def test_a_single_undecided_pair_takes_the_bold_away():
    rows = many({"a": {128: [1.0, 1.01]}, "b": {128: [2.0, 2.01]}, "c": {128: [2.5, 2.51]}})
    assert csv_table(rows).query("best")["scheme"].to_list() == ["a"]
    compared = decided(rows)
    for i, line in compared.iterrows():
        told = compared.assign(verdict=compared["verdict"].where(compared.index != i, "undecided"))
        is_of_a = "a" in (line["scheme_a"], line["scheme_b"])
        found = forced(Statistics(rows), pairs=told)
        assert tables.csv_table(found)["best"].any() != is_of_a, "what others leave open is no matter"
        assert ("**2.7" in tables.markdown_table(found)) != is_of_a


def test_controls_and_references_are_never_bold_and_stand_in_nobody_s_way():
    rows = pd.concat([with_floor({"a": {128: [1.5, 1.51], 256: [1.6, 1.61]}, "b": {128: [1.8, 1.82], 256: [1.8, 1.82]}}),
                      scheme_rows("a", {128: [1.5, 1.51], 256: [1.45, 1.46]}, extension="window", data="markov",
                                  objective="causal")])  # fmt: skip
    best = csv_table(rows).query("best")
    assert best[["scheme", "extension", "eval_len"]].to_numpy().tolist() == [["a", "none", 128], ["a", "none", 256]]


def test_who_is_below_the_floor_is_told_and_never_bold():
    rows = with_floor({"leak": {n: [0.4, 0.41] for n in (128, 256, 512)}, "b": {n: [1.5, 1.51] for n in (128, 256, 512)}})
    table = csv_table(rows)
    assert not table["best"].any()
    assert set(table.loc[table["scheme"] == "leak", "verdict"]) == {BELOW}
    perplexities, floor = markdown_blocks(markdown_table(rows))
    assert not any("**" in cell for row in perplexities for cell in row)
    assert {row[0]: row[-1] for row in floor[1:]} == {"leak": BELOW, "b": "survives"}


def test_what_has_learned_next_to_nothing_is_marked():
    nll = {"flat": {128: [3.0, 2.9], 256: [3.0, 2.9]}, "learns": {128: [2.9, 2.92], 256: [2.9, 2.92]}}
    rows = pd.concat([many(nll), scheme_rows("unigram", {128: [3.0], 256: [3.0]}, kind="unigram"),
                      scheme_rows("flat", nll["flat"], extension="window")])  # fmt: skip
    trained, controls = markdown_blocks(markdown_table(rows))
    assert [row[0] for row in trained[1:]] == ["flat", "learns", "unigram"], "2.95 is 5 % below 3.0"
    rows.loc[rows["scheme"] == "flat", "nll_sum"] *= 2.96 / 2.95
    trained, controls = markdown_blocks(markdown_table(rows))
    assert [row[0] for row in trained[1:]] == ["flat †", "learns", "unigram"]
    assert [row[0] for row in controls[1:]] == ["flat + window †"]
    assert "†: at L not 5 % better than the frequencies" in markdown_table(rows)
    assert "†" not in markdown_table(many(nll)), "without a reference nothing is said"


def test_bold_stands_where_a_scheme_is_best_and_nowhere_else():
    rows = both_protocols({"a": {128: [1.0, 1.01], 256: [3.0, 3.02]}, "b": {128: [2.0, 2.03], 256: [2.0, 2.01]}})
    best = csv_table(rows).set_index(["protocol", "scheme", "eval_len"])["best"]
    for protocol, table in zip(("nonoverlap", "same_targets"), markdown_blocks(markdown_table(rows)), strict=True):
        for scheme, at_128, at_256, *_ in table[1:]:
            assert ("**" in at_128, "**" in at_256) == (best[protocol, scheme, 128], best[protocol, scheme, 256])
    assert best.sum() == 4


@pytest.mark.parametrize(
    ("half", "expected"),
    [
        (np.nan, ""),
        (np.log(1.014), " ±1.4%"),
        (np.log(1.14), " ±14%"),
        (np.log(1.999), " ±100%"),
        (np.log(7.53), " (5.23 to 297)"),
        (np.log(2.001), " (19.7 to 78.8)"),
        (800.0, " (0 to inf)"),
        (np.log(1e7), " (3.94e-06 to 3.94e+08)"),
    ],
)
def test_intervals_above_100_percent_are_bounds(half, expected):
    with np.errstate(over="ignore"):
        assert interval(39.4, 39.4 * np.exp(-half), 39.4 * np.exp(half)) == expected


def test_what_is_too_large_for_a_number_has_no_interval():
    assert number(np.inf) + interval(np.inf, np.inf, np.inf) == "inf"
    assert interval(0.0, 0.0, 0.0) == " (0 to 0)"


@pytest.mark.parametrize(
    ("objective", "data", "unit"),
    [("mlm", "stdlib", "masked byte"), ("causal", "text", "byte"), ("causal", "markov", "symbol"),
     ("mlm", "markov", "masked symbol")],
)  # fmt: skip
def test_bits_are_per_what_is_predicted(objective, data, unit):
    text = markdown_table(many(TWO_SEEDS, objective=objective, data=data))
    assert f"Bits: per {unit} at L." in text
    assert "bits per byte" not in text


def test_objectives_and_protocols_never_share_a_table():
    rows = pd.concat([both_protocols(TWO_SEEDS), both_protocols(TWO_SEEDS, objective="causal", data="markov")])
    text = markdown_table(rows)
    assert len(markdown_blocks(text)) == 4
    titles = re.findall(r"^\*\*(.*)\*\*$", text, flags=re.MULTILINE)
    assert titles == [
        f"{protocol}: perplexity by length, {objective} on {data}, training length 128, 2 seeds"
        for objective, data in (("mlm", "stdlib"), ("causal", "markov"))
        for protocol in ("nonoverlap", "same_targets")
    ]


def test_bits_per_byte_are_those_at_the_training_length():
    (table,) = markdown_blocks(markdown_table(many({"a": {32: [3.0], 128: [1.0], 256: [2.0]}})))
    assert table[1][-2] == f"{1 / np.log(2):.3f}"


def test_an_extension_is_part_of_the_name():
    rows = pd.concat(
        [scheme_rows("rope", {128: [1.0], 256: [2.0]}), scheme_rows("rope", {128: [1.0], 256: [1.0]}, extension="ntk")]
    )
    trained, controls = markdown_blocks(markdown_table(rows))
    assert [row[:3] for row in trained[1:]] == [["rope", "2.72 (1.00)", "7.39 (2.72)"]]
    assert [row[:3] for row in controls[1:]] == [["rope + ntk", "2.72 (1.00)", "2.72 (1.00)"]]


def with_null() -> pd.DataFrame:
    """Segments of 4,096: e^2 at 128, e^1.8 with full context, at 512 on average 0.1 above the null, at 4,096 there."""
    null = {512: (2 + 3 * 1.8) / 4, 4096: (128 * 2 + 3968 * 1.8) / 4096}
    a = {128: [2.0, 2.0], 512: [null[512] + 0.09, null[512] + 0.11], 4096: [null[4096]] * 2}
    full = {128: [(128 * 2 + 3968 * 1.8) / 4096] * 2}
    window = {128: [2.0, 2.0], 512: [null[512]] * 2, 4096: [null[4096]] * 2}
    ends = {"ends": {128: [2.5, 2.5]}}
    return pd.concat([
        many({"a": a} | ends), scheme_rows("a", window, extension="window"),
        scheme_rows("ends", ends["ends"], extension="window"),
        many({"a": full} | ends, protocol="sliding(stride=32)"),
        scheme_rows("a", full, protocol="sliding(stride=32)", extension="window"),
    ], ignore_index=True)  # fmt: skip


def test_the_excess_table_by_hand():
    excess = markdown_blocks(markdown_table(with_null()))[2]
    percent = f"{100 * np.expm1(HALF):.0f}"
    assert excess == [
        ["scheme", "512", "4,096"],
        ["a", f"{np.exp(0.1):.3f} ±{percent}%", "1.000 ±0.0%"],
        ["a + window", "1.000 ±0.0%", "1.000 ±0.0%"],
    ]
    assert "excess over the early-token null" in markdown_table(with_null())
    line = (
        csv_table(with_null()).set_index(["protocol", "scheme", "extension", "eval_len"]).loc["nonoverlap", "a", "none", 512]
    )
    assert line["null_excess"] == pytest.approx(np.exp(0.1))
    assert line["null_excess_low"] == pytest.approx(np.exp(0.1 - HALF))
    assert line["null"] == pytest.approx(np.exp(1.85))
    assert line["full_context"] == "sliding(stride=32)"


def test_what_was_scored_at_one_length_has_a_small_table():
    sliding = markdown_blocks(markdown_table(with_null()))[3]
    assert sliding[0] == ["scheme", "128", "bits", "tokens"]
    assert [row[0] for row in sliding[1:]] == ["a", "ends"], "a control is a copy there"


def test_notes_say_what_a_window_and_a_stride_are():
    text = " ".join(markdown_table(with_null()).split())
    assert "the last L tokens in every layer, in an encoder to L/2 on either" in text
    assert "at least L - S + 1 tokens" in text


def test_controls_that_are_nothing_but_copies_are_left_out():
    controls = markdown_blocks(markdown_table(with_null()))[1]
    assert [row[0] for row in controls[1:]] == ["a + window"]


def test_a_null_of_other_tokens_stands_in_the_csv_alone():
    rows = with_null().replace({"protocol": {"sliding(stride=32)": "same_targets"}})
    assert len(markdown_blocks(markdown_table(rows))) == 3
    assert "early-token null" not in markdown_table(rows)
    assert set(csv_table(rows)["full_context"].dropna()) == {"same_targets"}


def test_floor_and_null_stand_side_by_side():
    null = with_null().query("extension == 'none'")
    floors = [scheme_rows(kind, {n: [value] for n in (128, 512, 4096)}, kind=kind) for kind, value in
              (("floor", 1.0), ("window_floor", 1.1), ("plateau", 3.0))]  # fmt: skip
    table = (
        csv_table(pd.concat([null, *floors]))
        .query("scheme == 'a' and eval_len == 4096 and protocol == 'nonoverlap'")
        .iloc[0]
    )
    assert table["excess"] == pytest.approx(table["log_ppl"] - 1.0)
    assert table["null_excess"] == pytest.approx(1.0)


def test_loss_by_position_is_no_table():
    rows = pd.concat([with_null(), many({"a": {128: [1.0, 1.0], 4096: [2.0, 2.0]}}, protocol="position")])
    assert markdown_table(rows) == markdown_table(with_null())
    assert "position" not in set(csv_table(rows)["protocol"])


def test_byte_frequencies_are_a_line_and_no_floor():
    rows = pd.concat([many(TWO_SEEDS), scheme_rows("unigram", {128: [3.0], 256: [3.0]}, kind="unigram")])
    (table,) = markdown_blocks(markdown_table(rows))
    assert table[-1][:4] == ["unigram", "20.1 (1.00)", "20.1 (1.00)", ""]
    assert "Floor" not in markdown_table(rows)


@pytest.mark.slow
def test_of_many_lengths_people_see_doublings_and_the_longest_and_the_csv_all():
    nll = {n: [1.0] for n in (96, 128, 166, 180, 256, 460, 512, 800, 900)} | {180: [1.2]}
    rows = many({"a": nll, "b": nll})
    (table,) = markdown_blocks(markdown_table(rows))
    assert table[0][1:6] == ["128", "256", "512", "900", "blow-up"]
    assert table[1][5] == "166 to 180", "of all lengths"
    assert sorted(csv_table(rows)["eval_len"].unique()) == sorted(nll)
    assert "only doublings of L and the longest are shown; table.csv has all" in " ".join(markdown_table(rows).split())


def test_few_lengths_are_shown_whatever_they_are():
    nll = {n: [1.0] for n in (20, 30, 45, 90, 100, 110)}
    rows = many({"a": nll, "b": nll}, train_len=30)
    assert markdown_blocks(markdown_table(rows))[0][0][1:8] == ["20", "30", "45", "90", "100", "110", "blow-up"]
    assert "table.csv" not in markdown_table(rows)
    eight = many({"a": nll | {60: [1.0], 120: [1.0]}}, train_len=30)
    assert len(markdown_blocks(markdown_table(eight))[0][0]) == 1 + 8 + 3


def test_the_same_lengths_stand_in_all_tables_of_a_condition():
    """The null begins beyond the training length, so it has fewer."""
    rows = with_null()
    longest = rows[(rows["protocol"] == "nonoverlap") & (rows["eval_len"] == 4096)]
    more = pd.concat([longest.assign(eval_len=n) for n in (300, 400, 600, 700, 800, 900)])
    perplexity, controls, excess, *_ = markdown_blocks(markdown_table(pd.concat([rows, more])))
    assert perplexity[0][1:4] == controls[0][1:4] == ["128", "512", "4,096"]
    assert excess[0][1:] == ["512", "4,096"]


def test_lengths_stand_in_order():
    rows = many({"a": {1024: [3.0], 128: [1.0], 4096: [4.0], 256: [2.0]}})
    (table,) = markdown_blocks(markdown_table(rows))
    assert table[0][1:5] == ["128", "256", "1,024", "4,096"]
    assert [cell.split()[0] for cell in table[1][1:5]] == ["2.72", "7.39", "20.1", "54.6"]


@settings(deadline=None, derandomize=True)
@given(st.floats(1e-4, 999.4))
@example(9.996)
@example(99.96)
@example(0.9996)
@example(1.0)
@example(100.0)
def test_numbers_have_three_significant_digits(value):
    assert number(value) == f"{value:#.3g}".rstrip(".")


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (999.6, "1,000"), (1234.4, "1,234"), (12345.6, "12,346"), (147.2, "147"), (33.94, "33.9")],
)
def test_large_numbers_keep_their_digits(value, text):
    assert number(value) == text


# names


NAMES = [
    "local(rope, window=32)", "t5(max_distance=256)", "a|b", r"a\|b", "ends in \\", "two\nlines", "two\r\nlines",
    "carriage\rreturn", "$x^2$", "$", "50%", "a_b_c", "{}", "{", "}", "<b>bold</b>", "**bold**", "**12**", "`code`",
    "位置", "x" * 300, "&", "#1", "~", "^", r"\textbf{x}", r"\end{tabular}", "%s {0}", "- x", "nan", "None", "12", "5.00",
    "[link](x)", "<", "a — b", ":--", "&lt;", "~~gone~~", "\u202eturned", "\x1b[31mred", "\0", "line\u2028s", "שלום",
    "\ufeff",
]  # fmt: skip


def shown(name: str) -> str:
    """On one line, and what cannot be seen as an escape; nothing else about a name may change."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in " ".join(name.split()))


def rows_named(*names: str) -> pd.DataFrame:
    return with_floor({name: {128: [1.5, 1.51], 256: [1.4, 1.42], 512: [1.3, 1.32]} for name in names})


def assert_only_names_differ(blocks: list[Table], plain: list[Table]) -> None:
    """`plain` shows the same numbers for a single scheme of an innocent name, in the first line of every table."""
    for table, (head, expected, *references) in zip(blocks, plain, strict=True):
        assert table[0] == head
        assert len(table) == 1 + len(NAMES) + len(references)
        for row, name in zip(table[1:], NAMES, strict=False):
            assert row[1:] == expected[1:], name


def test_no_name_breaks_markdown():
    blocks = markdown_blocks(markdown_table(rows_named(*NAMES)))
    assert_only_names_differ(blocks, markdown_blocks(markdown_table(rows_named("plain"))))
    for table in blocks:
        for (cell, *_), name in zip(table[1:], NAMES, strict=False):
            assert re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", cell) == shown(name)  # a backslash hides what a sign would do
            assert not re.search(r"(?<!\\)(\\\\)*[*<`\[]", cell), name


@pytest.mark.slow
@settings(deadline=None, derandomize=True)
@given(st.text(max_size=20), st.text(max_size=20))
@example("carriage\rreturn", "\r")
@example("two\r\nlines", "two\nlines")
@example('"', "a,b")
def test_rows_are_read_as_they_were_written_whatever_their_names(tmp_path_factory, scheme, document):
    path = tmp_path_factory.mktemp("rows") / "rows.csv"
    rows = scheme_rows(scheme, {128: [1.5], 256: [1.4]})
    rows = rows.assign(document=rows["document"] + document).reset_index(drop=True)
    save_rows(path, rows)
    pd.testing.assert_frame_equal(load_rows(path), rows, check_dtype=False, check_exact=True)


# what is missing


def absent(scheme: str, seed: int, eval_len: int, reason: str, protocol: str = "nonoverlap") -> dict[str, object]:
    return {
        "experiment": "made", "run": f"{scheme}-seed{seed}", "scheme": scheme, "objective": "mlm", "data": "stdlib",
        "train_len": 128, "setting": "", "seed": seed, "extension": "none", "protocol": protocol,
        "eval_len": eval_len, "reason": reason,
    }  # fmt: skip


def test_what_did_not_fit_into_memory_is_told_and_is_not_the_end_of_a_scheme():
    missing = pd.DataFrame([absent("learned", seed, 256, "out of memory") for seed in (0, 1)])
    text = markdown_table(many(TWO_SEEDS), missing=missing)
    line = markdown_blocks(text)[0][-1]
    assert (line[0], line[2], line[3]) == ("learned", "out of memory", "none to 128")
    assert "Not measured: learned-seed0 (out of memory at 256); learned-seed1 (out of memory at 256)." in text
    assert "ends at 128" in markdown_table(many(TWO_SEEDS))


def test_a_blow_up_begins_at_the_latest_where_a_loss_is_not_a_number():
    level = {128: [1.0, 1.0], 256: [1.0, 1.0], 512: [1.0, 1.0]}
    rows = many({"one": level, "all": {128: [1.0, 1.0]}, "late": level, "early": level | {256: [2.0, 2.0]}})
    lost = [
        ("one", 0, 256),
        ("late", 0, 1024),
        ("early", 0, 512),
        *(("all", seed, n) for seed in (0, 1) for n in (256, 512)),
    ]
    missing = pd.DataFrame([absent(*of, "not a number") for of in lost])
    text = markdown_table(rows, missing=missing)
    (lines,) = markdown_blocks(text)
    at = lines[0].index("blow-up")
    assert {line[0]: line[at] for line in lines[1:]} == {
        "one": "128 to 256", "all": "128 to 256", "late": "512 to 1,024", "early": "128 to 256",
    }  # fmt: skip
    assert tables.NO_NUMBER_NOTE in re.sub(r"\s+", " ", text)
    assert tables.NO_NUMBER_NOTE not in markdown_table(rows, missing=missing.assign(reason="out of memory"))


def test_a_length_that_one_seed_lacks_is_a_mean_over_the_others():
    nll = {"rope": {128: [1.0, 1.1], 256: [1.2]}, "alibi": {128: [1.0, 1.1], 256: [1.1, 1.2]}}
    missing = pd.DataFrame([absent("rope", 1, 256, "out of memory")])
    (table,) = markdown_blocks(markdown_table(many(nll), missing=missing))
    assert table[1][2].startswith(f"{np.exp(1.2):.2f}")
    assert "rope-seed1 (out of memory at 256)" in markdown_table(many(nll), missing=missing)


def test_a_length_without_a_number_is_told_like_one_without_memory():
    missing = pd.DataFrame([absent("learned", seed, 256, "not a number") for seed in (0, 1)])
    text = markdown_table(many(TWO_SEEDS), missing=missing)
    assert markdown_blocks(text)[0][-1][2] == "not a number"
    assert "learned-seed1 (not a number at 256)" in text
    missing = pd.DataFrame([absent("t5", 0, n, "not a number at the training length") for n in (128, 256)])
    assert "Not measured: t5-seed0 (not a number at the training length)." in markdown_table(
        many(TWO_SEEDS), missing=missing
    )


def test_a_run_that_diverged_is_told_once_with_its_step():
    missing = pd.DataFrame([absent("t5", 0, n, "diverged at step 7", p) for n in (128, 256) for p in ("nonoverlap", "x")])
    text = markdown_table(many(TWO_SEEDS), missing=missing)
    assert "Not measured: t5-seed0 (diverged at step 7)." in text
    assert text.count("diverged") == 1
