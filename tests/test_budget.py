"""From which budget on a verdict holds: the definition attacked with constructed cases, and what reports make of it."""

import re

import numpy as np
import pandas as pd
import pytest
from rows import scheme_rows

from extrap.config.compose import compose_grid
from extrap.report.answer import answer
from extrap.report.budget import budget_figures, budget_page, budget_text
from extrap.report.report import write_report
from extrap.results.rows import MISSING
from extrap.stats.budget import CHANGES, NEW, OPEN, STABLE, Held, held
from extrap.stats.pairs import LACKING, UNDECIDED
from extrap.stats.statistics import Statistics

U, N = UNDECIDED, LACKING


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        ("aaaaa", Held(STABLE, 0, False)),
        ("uuaaa", Held(STABLE, 2, False)),
        ("bbuaa", Held(STABLE, 3, True)),  # the verdict of small budgets was the opposite
        ("aaaua", Held(NEW, 4, False)),  # a gap: it is not decided at all from some budget on
        ("auaaa", Held(STABLE, 2, False)),
        ("uuuua", Held(NEW, 4, False)),  # once is no evidence that it stays
        ("nnnna", Held(NEW, 4, False)),
        ("a", Held(NEW, 0, False)),
        ("aaaab", Held(CHANGES, 4, True)),
        ("aaaub", Held(CHANGES, 4, True)),  # it has turned, whatever lies between
        ("aabua", Held(CHANGES, 4, True)),
        ("abbaa", Held(STABLE, 3, True)),
        ("baaua", Held(CHANGES, 4, True)),
        ("bauaa", Held(STABLE, 3, True)),
        ("aaaau", Held(OPEN, None, True)),  # more training took it away
        ("uuuuu", Held(OPEN, None, False)),
        ("aaaan", Held(LACKING, None, True)),  # it diverges where it counts
        ("aanaa", Held(STABLE, 3, False)),  # a hole ends what holds
        ("nanaa", Held(STABLE, 3, False)),
    ],
)
def test_what_a_sequence_of_verdicts_comes_to(verdicts, expected):
    assert held([{"u": U, "n": N}.get(word, word) for word in verdicts]) == expected


def test_no_adjustment_for_several_budgets_is_needed():
    """A verdict that holds from 800 on only is said to hold at 400 in 5 % of all tries at most, whatever the budgets share;
    who took the smallest budget with such a verdict, holes or not, would say so more often."""
    rng = np.random.default_rng(0)
    n, seeds = 4_000, 5
    for shared in (0.0, 0.9):
        noise = np.sqrt(shared) * rng.normal(size=(n, seeds, 1)) + np.sqrt(1 - shared) * rng.normal(size=(n, seeds, 5))
        values = noise + np.array([0, 0, 0, 8, 8])  # nothing at 100, 200, 400
        t = values.mean(axis=1) / (values.std(axis=1, ddof=1) / np.sqrt(seeds))
        words = np.where(abs(t) < 2.776, U, np.where(t > 0, "b", "a"))
        answers = [held(list(line)) for line in words]
        wrong = np.mean([one.stability == STABLE and one.since < 3 for one in answers])
        loose = np.mean([(line[:3] == line[-1]).any() for line in words])
        assert wrong < 0.05
        assert np.mean([one.stability == STABLE for one in answers]) > 0.95
        assert loose > (0.06 if shared == 0 else 0.03)


# rows


RNG = np.random.default_rng(1)
APART = RNG.normal(0, 0.003, (3, 3))  # of seeds, by scheme


def rows_of(nll: dict[str, dict[int, float]], seeds: int = 3, **changes: object) -> pd.DataFrame:
    """Rows of schemes by budget: nats at 128 and 512, the same for all seeds but for a little."""
    return pd.concat(
        [
            scheme_rows(scheme, {n: [value + noise for noise in APART[i][:seeds]] for n in (128, 512)},
                        setting=f"max_steps={steps}", run=f"{scheme}-max_steps={steps}", **changes)
            for i, (scheme, by_budget) in enumerate(nll.items()) for steps, value in by_budget.items()
        ],
        ignore_index=True,
    )  # fmt: skip


def lost(scheme: str, steps: int, seed: int = 2, **changes: object) -> pd.DataFrame:
    """What a run that diverged leaves."""
    line = {"experiment": "made", "run": f"{scheme}-{steps}-{seed}", "scheme": scheme, "objective": "mlm", "data": "stdlib",
            "train_len": 128, "setting": f"max_steps={steps}", "seed": seed, "extension": "none", "protocol": "nonoverlap",
            "reason": "diverged at step 7"}  # fmt: skip
    return pd.DataFrame([line | {"eval_len": n} | changes for n in (128, 512)])[MISSING]


