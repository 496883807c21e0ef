"""The page: its numbers are those of the tables, it asks for nothing, and it is the same twice."""

import csv
import io
import json
import re
import shutil
from colorsys import rgb_to_hls
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from marks import slow
from matplotlib.colors import to_rgb
from rows import both_protocols, many, scheme_rows, with_floor

from experiments.page import claims, on_page, paper
from extrap.report.best import outcome, take
from extrap.report.group import Group
from extrap.report.looks import LOOKS, OTHER_COLOURS, OTHER_MARKERS
from extrap.report.page.cells import PAIR, budget
from extrap.report.page.data import experiment, group, loaded, t_quantiles
from extrap.report.page.html import digest, in_script, page
from extrap.report.page.palette import DARK, LIGHT, LINE, WORD, contrast, marker_path, readable, style_sheet
from extrap.report.typesetting import trained_on
from extrap.results.probes import load_probes
from extrap.results.rows import GROUP, MISSING, load_rows, load_training, save_rows
from extrap.results.shown import rounded
from extrap.stats.statistics import Statistics
from extrap.stats.written import Written, load, load_written

NO_PROBES = load_probes(Path("nowhere.csv"))

RESULTS = Path(__file__).parents[1] / "results"
SMALL = "stride1"
TRACKED = sorted(path.parent.name for path in RESULTS.glob("*/rows.csv"))
OTHERS = slow(*(name for name in TRACKED if name != SMALL))
NLL = {"a": {128: [1.5, 1.6], 256: [1.4, 1.5]}, "b": {128: [1.6, 1.7], 256: [1.5, 1.75]}}


@cache
def told_of(name: str) -> dict:
    """As JSON has it: what a browser reads."""
    return json.loads(in_script(experiment(RESULTS / name)))


def table_of(name: str, file: str) -> pd.DataFrame:
    table = pd.read_csv(RESULTS / name / file, keep_default_na=False, na_values=[""])
    return table.assign(setting=table["setting"].fillna("") if "setting" in table else "")


def overs(values: list[float]) -> tuple[float, float]:
    """Mean and half width, by the quantiles that the page holds: what its script computes."""
    n = len(values)
    return float(np.mean(values)), t_quantiles(n)[n - 2] * np.std(values, ddof=1) / np.sqrt(n) if n > 1 else np.nan


def series_of(part: dict) -> dict[tuple[str, str, str], int]:
    return {(one["kind"], one["scheme"], one["extension"]): i for i, one in enumerate(part["series"])}


@pytest.mark.parametrize("name", [SMALL, *OTHERS])
def test_every_cell_of_the_table_follows_from_what_the_page_holds(name):
    groups = table_of(name, "table.csv").groupby(GROUP, sort=False)
    for part, (_, table) in zip(told_of(name)["groups"], groups, strict=True):
        at = series_of(part)
        for line in table.itertuples():
            protocol = part["protocols"][line.protocol]
            seen = protocol["values"][at[line.kind, line.scheme, line.extension]][protocol["lengths"].index(line.eval_len)]
            values = [value for value in seen if value is not None]
            mean, half = overs(values)
            in_nats = line.nats if part["nats"] else line.log_ppl
            assert (len(values), mean) == (line.n_seeds, pytest.approx(in_nats, rel=6e-6))
            if line.n_seeds > 1 and part["nats"]:
                assert (mean - half, mean + half) == pytest.approx((line.nats_low, line.nats_high), rel=6e-6)
            elif line.n_seeds > 1:
                assert half == pytest.approx(line.log_ppl_half, rel=6e-6, abs=6e-7)
                assert np.exp(mean) == pytest.approx(line.ppl, rel=6e-6)
            best = [at[line.kind, line.scheme, line.extension], protocol["lengths"].index(line.eval_len)] in protocol["best"]
            assert best == line.best


@pytest.mark.parametrize("name", [SMALL, *OTHERS])
def test_pairs_are_those_of_the_table(name):
    """All columns of every line, none more and none fewer; and what is text is text."""
    table, n = table_of(name, "pairs.csv"), 0
    for part, (_, own) in zip(told_of(name)["groups"], table.groupby(GROUP, sort=False), strict=True):
        lines = own.set_index(["protocol", "eval_len", "scheme_a", "scheme_b"])
        for protocol, by_length in part["pairs"].items():
            for eval_len, pairs in by_length.items():
                for a, b, *values in pairs:
                    sides = (part["series"][i]["scheme"] for i in (a, b))
                    line = lines.loc[(protocol, int(eval_len), *sides)]
                    expected = [None if pd.isna(line[column]) else line[column] for column in PAIR]
                    assert values == expected
                    n += 1
    assert n == (table["protocol"] != "position").sum()


