"""Head by scheme: what another output changes, and whether it changes two schemes alike."""

import numpy as np
import pandas as pd
import pytest
from rows import both_protocols, many, shuffled

from extrap.report.output import output_page
from extrap.report.report import write_report
from extrap.stats.output import interactions
from extrap.stats.statistics import Statistics

SEEDS = np.array([0.3, 0.0, -0.2, 0.1])  # what seeds do, the same to all trainings of a scheme
NOISE = np.array([0.001, -0.001, 0.002, -0.002])  # and what is left of that
# what an output adds to each scheme, nats
EFFECTS = {"untied": {"rope": 0.0, "alibi": 0.0, "t5": 0.0}, "tied": {"rope": 0.05, "alibi": 0.05, "t5": -0.1},
           "tied_head": {"rope": 0.02, "alibi": 0.12, "t5": 0.0}}  # fmt: skip


def rows_of(effects=EFFECTS, more: str = "", n_seeds: int = 4) -> pd.DataFrame:
    tables = []
    for k, (output, of) in enumerate(effects.items()):
        curves = {}
        for i, (scheme, add) in enumerate(of.items()):
            by_seed = (add + SEEDS * (1 + i) + NOISE * (k + 1 - i))[:n_seeds]
            curves[scheme] = {128: list(1.4 + by_seed), 512: list(1.5 + by_seed)}
        tables.append(both_protocols(curves, setting=f"{more}output={output}", objective="causal"))
    return shuffled(pd.concat(tables, ignore_index=True))


def test_effects_are_those_of_the_rows_paired_by_seed():
    lines = Statistics(rows_of()).outputs.set_index(["protocol", "eval_len", "scheme", "output"])
    assert len(lines) == 2 * 2 * 3 * 2
    for (*_, scheme, output), line in lines.iterrows():
        assert line["difference"] == pytest.approx(EFFECTS[output][scheme], abs=1e-12)
        assert line["high"] - line["low"] < 0.02, "what seeds do to both is taken out"
        expected = np.select([EFFECTS[output][scheme] > 0, EFFECTS[output][scheme] < 0], ["b", "a"], "undecided")
        assert line["verdict"] == expected
        assert (line["n_seeds"], line["n_pairs"]) == (4, 6)


def test_interactions_are_differences_of_differences():
    found = Statistics(rows_of())
    lines = found.interactions.set_index(["protocol", "eval_len", "output", "scheme_a", "scheme_b"])
    assert len(lines) == 2 * 2 * 2 * 3
    for (_, _, output, a, b), line in lines.iterrows():
        difference = EFFECTS[output][a] - EFFECTS[output][b]
        assert line["difference"] == pytest.approx(difference, abs=1e-12)
        assert line["high"] - line["low"] < 0.02
        assert line["verdict"] == ("undecided" if difference == 0 else "a" if difference < 0 else "b")
        assert line["p"] <= line["p_holm"] <= 1


def test_the_interval_is_that_of_the_four_means():
    rows = rows_of()
    sums = rows.groupby(["protocol", "eval_len", "scheme", "setting", "seed"])[["nll_sum", "n_tokens"]].sum()
    log_ppl = (sums["nll_sum"] / sums["n_tokens"]).loc["nonoverlap", 512].unstack("seed")
    effect = log_ppl.xs("output=tied_head", level="setting") - log_ppl.xs("output=untied", level="setting")
    by_seed = (effect.loc["rope"] - effect.loc["alibi"]).to_numpy()
    half = 3.182446 * by_seed.std(ddof=1) / 2  # t at 97.5 % of three degrees of freedom
    lines = Statistics(rows).interactions
    line = lines[(lines["output"] == "tied_head") & (lines["eval_len"] == 512) & (lines["protocol"] == "nonoverlap")]
    line = line[{*["rope", "alibi"]} == line[["scheme_a", "scheme_b"]].apply(set, axis=1)].iloc[0]
    sign = 1 if line["scheme_a"] == "rope" else -1
    assert sign * line["difference"] == pytest.approx(by_seed.mean())
    assert (line["high"] - line["low"]) / 2 == pytest.approx(half, rel=1e-6)