NLL = {
    "rope": {200: 2.0, 1600: 1.0, 400: 1.5, 800: 1.2},
    "alibi": {200: 1.5, 1600: 1.3, 400: 1.4, 800: 1.35},
    "nope": {200: 3.0, 1600: 2.0, 400: 2.9, 800: 2.5},
}


def pair(found: Statistics, a: str, b: str, eval_len: int = 128) -> pd.DataFrame:
    lines = found.stability
    lines = lines[(lines["eval_len"] == eval_len) & (lines["scheme_a"] == a) & (lines["scheme_b"] == b)]
    assert len(lines)
    return lines.reset_index(drop=True)


def told(lines: pd.DataFrame) -> tuple[object, ...]:
    assert (lines[["stability", "otherwise"]].nunique() == 1).all()
    since = lines["since"].iloc[0]
    return lines["stability"].iloc[0], None if pd.isna(since) else int(since), bool(lines["otherwise"].iloc[0])


def test_budgets_are_numbers_in_their_order():
    found = Statistics(rows_of(NLL))
    lines = pair(found, "rope", "alibi")
    assert lines["steps"].tolist() == [200, 400, 800, 1600]
    assert lines["verdict"].tolist() == ["b", "b", "a", "a"]
    assert told(lines) == (STABLE, 800, True)
    assert lines["difference"].to_numpy() == pytest.approx([0.5, 0.1, -0.15, -0.3], abs=0.01)
    assert told(pair(found, "rope", "nope")) == (STABLE, 200, False)
    assert not found.stability["setting"].any()


@pytest.mark.slow
def test_a_lead_that_shrinks_is_seen_though_its_verdict_is_stable():
    """Stable by every verdict, and the next doubling may well turn it: the trend is told beside it."""
    gap = {100: 0.8, 200: 0.4, 400: 0.2, 800: 0.1, 1600: 0.05}
    nll = {"rope": dict.fromkeys(gap, 2.0), "alibi": {n: 2.0 + by for n, by in gap.items()}}
    lines = pair(Statistics(rows_of(nll)), "rope", "alibi")
    assert told(lines) == (STABLE, 100, False)
    assert (lines["change"] == lines["change"].iloc[0]).all()
    assert lines["change"].iloc[0] == pytest.approx(-0.05)
    assert lines["change_high"].iloc[0] < 0
    turned = pair(Statistics(rows_of({"alibi": nll["alibi"], "rope": nll["rope"]})), "alibi", "rope")
    assert turned["change"].iloc[0] == pytest.approx(-0.05), "of the lead, whoever stands first"
    assert (turned["change_low"] <= turned["change"]).all()
    assert (turned["change"] <= turned["change_high"]).all()
    grows = pair(Statistics(rows_of(NLL)), "rope", "alibi")
    assert grows["change"].iloc[0] == pytest.approx(0.15)
    assert grows["change_low"].iloc[0] > 0


def test_change_is_paired_by_seed():
    """Seeds that differ at both budgets alike say nothing against a change."""
    rows = rows_of({"rope": {100: 2.0, 200: 2.0}, "alibi": {100: 2.5, 200: 2.6}})
    rows = rows.assign(nll_sum=rows["nll_sum"] + rows["seed"] * rows["n_tokens"] * (rows["scheme"] == "alibi"))
    compared = Statistics(rows).pairs.assign(verdict="a")
    found = Statistics(rows)
    vars(found)["pairs"] = compared
    lines = pair(found, "rope", "alibi")
    assert lines["change"].iloc[0] == pytest.approx(0.1)
    assert lines["change_high"].iloc[0] - lines["change_low"].iloc[0] < 1e-9


@pytest.mark.slow
def test_a_seed_that_diverged_leaves_no_verdict_over_the_others():
    """The seeds that are left would flatter the scheme."""
    rows = rows_of(NLL)
    gone = (rows["scheme"] == "rope") & (rows["setting"] == "max_steps=1600") & (rows["seed"] == 2)
    found = Statistics(rows[~gone], lost("rope", 1600))
    assert told(pair(found, "rope", "alibi")) == (LACKING, None, True)
    assert pair(found, "rope", "alibi")["change"].isna().all()
    assert told(pair(found, "alibi", "nope")) == (STABLE, 200, False)
    in_between = (rows["scheme"] == "rope") & (rows["setting"] == "max_steps=800")
    found = Statistics(rows[~in_between], pd.concat([lost("rope", 800, seed) for seed in range(3)]))
    assert told(pair(found, "rope", "nope")) == (NEW, 1600, False), (
        "a budget at which all its runs diverged is none that holds"
    )
    assert pair(found, "rope", "nope")["verdict"].tolist() == ["a", "a", LACKING, "a"]