@pytest.mark.parametrize("name", [SMALL, *OTHERS])
def test_losses_of_training_are_those_of_the_log(name):
    """On held-out text each, of batches means of so many logged steps, told with the last of them."""
    losses = load_training(RESULTS / name / "training.csv")
    parts = [part for part in told_of(name)["groups"] if part["training"]]  # that of a generator is its discriminator's
    by_group = {(trained_on(*of[:-1], ""), of[-1]): own for of, own in losses.groupby(GROUP, sort=False)}
    assert len(parts) == len(by_group)
    for part in parts:
        own = by_group[part["what"], part["setting"]]
        at, told = series_of(part), part["training"]
        assert len(told["loss"]["steps"]) <= 30
        for what, column in (("loss", "loss"), ("held_out", "held_out_loss")):
            known, steps = own.dropna(subset=column), told[what]["steps"]
            logged = sorted(known["step"].unique())
            bins = [logged[i : i + told[what]["every"]] for i in range(0, len(logged), told[what]["every"])]
            assert steps == [steps_of[-1] for steps_of in bins]
            for (scheme, seed), line in known.set_index("step").groupby(["scheme", "seed"])[column]:
                of_scheme = told[what]["values"][str(at["scheme", scheme, "none"])]
                means = [line[steps_of].mean() for steps_of in bins]
                assert [values[part["seeds"].index(seed)] for values in of_scheme] == pytest.approx(means, abs=5.01e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["main", "extend", "budget", "markov"])
def test_tables_that_are_shown_as_they_are_hold_the_numbers_of_their_files(name):
    told = told_of(name)
    tables = {"extrapolates.csv": [part["extrapolates"] for part in told["groups"]],
              "extensions.csv": [one for part in told["groups"] for one in part["extensions"]],
              "costs.csv": [part["costs"] for part in told["groups"]],
              "stability.csv": (told["budget"] or {"tables": []})["tables"]}  # fmt: skip
    for file, parts in tables.items():
        found = [line for one in parts if one for line in csv.DictReader(io.StringIO(one["csv"]))]
        path = RESULTS / name / file
        known = list(csv.DictReader(path.read_text().splitlines())) if path.exists() else []
        if file == "stability.csv":
            found_keys = {tuple(sorted(line.items())) for line in found}
            assert found_keys <= {tuple(sorted(line.items())) for line in known}
            assert bool(found) == bool(known)
        else:
            assert sorted(map(str, found)) == sorted(map(str, known)), file


def test_what_is_read_of_a_report_is_what_its_rows_say():
    """Comparisons are read from their tables; made again they come to the same, in six digits and of the same types."""
    computed, read = load(RESULTS / SMALL), load_written(RESULTS / SMALL)
    pd.testing.assert_frame_equal(rounded(computed.pairs).astype(read.pairs.dtypes), read.pairs[[*computed.pairs.columns]])
    assert read.pairs["seeds_needed"].dtype == "Int64"


def test_comparisons_that_are_of_other_rows_are_made_again(tmp_path):
    """Or that are not there: of the tables beside the rows table.csv tells whether they are of these."""
    folder = tmp_path / SMALL
    shutil.copytree(RESULTS / SMALL, folder)
    assert isinstance(loaded(folder), Written)
    (folder / "pairs.csv").unlink()
    rows = load_rows(folder / "rows.csv")
    whole = loaded(folder).pairs
    assert len(whole) == len(load_written(RESULTS / SMALL).pairs)
    more = rows["nll_sum"].where(rows["scheme"] != "alibi", 1.1 * rows["nll_sum"])
    save_rows(folder / "rows.csv", rows.assign(nll_sum=more))
    assert not isinstance(loaded(folder), Written)
    assert not np.allclose(loaded(folder).pairs["difference"], whole["difference"])
    (folder / "table.csv").unlink()
    assert not isinstance(loaded(folder), Written)


def test_where_a_scheme_breaks_is_said_with_where_it_surely_does():
    nll = {128: [1.0, 1.0, 1.0], 256: [1.0, 1.0, 1.2], 512: [1.0, 1.01, 0.99], 1024: [2.0, 2.01, 2.02]}
    told = group(Statistics(both_protocols({"a": nll})), "", NO_PROBES)["overview"]
    assert told["cells"][0][told["head"].index("breaks at")] == "128 to 256, surely at 1,024"