def test_seeds_that_one_training_lacks_are_left_out_of_both():
    rows = rows_of()
    lacks = rows[~((rows["scheme"] == "rope") & (rows["setting"] == "output=tied") & (rows["seed"] == 0))]
    lines = Statistics(lacks).outputs.set_index(["scheme", "output"])
    assert set(lines.loc[("rope", "tied"), "n_seeds"]) == {3}
    assert lines.loc[("rope", "tied"), "difference"].to_numpy() == pytest.approx(0.05, abs=0.002)
    between = Statistics(lacks).interactions
    of_tied = between[between["output"] == "tied"]
    assert not {"rope"} & {*of_tied["scheme_a"], *of_tied["scheme_b"]}, "who lacks a seed is not put beside others"


@pytest.mark.parametrize(
    ("setting", "verdicts"), [("output=tied", {"undecided"}), ("output=untied", {"a"}), ("output=tied_head", {"a"})]
)
def test_an_output_of_which_a_seed_broke_wins_on_none_of_the_others(setting, verdicts):
    rows = rows_of()
    rows = rows[~((rows["scheme"] == "t5") & (rows["setting"] == setting) & (rows["seed"] == 0))]
    at = {"experiment": "made", "run": "t5", "scheme": "t5", "objective": "causal", "data": "stdlib", "train_len": 128}
    at |= {"setting": setting, "seed": 0, "extension": "none", "reason": "not a number"}
    missing = [at | {"protocol": protocol, "eval_len": n} for protocol in ("nonoverlap", "same_targets") for n in (128, 512)]
    lines = Statistics(rows, pd.DataFrame(missing)).outputs.set_index(["scheme", "output"])
    assert {*lines.loc[("t5", "tied"), "verdict"]} == verdicts
    assert {*lines.loc[("rope", "tied"), "verdict"]} == {"b"}


def test_one_seed_decides_nothing_and_nothing_is_said_where_nothing_varies():
    assert {*Statistics(rows_of(n_seeds=1)).outputs["verdict"]} == {"undecided"}
    assert {*Statistics(rows_of(n_seeds=1)).interactions["verdict"]} == {"undecided"}
    plain = many({"rope": {128: [1.0, 1.1]}, "alibi": {128: [1.2, 1.3]}})
    assert Statistics(plain).outputs.empty
    assert Statistics(plain).interactions.empty
    without = {output: effect for output, effect in EFFECTS.items() if output != "untied"}
    assert Statistics(rows_of(without)).outputs.empty, "there is nothing to compare with"
    assert interactions(rows_of(without), Statistics(rows_of(without)).sound_pairs).empty


def test_nothing_is_compared_across_what_else_varies():
    slow = {output: {scheme: 0.5 + add for scheme, add in of.items()} for output, of in EFFECTS.items()}
    rows = pd.concat([rows_of(more="lr=0.004, "), rows_of(slow, more="lr=0.008, ")])
    alone = Statistics(rows_of()).outputs
    found = Statistics(rows).outputs
    assert {*found["setting"]} == {"lr=0.004", "lr=0.008"}
    for _, part in found.groupby("setting"):
        assert part["difference"].sum() == pytest.approx(alone["difference"].sum())


def test_the_page_shows_heads_by_schemes(tmp_path, undrawn):
    found = Statistics(rows_of())
    page = output_page(found)
    assert "**same_targets, 512: other outputs, causal on stdlib, training length 128**" in page
    lines = [line.replace(" ", "") for line in page.splitlines()]
    assert any(line.startswith("|t5|") and "|**-0.100**±" in line for line in lines)
    assert any(line.startswith(("|rope|alibi|", "|alibi|rope|")) and "0.100**±" in line for line in lines)
    assert any("|rope|" in line and "|+0.000±" in line for line in lines), "not bold where nothing is decided"
    write_report(found, tmp_path)
    assert {"output.md", "outputs.csv", "interactions.csv"} <= {path.name for path in tmp_path.iterdir()}
    assert len(pd.read_csv(tmp_path / "outputs.csv")) == 24