@pytest.mark.slow
def test_a_run_that_was_never_made_leaves_no_verdict_either():
    """A sweep that was stopped: nothing tells of the run but those of other budgets and schemes."""
    rows = rows_of(NLL)
    gone = (rows["scheme"] == "rope") & (rows["setting"] == "max_steps=1600") & (rows["seed"] == 2)
    made, diverged = Statistics(rows[~gone]).stability, Statistics(rows[~gone], lost("rope", 1600)).stability
    assert made.equals(diverged)
    assert not made.equals(Statistics(rows).stability)


def test_a_budget_of_which_nothing_is_left_is_a_budget():
    rows = rows_of({scheme: {n: v for n, v in by.items() if n < 1600} for scheme, by in NLL.items()})
    missing = pd.concat([lost(scheme, 1600, seed) for scheme in NLL for seed in range(3)])
    found = Statistics(rows, missing)
    assert set(found.stability["stability"]) == {LACKING}


@pytest.mark.slow
def test_what_is_lost_at_one_length_is_lost_there_alone():
    found = Statistics(rows_of(NLL), lost("rope", 1600)[1:])
    assert told(pair(found, "rope", "alibi")) == (STABLE, 800, True)
    assert told(pair(found, "rope", "alibi", 512))[0] == LACKING
    controls = lost("rope", 1600).assign(extension="window")
    assert told(pair(Statistics(rows_of(NLL), controls), "rope", "alibi", 512))[0] == STABLE


def test_a_scheme_that_sees_what_it_should_predict_has_no_verdict():
    found = Statistics(rows_of(NLL))
    vars(found)["impossible"] = {("mlm", "stdlib", 128, "max_steps=1600", "rope")}
    assert told(pair(found, "rope", "alibi"))[0] == LACKING
    assert told(pair(found, "alibi", "nope"))[0] == STABLE


def test_one_seed_decides_nothing_at_any_budget():
    assert set(Statistics(rows_of(NLL, seeds=1)).stability["stability"]) == {OPEN}


@pytest.mark.slow
def test_what_else_varies_has_stabilities_of_its_own():
    one, other = rows_of(NLL), rows_of({"rope": NLL["alibi"], "alibi": NLL["rope"], "nope": NLL["nope"]})
    rows = pd.concat([one.assign(setting=one["setting"] + ", lr=0.1"), other.assign(setting="lr=0.2, " + other["setting"])])
    lines = Statistics(rows).stability
    lines = lines[(lines["eval_len"] == 128) & (lines["scheme_b"] == "alibi") & (lines["steps"] == 1600)]
    assert dict(zip(lines["setting"], lines["verdict"], strict=True)) == {"lr=0.1": "a", "lr=0.2": "b"}


@pytest.mark.parametrize("setting", ["", "lr=0.1", "max_steps=100"])
def test_without_several_budgets_there_is_nothing_to_say(setting):
    assert Statistics(scheme_rows("rope", {128: [1.0, 1.1]}, setting=setting)).stability.empty
    rows = pd.concat([scheme_rows(s, {128: [1.0, 1.1]}, setting=setting) for s in ("rope", "alibi")])
    assert Statistics(rows).stability.empty


# what people read


def cells(page: str, where: str) -> dict[tuple[str, str], list[str]]:
    """The lines of one table, by better and worse."""
    block = page.split(f"**{where}")[1].split("\n\n")[2]
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in block.splitlines()[2:]]
    return {(line[0], line[1]): line[2:] for line in lines}


@pytest.mark.slow
def test_the_page_has_every_budget_and_what_becomes_of_the_verdict():
    rows = rows_of(NLL)
    gone = (rows["scheme"] == "nope") & (rows["setting"] == "max_steps=800")
    found = Statistics(rows[~gone], pd.concat([lost("nope", 800, seed) for seed in range(3)]))
    page = budget_page(found)
    [text] = budget_text(found)
    table = cells(page, "nonoverlap, 128")
    *leads, verdict, trend = table["rope", "alibi"]
    assert [lead[:4] for lead in leads] == ["**-0", "**-0", "**0.", "**0."], "two were decided the other way"
    assert [float(lead.strip("*")) for lead in leads] == pytest.approx([-0.5, -0.1, 0.15, 0.3], abs=0.01)
    assert (verdict, trend) == ("stable from 800, after the opposite", "grows")
    assert table["rope", "nope"][2:] == ["–", table["rope", "nope"][3], "not yet stable", ""]
    assert "Not measured: nope-800-0 (diverged at step 7)" in page
    told = "3 pairs: 1 stable (1 from 800 steps on; 1 after the opposite), 2 not yet stable"
    assert page.count(f"{told}.") == 2
    assert text == f"By budget, at 128 (nonoverlap) {told}; at 512 (nonoverlap) {told}."
    assert " ".join(text.split()) in " ".join(answer(found).split())