def test_by_budget_a_setting_has_points_of_its_own():
    """Whatever else varies beside the budget."""
    levels = {"a": {128: [1.0, 1.01], 256: [1.0, 1.01]}, "b": {128: [1.2, 1.21], 256: [1.2, 1.21]}}
    rows = [many(levels, setting=f"max_steps={steps}, lr={lr}") for steps in (100, 200) for lr in (0.1, 0.2)]
    found = Statistics(pd.concat(rows))
    points = pd.DataFrame(budget(found)["points"])
    assert points.groupby("what").size().tolist() == [8, 8]
    for part in found.groups.values():
        own = points[points["what"] == group(part, "", NO_PROBES)["but_for_budget"]]
        lr = part.rows["setting"].iloc[0].partition(", ")[2]
        assert set(own["what"]) == {f"mlm on stdlib, training length 128, {lr}"}
        assert sorted(own["steps"].unique()) == [100, 200]


def test_who_is_below_the_floor_keeps_what_probes_found_in_it():
    crowd = {f"s{i:02}": {128: [1.6, 1.7], 256: [1.5, 1.6], 512: [1.5, 1.6]} for i in range(13)}
    rows = with_floor(crowd | {"cheat": {128: [1.0, 1.1], 256: [0.9, 1.0], 512: [0.8, 0.9]}})
    drawn = [(scheme, seed, n, distance, metric, value + seed / 100) for scheme in ("cheat", "s00") for seed in (0, 1)
             for n in (128, 512) for distance, value in ((1, 1.0), (129, 2.0)) if distance <= n
             for metric in ("nll", "floor") for value in [value * (metric == "nll")]]  # fmt: skip
    found = pd.DataFrame(drawn, columns=["scheme", "seed", "eval_len", "distance", "metric", "value_sum"])
    found = found.assign(probe="recall", n=1, document="d", objective="causal", data="markov", train_len=128, setting="")
    told = group(Statistics(rows), "", found)["overview"]
    table = pd.DataFrame(told["cells"], columns=told["head"]).set_index("scheme")
    assert table.loc["cheat ‡", "recall beyond L"].startswith("2.000")
    assert table.loc["s01", "recall beyond L"] == ""


def test_the_first_table_says_where_a_scheme_breaks_how_far_it_reads_and_what_it_recalls():
    def first(name):
        told = told_of(name)["groups"][0]["overview"]
        return pd.DataFrame(told["cells"], columns=told["head"]).set_index("scheme"), told["note"]

    table, note = first("recall")
    found = pd.read_csv(RESULTS / "recall" / "probes.csv").merge(pd.read_csv(RESULTS / "recall" / "runs.csv"), on="run")
    found = found[found["probe"].eq("recall") & found["distance"].gt(0) & found["eval_len"].eq(2048)]
    for scheme, own in found.groupby("scheme"):
        for where, lines in (("within", own[own["distance"] <= 128]), ("beyond", own[own["distance"] > 128])):
            sums = lines.groupby(["seed", "metric"])[["value_sum", "n"]].sum()
            nats = (sums["value_sum"] / sums["n"]).unstack("metric")
            mean, half = overs([*(nats["nll"] - nats["floor"])])
            assert table.loc[scheme, f"recall {where} L"] == f"{mean:.3f} ±{half:.3f}"
    assert (table.loc["rope", "breaks at"], table.loc["alibi", "breaks at"]) == ("128 to 512", "")
    assert [part.split(":")[0] for part in note.split("; ")] == ["±", "Breaks at", "Recall"]
    table, _ = first("zoo_mlm")
    page = (RESULTS / "zoo_mlm" / "probes.md").read_text().replace("\\_", "_")
    cells = [[cell.strip() for cell in line.split("|")] for line in page.partition("**Direction")[0].splitlines()]
    reach = {line[1]: line[3] for line in cells if len(line) > 3}
    assert {scheme: reach[scheme] for scheme in table.index if scheme in reach} == {**table["reach"]}


@pytest.fixture(scope="module")
def html() -> str:
    return page([told_of(SMALL)])


@pytest.mark.slow
def test_the_page_of_all_results_is_no_larger_than_it_says():
    assert sum(len(in_script(experiment(folder))) for folder in on_page(RESULTS)) < 2_300_000, "of 3 MB, with what draws it"