def test_what_was_decided_and_is_no_longer_is_told():
    nll = {"rope": {100: 1.0, 200: 1.0}, "alibi": {100: 1.5, 200: 1.0}}
    found = Statistics(rows_of(nll))
    [line] = cells(budget_page(found), "nonoverlap, 128").values()
    assert line[-2:] == ["open, decided before", ""]
    assert "1 open (1 decided before)" in budget_text(found)[0]


def test_no_zero_is_negative():
    assert "-0.000" not in budget_page(Statistics(rows_of({"rope": {100: 1.0, 200: 1.0}, "alibi": {100: 1.0, 200: 1.0}})))


@pytest.mark.slow
def test_the_figure_shows_perplexity_at_l_and_at_4_l_by_budget():
    rows = pd.concat([rows_of(NLL), rows_of(NLL, protocol="same_targets")])
    gone = (rows["scheme"] == "nope") & (rows["setting"] == "max_steps=800")
    [(group, figure, points)] = budget_figures(Statistics(rows[~gone]))
    assert group == ()
    assert set(zip(points["protocol"], points["eval_len"], strict=True)) == {("nonoverlap", 128), ("same_targets", 512)}
    rope = points[(points["scheme"] == "rope") & (points["eval_len"] == 128)]
    assert rope["steps"].tolist() == [200, 400, 800, 1600]
    assert np.log(rope["ppl"].to_numpy()) == pytest.approx([2.0, 1.5, 1.2, 1.0], abs=0.01)
    assert (rope["ppl_low"] < rope["ppl"]).all()
    assert (rope["ppl"] < rope["ppl_high"]).all()
    upper, lower = figure.axes
    assert (upper.get_xscale(), upper.get_yscale()) == ("log", "log")
    assert [tick.get_text() for tick in lower.get_xticklabels()] == ["200", "400", "800", "1,600"]
    drawn = [line.get_ydata() for line in upper.get_lines() if len(line.get_ydata()) == 4]
    assert [np.isnan(line).sum() for line in drawn].count(1) == 1, (
        "a budget that nope has no number at is a hole in its line"
    )
    assert "max_steps" not in figure._suptitle.get_text()
    assert figure.get_figwidth() < 3.4


@pytest.mark.slow
@pytest.mark.usefixtures("svg_alone")
def test_a_report_over_budgets_and_only_such_a_one_has_the_page(tmp_path):
    write_report(Statistics(rows_of({scheme: {200: 1.0, 1600: 0.9} for scheme in ("rope", "alibi")})), tmp_path)
    assert {path.name for path in tmp_path.glob("*") if re.match("budget|stability", path.name)} == {
        "budget.md", "budget.svg", "budget.csv", "stability.csv"}  # fmt: skip
    (other := tmp_path / "other").mkdir()
    write_report(Statistics(scheme_rows("rope", {128: [1.0, 1.1], 256: [1.0, 1.1]})), other)
    assert not [*other.glob("budget*"), *other.glob("stability*")]


@pytest.mark.slow
def test_two_groups_have_figures_of_their_own():
    rows = rows_of(NLL)
    several = pd.concat([rows.assign(setting=rows["setting"] + f", lr={lr}") for lr in ("0.1", "0.2")])
    found = Statistics(several)
    assert [group[-1] for group, *_ in budget_figures(found)] == ["lr=0.1", "lr=0.2"]
    assert [re.search(r"lr=0\.\d", text)[0] for text in budget_text(found)] == ["lr=0.1", "lr=0.2"]


# the experiment


def test_every_budget_of_the_experiment_has_its_warm_up():
    grid = compose_grid(["experiment=budget", "position=rope", "seed=0"])
    steps = [config.train.max_steps for config in grid]
    assert steps == [100, 200, 400, 800, 1600]
    assert all(config.vary == ["train.max_steps"] for config in grid)
    assert all(config.train.warmup_steps <= 0.5 * steps[0] for config in grid)