def test_of_a_sweep_over_rates_the_page_shows_each_scheme_at_its_best(tmp_path):
    for name in ("causal", "main", "main_2", "rates", "rates+best-lr"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "rows.csv").touch()
    (tmp_path / "tied+best-lr").mkdir()  # a report that could not be made
    assert [folder.name for folder in on_page(tmp_path)] == ["main", "causal", "main_2", "rates+best-lr"]


def test_nothing_is_asked_for_and_nothing_else_may_run(html):
    assert {*re.findall(r"(?:src|href)\s*=\s*[\"']?([^\s\"'>]*)", html.split("<script")[0])} == {"#main"}
    assert not re.search(r"(?:@import|url\()", html.split("<script")[0])
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', html)[1]
    parts = dict(part.split(maxsplit=1) for part in policy.split("; "))
    assert parts["default-src"] == parts["base-uri"] == parts["form-action"] == "'none'"
    assert "unsafe" not in policy
    (style,), scripts = (
        re.findall(r"<style>(.*?)</style>", html, re.DOTALL),
        re.findall(r"<script>(.*?)</script>", html, re.DOTALL),
    )
    assert parts["style-src"] == digest(style)
    assert [parts["script-src"]] == [digest(script) for script in scripts]
    assert set(parts) == {"default-src", "script-src", "style-src", "base-uri", "form-action"}


def test_the_same_rows_give_the_same_bytes(html):
    assert page([json.loads(in_script(experiment(RESULTS / SMALL)))]) == html
    assert len(html.encode()) < 500_000


def test_names_that_are_hostile_stay_names():
    hostile = "</script><script>alert(1)</script><!--"
    found = Statistics(both_protocols({hostile: NLL["a"], "b": NLL["b"]}))
    told = {"name": "x", "digest": "", "budget": None, "choice": [], "groups": [group(found, hostile, NO_PROBES)]}
    html = page([told])
    assert html.count("<script") == html.count("</script>") == 2
    data = json.loads(re.search(r'id="data">(.*?)</script>', html, re.DOTALL)[1])
    assert hostile in [one["scheme"] for one in data["experiments"][0]["groups"][0]["series"]]


def test_what_has_no_perplexity_is_told_in_nats():
    rate = scheme_rows("rate", {128: [0.6], 256: [0.6]}, kind="rate", objective="rtd")
    rows = pd.concat([both_protocols({s: {n: [v / 5 for v in values] for n, values in by.items()} for s, by in NLL.items()},
                                     objective="rtd"), rate])  # fmt: skip
    told = group(Statistics(rows), "", NO_PROBES)
    assert (told["measure"], told["nats"], told["loss"], told["decimals"]) == ("nats", True, "loss", 4)
    assert not any("perplexity" in sentence for sentence in [*told["take"], *(text for _, text in told["sentences"])])
    assert "nats" in told["take"][0]
    words = group(Statistics(both_protocols(NLL)), "", NO_PROBES)
    assert (words["measure"], words["nats"], words["loss"], words["decimals"]) == ("perplexity", False, "log-perplexity", 3)


def test_a_perplexity_that_is_too_large_for_a_number_is_none_in_json():
    huge = {128: [800.0, 801.0], 256: [802.0, 803.0]}
    sliding = [scheme_rows(scheme, {128: [1.3, 1.3]}, protocol="sliding(stride=32)") for scheme in ("a", "huge")]
    with np.errstate(over="ignore"):
        told = group(Statistics(pd.concat([both_protocols(NLL | {"huge": huge}), *sliding])), "", NO_PROBES)
    blind = told["protocols"]["nonoverlap"]["null"]
    assert [[value is None for value in values] for values in blind.values()] == [[False, False], [True, False]]


# what to take


def taken(rows: pd.DataFrame) -> list[str]:
    found = Statistics(rows)
    return take(Group(found, {scheme: scheme for scheme in rows["scheme"].unique()}))


def test_what_to_take_says_how_sure_that_is():
    near = {"a": {128: [1.5, 1.6, 1.55], 256: [1.4, 1.5, 1.45]}, "b": {128: [1.5, 1.6, 1.54], 256: [1.41, 1.5, 1.46]}}
    first, sure, *rest = taken(both_protocols(near))
    told = "Masked LM on stdlib, trained at length 128 and used at 256 (2 L): a is the lowest as trained, perplexity 4.26"
    assert first.startswith(told)
    assert "undecided against b" in sure
    assert rest[0].startswith("Beyond L it survives (at most 0.90 x); so does b.")
    assert "it is the lowest, too: b, perplexity" not in rest[1]
    far = near | {"b": {128: [1.2, 1.3, 1.25], 256: [3.41, 3.5, 3.46]}}
    _, sure, *rest = taken(both_protocols(far))
    assert "decided against all others" in sure
    assert "for this text alone" in sure, "of two documents nothing is known about others"
    assert rest[-1].startswith("At L, over the whole text (nonoverlap), it is 35.0 % above the lowest, b (decided")


def test_that_the_lowest_is_lowest_at_l_too_is_said_with_how_sure_that_is():
    two = {"a": {128: [1.2, 1.3, 1.25], 256: [1.2, 1.3, 1.25]}, "b": {128: [1.9, 2.0, 1.95], 256: [1.9, 2.0, 1.95]}}
    assert taken(both_protocols(two))[-1].startswith(
        "At L, over the whole text (nonoverlap), it is the lowest, too: a, perplexity"
    )
    assert "decided against all others; next b" in taken(both_protocols(two))[-1]
    many = {f"s{i:02}": {128: [1.5 + i / 10, 1.7 + i / 10], 256: [1.5 + i / 10, 1.7 + i / 10]} for i in range(13)}
    rope = {"rope": {128: [1.8, 1.5], 256: [1.7, 1.8]}}
    assert taken(both_protocols(many | rope))[-1].endswith("against rope undecided.")


def level(*values: float) -> dict[int, list[float]]:
    """The same at L and beyond."""
    return {128: [*values], 256: [*values]}


def test_a_mean_over_more_seeds_is_not_called_lowest_and_no_gap_has_the_wrong_sign():
    """a has two bad seeds that c lacks: on those of both it is ahead, in the mean it is behind."""
    told = taken(both_protocols({"a": level(1.50, 1.51, 1.52, 2.5, 2.6), "c": level(1.60, 1.61, 1.62)}))
    assert "a is the lowest as trained on the seeds that it shares with others, perplexity 6.86" in told[0]
    assert "next c, 10.5 % above (3 seeds, paired" in told[1]
    both = {"a": level(1.60, 1.72, 1.60), "c": level(1.60, 1.61, 1.62), "b": level(1.50, 1.51, 1.52, 2.5, 2.6)}
    assert "c, 3.0 % below" in taken(both_protocols(both))[1]


def test_who_is_left_out_of_a_comparison_is_told():
    unigram = pd.concat([scheme_rows("unigram", {128: [1.61], 256: [1.61]}, kind="unigram", protocol=p)
                         for p in ("nonoverlap", "same_targets")])  # fmt: skip
    three = {"a": level(1.2, 1.21, 1.22), "b": level(1.3, 1.31, 1.32), "flat": level(1.6, 1.6, 1.6)}
    told = taken(pd.concat([both_protocols(three), unigram]))
    assert told[1].endswith("Left out as not comparable: flat (hardly better than unigram).")
    assert "so does b." in told[2]
    assert "flat" not in told[2]


def test_where_no_window_was_scored_nothing_is_said_of_use():
    told = taken(both_protocols({"a": level(1.2, 1.3), "b": level(1.4, 1.5)}))
    assert not any("makes use" in sentence for sentence in told)


def test_use_that_the_best_possible_prediction_shows_is_told():
    (part,) = load_written(RESULTS / "recall").groups.values()
    told = take(Group(part, {scheme: scheme for scheme in part.rows["scheme"].unique()}))
    assert "It makes use of context beyond L, by the best possible prediction." in told[2]
    assert "nope (still on the plateau)" in told[1]


def test_comparisons_with_one_below_the_floor_count_for_nobody():
    many = {f"s{i:02}": level(1.5 + i / 10, 1.51 + i / 10) for i in range(13)} | {"rope": level(1.4, 1.45)}
    of = Group(Statistics(both_protocols(many)), {scheme: scheme for scheme in many})
    of.impossible = {"rope"}
    assert "How sure: not at all: all are compared with rope alone, which is below the floor" in take(of)[1]
    assert outcome(of)["against the others"] == "rope is below the floor"


def outcome_of(rows: pd.DataFrame) -> dict[str, str]:
    return outcome(Group(Statistics(rows), {scheme: scheme for scheme in rows["scheme"].unique()}))


def test_a_line_of_many_experiments_says_what_the_sentences_say():
    near = {"a": {128: [1.5, 1.6, 1.55], 256: [1.4, 1.5, 1.45]}, "b": {128: [1.5, 1.6, 1.54], 256: [1.41, 1.5, 1.46]}}
    told = outcome_of(both_protocols(near))
    assert (told["model"], told["L, used at"], told["lowest there as trained"]) == ("masked LM on stdlib", "128, 256", "a")
    assert (told["against the others"], told["beyond L"]) == ("undecided: b", "survives")
    assert told["level there"].startswith("perplexity 4.26")
    far = near | {"b": {128: [1.5, 1.6, 1.54], 256: [3.41, 3.5, 3.46]}, "c": {128: [1.5, 1.6, 1.5]}}
    assert outcome_of(both_protocols(far))["against the others"] == "decided: 1", "c does not reach that length"
    both = near | {"c": {128: [1.5, 1.6, 1.54], 256: [3.41, 3.5, 3.46]}}
    assert outcome_of(both_protocols(both))["against the others"] == "decided: 1; undecided: b"
    one = {scheme: {n: values[:1] for n, values in by_length.items()} for scheme, by_length in near.items()}
    assert outcome_of(both_protocols(one))["against the others"] == "one seed"
    at_l = {scheme: {128: by_length[128]} for scheme, by_length in near.items()}
    assert outcome_of(both_protocols(at_l))["lowest there as trained"] == "–"
    many = {f"s{i:02}": {128: [1.5 + i / 10] * 2, 256: [1.5 + i / 10, 1.51 + i / 10]} for i in range(13)}
    told = outcome_of(both_protocols(many | {"rope": {128: [1.55] * 2, 256: [1.55, 1.57]}}))
    assert told["against the others"].endswith(": rope; not compared: 12 others")


def test_an_extension_that_is_lower_is_named_and_not_said_to_be_better():
    window = scheme_rows("b", {128: [1.6, 1.7], 256: [1.2, 1.3]}, extension="window", protocol="same_targets")
    told = taken(pd.concat([both_protocols(NLL), window]))
    assert "b + window" in told[-1]
    assert "but not compared with it" in told[-1]
    higher = window.assign(nll_sum=window["nll_sum"] * 2)
    higher.loc[higher["eval_len"] == 128, "nll_sum"] /= 2
    assert not any("window," in sentence for sentence in taken(pd.concat([both_protocols(NLL), higher])))


def test_one_seed_and_no_length_beyond_l_decide_nothing():
    one = {scheme: {n: values[:1] for n, values in by_length.items()} for scheme, by_length in NLL.items()}
    assert "one seed decides nothing" in taken(both_protocols(one))[1]
    at_l = {scheme: {128: by_length[128]} for scheme, by_length in NLL.items()}
    assert taken(both_protocols(at_l)) == ["No length beyond L = 128 was scored: nothing is said about long use."]


def test_of_many_schemes_it_is_not_said_that_the_first_is_ahead_of_the_second():
    """All are compared with RoPE, and with that alone: nothing that was compared is said to be open."""
    many = {f"s{i:02}": {128: [1.5 + i / 10] * 2, 256: [1.5 + i / 10, 1.51 + i / 10]} for i in range(13)}
    sure = taken(both_protocols(many | {"rope": {128: [1.55] * 2, 256: [1.55, 1.57]}}))[1]
    assert "against rope it is" in sure
    assert "its lead over the next ones, s01 and s02, is undecided" in sure
    sure = taken(both_protocols(many | {"rope": {128: [1.4, 1.41], 256: [1.3, 1.31]}}))[1]
    assert "decided against" in sure
    assert "its lead over" not in sure
    sure = taken(
        both_protocols({"rope": many["s01"], "s00": many["s00"]} | {s: {128: [1.5, 1.6]} for s in many if s > "s01"})
    )[1]
    assert sure.startswith("How sure: against rope it is")
    assert "next ones" not in sure


def test_who_is_alone_at_the_longest_length_is_not_said_to_be_ahead_beyond_the_noise():
    alone = {"a": {128: [1.5, 1.6], 256: [1.4, 1.5]}, "b": {128: [1.2, 1.3]}}
    assert taken(both_protocols(alone))[1] == "How sure: no other scheme that counts reaches that length."


def test_an_extension_of_the_leader_was_tested_and_one_of_who_cannot_count_is_not_named():
    trained = {"a": {128: [1.5, 1.6, 1.55], 256: [1.4, 1.5, 1.45]}, "b": {128: [1.5, 1.6, 1.54], 256: [1.6, 1.7, 1.66]}}
    for values, word in (([1.2, 1.3, 1.25], "which is decided"), ([1.0, 1.8, 1.4], "which is undecided")):
        for extension in ("window", "other"):
            own = scheme_rows("a", {128: [1.5, 1.6, 1.55], 256: values}, extension=extension, protocol="same_targets")
            assert taken(pd.concat([both_protocols(trained), own]))[-1].startswith(
                f"Lower in the mean, {word}: a + {extension}"
            )
    unigram = pd.concat([scheme_rows("unigram", {128: [1.61], 256: [1.61]}, kind="unigram", protocol=p)
                         for p in ("nonoverlap", "same_targets")])  # fmt: skip
    flat = {"flat": {128: [1.6] * 3, 256: [1.6] * 3}}
    own = scheme_rows("flat", {128: [1.6] * 3, 256: [1.0] * 3}, extension="other", protocol="same_targets")
    assert not any("flat +" in sentence for sentence in taken(pd.concat([both_protocols(trained | flat), unigram, own])))


def test_where_none_counts_as_trained_it_is_said_why_and_what_an_extension_does():
    trained = {"frail": {128: [1.0, 1.1, 1.2], 256: [1.0, 1.1]}, "large": {128: [1.3, 1.4, 1.5]}, "short": {128: [1.6] * 3}}
    rows = both_protocols(trained)
    own = scheme_rows("large", {128: [1.3, 1.4, 1.5], 256: [1.3, 1.4, 1.5]}, extension="window", protocol="same_targets")
    line = rows.iloc[[0]].assign(protocol="same_targets", eval_len=256)
    missing = [line.assign(scheme="frail", run="frail-seed2", seed=2, reason="not a number"),
               line.assign(scheme="large", run="large-seed0", reason="out of memory")]  # fmt: skip
    of = Group(Statistics(pd.concat([rows, own]), pd.concat(missing)[MISSING]), {one: one for one in trained})
    assert take(of) == [
        "None is worth taking as trained: none counts at 256 tokens (frail: not a number in 1 of 3 seeds; large: out of "
        "memory; short: ends at 128).",
        "Of finished weights with an extension the lowest there in the mean: large + window, perplexity 4.06 ±28%.",
    ]


def test_whoever_is_left_out_beats_nobody():
    """A flat scheme that has learned nothing wins every pair far out; among the others the one leads that loses none."""
    rows = both_protocols({
        "flat": {128: [2.5, 2.501, 2.502], 256: [2.5, 2.501, 2.502]}, "b": {128: [1.5, 1.502, 1.501], 256: [3.5, 3.502]},
        "c": {128: [1.4, 1.4025, 1.41], 256: [3.4, 3.4025, 3.9]},
    })  # fmt: skip
    unigram = pd.concat([scheme_rows("unigram", {128: [2.45], 256: [2.45]}, kind="unigram", protocol=p)
                         for p in ("nonoverlap", "same_targets")])  # fmt: skip
    first, sure, *_ = taken(pd.concat([rows, unigram]))
    assert "c is the lowest as trained on the seeds that it shares with others" in first
    assert sure.startswith("How sure: c, perplexity 35.4, decided against all others; next b, 10.5 % above")


def test_who_lacks_l_under_one_protocol_or_is_below_the_floor_under_one_is_left_out():
    rows = both_protocols({"a": level(1.5, 1.6), "b": level(1.7, 1.8), "lost": level(1.2, 1.3)})
    rows = rows[(rows["scheme"] != "lost") | (rows["protocol"] == "same_targets")]
    assert taken(rows)[1].endswith("Left out as not comparable: lost (no number at L under nonoverlap).")
    known = with_floor({"a": level(1.5, 1.51), "leak": level(1.5, 1.51)})
    known = pd.concat([known, known.assign(protocol="same_targets")])
    below = (known["scheme"] == "leak") & (known["protocol"] == "nonoverlap") & (known["eval_len"] == 256)
    found = Statistics(known.assign(nll_sum=known["nll_sum"].where(~below, 0.2 * known["nll_sum"])))
    of = Group(found, {"a": "a", "leak": "leak"})
    assert take(of)[1].endswith("Left out as not comparable: leak (below the floor: impossible).")
    assert of.fates["leak"] == ("", "")
    assert not found.ranked.query("scheme == 'leak'")["best"].any()


def test_one_seed_in_common_with_the_yardstick_decides_nothing():
    many_schemes = {f"s{i:02}": level(1.5 + i / 10, 1.51 + i / 10) for i in range(13)} | {"rope": level(3.0)}
    told = taken(both_protocols(many_schemes))[1]
    assert told.startswith("How sure: against rope it is undecided, with one seed in common; no two others are compared")
    assert "beyond the noise" not in told


def test_who_has_learned_nothing_is_not_taken():
    unigram = pd.concat([scheme_rows("unigram", {128: [1.52], 256: [1.52]}, kind="unigram", protocol=p)
                         for p in ("nonoverlap", "same_targets")])  # fmt: skip
    two = both_protocols({"flat": {128: [1.5] * 3, 256: [1.0] * 3}, "a": {128: [1.1, 1.11, 1.12], 256: [1.3] * 3}})
    assert " a is the lowest as trained" in taken(pd.concat([two, unigram]))[0]


def test_a_report_with_a_floor_says_so():
    told = group(Statistics(with_floor({"a": {128: [1.5, 1.52], 256: [1.4, 1.42], 512: [1.3, 1.31]}})), "", NO_PROBES)
    assert {one["kind"] for one in told["series"]} == {"scheme", "floor", "window_floor", "plateau"}
    assert told["series"][0]["kind"] == "scheme"


# looks


@pytest.mark.parametrize("color", [*(look["color"] for look in LOOKS.values()), *OTHER_COLOURS, "#737373"])
def test_colours_can_be_read_on_white_and_on_black(color):
    for on in (LIGHT, DARK):
        for least in (LINE, WORD):
            found = readable(color, on, least)
            assert contrast(found, on) >= least
            if contrast(color, on) >= least:
                assert found == color.lower()
            hue, _, saturation = rgb_to_hls(*to_rgb(color))
            if saturation > 0.1:
                assert rgb_to_hls(*to_rgb(found))[0] == pytest.approx(hue, abs=0.02)


def test_contrast_is_that_of_the_standard():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.005)  # known from WCAG's own pages
    assert contrast("#0072B2", "#ffffff") == pytest.approx(5.19, abs=0.01)


def test_lines_have_the_colours_of_the_figures_and_dark_ones_are_for_screens():
    sheet = style_sheet({"e69f00"})
    assert "--l-e69f00:#e69f00" in sheet.split("@media")[0]
    assert "@media screen and (prefers-color-scheme:dark)" in sheet, "on paper a dark page is light"


@pytest.mark.parametrize("marker", [*(look["marker"] for look in LOOKS.values()), *OTHER_MARKERS])
def test_markers_are_closed_paths_around_their_point(marker):
    path = marker_path(marker)
    assert re.fullmatch(r"M[^MZ]*(?:[LQC][^MZ]*)*Z", path)
    numbers = np.array([float(one) for one in re.findall(r"-?[\d.]+(?:e-?\d+)?", path)]).reshape(-1, 2)
    assert (np.abs(numbers) <= 0.8).all()
    assert np.ptp(numbers, axis=0).min() > 0.5


def test_a_triangle_points_upwards():
    x, y = np.array(re.findall(r"(-?[\d.]+),(-?[\d.]+)", marker_path("^")), dtype=float).T
    assert y[np.argmin(np.abs(x))] == y.min() < 0, "y of a page grows downwards"


# claims and papers


def test_claims_are_those_of_their_table():
    told, table = claims(RESULTS / "claims"), pd.read_csv(RESULTS / "claims" / "claims.csv")
    assert [(line["id"], line["place"], line["verdict"]) for line in told["lines"]] == list(
        table[["id", "place", "verdict"]].itertuples(index=False, name=None)
    )
    for line in told["lines"]:
        if line["verdict"] in ("confirmed", "refuted"):
            assert (line["near"] > 0) if line["verdict"] == "confirmed" else (line["far"] < 0)
            assert line["near"] - 1e-5 <= line["at"]["effect"] <= line["far"] + 1e-5
    assert claims(RESULTS / "nowhere") == {"lines": [], "csv": ""}


@pytest.mark.parametrize("path", sorted((RESULTS / "papers").glob("*.csv")), ids=lambda path: path.stem)
def test_figures_of_papers_show_every_number_of_their_tables(path):
    told, table = paper(path), pd.read_csv(path)
    up = told["up"]
    assert sorted(point[1] for line in told["lines"] for point in line["points"]) == sorted(table[up].round(12))
    published = sum(len(line["points"]) for line in told["lines"] if line["source"] != "ours")
    assert published == (table["source"] != "ours").sum()
    for line in told["lines"]:
        assert (line["dash"] != "") == ("published" in line["name"]) == (line["source"] != "ours")
        places = [point[0] for point in line["points"]]
        assert len({*places}) == len(places) or told["across"] is None, "two numbers of a line at one place"
    assert told["expected"].startswith("Expected")
