"""Sweeps over more than position and seed: what rows say of it, what is compared, and the best rate for each scheme."""

import re
from dataclasses import replace
from unittest.mock import patch

import numpy as np
import pandas as pd
import pytest
from marks import slow
from rows import many, scheme_rows
from sweeps import report, run

from experiments.papers import remake
from extrap.config.compose import compose_grid
from extrap.config.varied import named
from extrap.data.documents import Documents
from extrap.data.markov import Markov
from extrap.errors import UserError
from extrap.report.about import chosen_text
from extrap.report.answer import answer
from extrap.report.choice import choice_page, choice_text
from extrap.report.figures import perplexity_figure
from extrap.report.latex import choose, latex_tables, narrow_table
from extrap.report.pairs import pairs_figure
from extrap.report.report import report_again, write_report
from extrap.results.folders import RunFolder, common, refuse_mixed
from extrap.results.rows import MISSING, SELECTION, TRAINING, load_rows, save_rows, scored
from extrap.results.shown import rounded, save_table
from extrap.stats.choice import best_over, load_choice, one_for_all
from extrap.stats.pairs import LACKING, pairs
from extrap.stats.statistics import Statistics

SMOKE = ["experiment=smoke", "position=rope,alibi", "seed=0,1"]

# configs


@pytest.mark.slow
def test_what_varies_names_runs_and_settings():
    grid = compose_grid([*SMOKE, "train.lr=1e-3,2e-3", "model.n_layers=1,2"])
    assert {tuple(config.vary) for config in grid} == {("model.n_layers", "train.lr")}
    assert len({config.run for config in grid}) == len(grid) == 16
    assert grid[0].run == "rope-n_layers=1-lr=0.001-seed0"
    assert {config.setting for config in grid} == {f"n_layers={n}, lr={lr}" for n in (1, 2) for lr in ("0.001", "0.002")}


@pytest.mark.slow
def test_what_columns_tell_stands_in_names_of_runs_alone():
    [a, b] = compose_grid(["experiment=smoke", "position=rope", "seed=0", "data=stdlib,markov"])
    assert (a.vary, a.setting, b.setting) == (["data"], "", "")
    assert (a.run, b.run) == ("rope-data=stdlib-seed0", "rope-data=markov-seed0")
    [a, b] = compose_grid(["experiment=smoke", "position=rope", "seed=0", "train.train_len=32,64"])
    assert (a.vary, b.setting, b.run, b.eval.windows) == (["train.train_len"], "", "rope-train_len=64-seed0", [64])


@pytest.mark.slow
def test_a_sweep_over_position_and_seed_is_what_it_was():
    for config in compose_grid(SMOKE):
        assert config.vary == []
        assert config.setting == ""
        assert "vary" not in config.identity()
        assert config.references.name == "reference"
    assert compose_grid(SMOKE)[0].run == "rope-seed0"


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("train.lrr=1,2", "train.lrr"),
        ("eval.stride=8,16", "a sweep is over"),
        ("name=a,b", "a sweep is over"),
        ("vary=[lr]", "vary: expected options of"),
        ("train.lr=-1,1", "train.lr: expected a positive number"),
    ],
)
def test_a_sweep_over_what_is_no_setting_is_one_line(override, told):
    with pytest.raises(UserError, match=told.replace("[", r"\[")) as refused:
        compose_grid([*SMOKE, override])
    assert "\n" not in str(refused.value)


def identity(config):
    """As it stands in a run's folder: with the precision of the machine."""
    return config.identity() | {"train": config.identity()["train"] | {"precision": "fp32"}}


def finished(folder, config, **changes):
    RunFolder(folder / config.run).claim(identity(config) | changes)
    (folder / config.run / "eval.csv").touch()


@pytest.mark.slow
def test_runs_differ_in_what_varies_and_in_nothing_else(tmp_path):
    grid = compose_grid([*SMOKE, "train.lr=1e-3,2e-3"])
    for config in grid:
        finished(tmp_path, config)
    refuse_mixed(tmp_path)
    [other] = compose_grid(["experiment=smoke", "position=nope", "seed=0", "train.lr=4e-3", "vary=[train.lr]"])
    refuse_mixed(tmp_path, {other.run: identity(other)})  # one rate more
    [other] = compose_grid(["experiment=smoke", "position=nope", "seed=0", "train.lr=4e-3", "train.max_steps=40",
                            "vary=[train.lr]"])  # fmt: skip
    with pytest.raises(UserError, match=r"train\.max_steps: 20 -> 40"):  # which no setting would show
        refuse_mixed(tmp_path, {other.run: identity(other)})
    [alone] = compose_grid(["experiment=smoke", "position=nope", "seed=0", "train.lr=4e-3"])
    with pytest.raises(UserError, match="vary"):
        refuse_mixed(tmp_path, {alone.run: identity(alone)})


@pytest.mark.slow
def test_what_follows_from_a_setting_is_the_same_within_it(tmp_path):
    grid = compose_grid([*SMOKE, "data=stdlib,markov", "train.train_len=32,64"])
    for config in grid:
        finished(tmp_path, config, data=identity(config)["data"] | {"sha256": config.data["_target_"]})
    refuse_mixed(tmp_path)
    assert common(identity(grid[0]))["data"] == {}
    one = grid[0]
    with pytest.raises(UserError, match=r"data\.sha256"):
        refuse_mixed(tmp_path, {"one-more": identity(one) | {"data": identity(one)["data"] | {"sha256": "another"}}})


# text to choose on


def text(*lengths):
    letters = np.random.default_rng(0).integers(97, 123, size=sum(lengths), dtype=np.uint8).tobytes()
    ends = np.cumsum(lengths)
    return {f"{i}": letters[end - n : end] for i, (n, end) in enumerate(zip(lengths, ends, strict=True))}


@pytest.mark.parametrize("lengths", [(5_000,), (40, 900, 16, 2_000, 15, 3_000), (16,) * 400])
def test_what_is_held_back_is_never_trained_on(lengths):
    source, whole = Documents(text(*lengths), text(64)), Documents(text(*lengths), text(64))
    held_back = source.hold_back(16, 20)
    n = len(held_back.tokens)
    assert held_back.tokens.shape == (min(20, whole._n_starts(16).sum() // 160), 16)
    assert sum(lengths) / 10 >= n * 16
    stream = b"".join(text(*lengths).values())
    at = [stream.find(bytes(tokens.astype(np.uint8))) for tokens in held_back.tokens]
    taken = np.zeros(len(stream), dtype=bool)
    for start in at:
        assert not taken[start : start + 16].any()  # no two overlap
        taken[start : start + 16] = True
    drawn = source.batch(np.random.default_rng(0), 5_000, 16)
    trained = {stream.find(bytes(tokens.astype(np.uint8))) for tokens in drawn}
    assert not any(taken[start : start + 16].any() for start in trained)
    assert len(trained) > 0.5 * (whole._n_starts(16).sum() - n * 31)  # and all else still is
    left = np.frombuffer(stream, dtype=np.uint8)[~taken]
    counts = np.bincount(left, minlength=256) + 1
    np.testing.assert_allclose(source.unigram_nll(0), -np.log(counts / counts.sum()))


def test_too_little_text_holds_nothing_back():
    source = Documents(text(100), text(64))
    assert source.hold_back(16, 20) is None
    np.testing.assert_array_equal(source._train_lengths, [100])


def test_documents_of_a_chain_that_are_held_back_are_not_those_that_are_scored():
    source = Markov(8, 0.3)
    held_back, held_out = source.hold_back(64, 8), source.held_out(64, 8)
    assert len(np.unique(np.concatenate([held_back.tokens, held_out.tokens]), axis=0)) == 16
    np.testing.assert_array_equal(held_back.tokens, Markov(8, 0.3).hold_back(64, 8).tokens)


# rows


def rates(losses, on_held_back):
    """Rows of schemes by rate: nats at 128 by seed on what is scored, and on what is held back."""
    parts = []
    for (scheme, rate), by_seed in losses.items():
        parts.append(scheme_rows(scheme, {128: by_seed, 256: by_seed}, setting=f"lr={rate}"))
        parts.append(scheme_rows(scheme, {128: on_held_back[scheme, rate]}, setting=f"lr={rate}", kind=SELECTION,
                                 protocol=SELECTION))  # fmt: skip
    parts += [scheme_rows("unigram", {128: [2.0], 256: [2.0]}, kind="unigram", setting=f"lr={rate}")
              for rate in dict.fromkeys(rate for _, rate in losses)]  # fmt: skip
    return pd.concat(parts, ignore_index=True)


NOTHING = pd.DataFrame(columns=MISSING), pd.DataFrame(columns=TRAINING)
SCORED = {("rope", "0.001"): [1.0, 1.1], ("rope", "0.002"): [1.2, 1.3], ("alibi", "0.001"): [1.3, 1.4],
          ("alibi", "0.002"): [1.1, 1.2], ("rope", "0.0005"): [1.5, 1.6], ("alibi", "0.0005"): [1.5, 1.6]}  # fmt: skip
# the other way round for rope
HELD_BACK = SCORED | {("rope", "0.001"): [1.2, 1.3], ("rope", "0.002"): [1.0, 1.1], ("alibi", "0.001"): [1.05, 1.06]}


def chosen_of(best):
    lines = best.choice[best.choice["chosen"]]
    return dict(zip(lines["scheme"], lines["value"], strict=True))


def test_the_best_rate_is_chosen_on_what_is_held_back():
    best = best_over(rates(SCORED, HELD_BACK), *NOTHING, "train.lr", ["train.lr"])
    assert chosen_of(best) == {"rope": "0.002", "alibi": "0.001"}
    of_schemes = best.rows[best.rows["kind"] == "scheme"]
    assert not best.rows["setting"].any()
    assert SELECTION not in set(best.rows["kind"])
    sums = of_schemes[of_schemes["eval_len"] == 128].groupby(["scheme", "seed"])[["nll_sum", "n_tokens"]].sum()
    assert (sums["nll_sum"] / sums["n_tokens"]).round(6).tolist() == [1.3, 1.4, 1.2, 1.3]
    assert (best.rows["kind"] == "unigram").sum() == 4  # once, not once a rate
    [told] = chosen_text(best.choice)
    assert "rope: 0.002 of 0.0005, 0.001, 0.002, the highest tried" in told
    assert "alibi: 0.001 of 0.0005, 0.001, 0.002;" in told or "alibi: 0.001 of 0.0005, 0.001, 0.002." in told


def test_of_words_none_is_the_highest():
    """Their order is that of the alphabet."""
    rows = rates(SCORED, HELD_BACK)
    rows["setting"] = rows["setting"].replace(
        {"lr=0.0005": "output=tied", "lr=0.001": "output=a", "lr=0.002": "output=untied"}
    )
    choice = best_over(rows, *NOTHING, "model.output", ["model.output"]).choice
    assert set(choice["border"]) == {""}
    assert "tried" not in " ".join(chosen_text(choice))


def test_of_values_that_come_to_the_same_none_is_a_border():
    """As where a scheme has no use for the option."""
    flat = {(scheme, rate): [1.0] * len(held) for (scheme, rate), held in HELD_BACK.items()}
    best = best_over(rates(SCORED, flat), *NOTHING, "train.lr", ["train.lr"])
    assert set(best.choice["border"]) == {"tied"}
    assert best.choice.loc[best.choice["chosen"], "value"].unique().tolist() == ["0.0005"]
    [told] = chosen_text(best.choice)
    assert "rope: 0.0005 of 0.0005, 0.001, 0.002, all of the same loss" in told


def test_where_all_runs_of_a_group_diverged_nothing_is_chosen_and_the_others_are_told():
    rows = rates(SCORED, HELD_BACK)
    gone = rows[rows["kind"] == "scheme"].drop_duplicates("run").assign(train_len=256, reason="diverged at step 3")
    best = best_over(rows, gone[MISSING], NOTHING[1], "train.lr", ["train.lr"])
    told = chosen_text(best.choice)
    assert told[0].startswith("Each scheme has its own train.lr (mlm on stdlib, training length 128)")
    where = "(mlm on stdlib, training length 256)"
    assert told[1:] == [f"No scheme has a value of train.lr with a loss on the text that was held back {where}."]


def test_a_value_at_which_one_scheme_alone_has_numbers_is_not_passed_over():
    rows = rates(SCORED, HELD_BACK)
    rows = rows[(rows["scheme"] != "alibi") | (rows["setting"] != "lr=0.002")]
    best = best_over(rows, *NOTHING, "train.lr", ["train.lr"])
    beside = one_for_all(rows, NOTHING[0], "train.lr", ["train.lr"], best)
    assert beside.groupby("value")["verdict"].agg(set)["0.002"] == {LACKING}
    assert set(beside["value"]) == {"0.0005", "0.001", "0.002"}


def test_whoever_chose_on_what_is_scored_would_choose_otherwise():
    """The mutant: with the scored rows in place of those held back, rope takes the rate that flatters it."""
    rows = rates(SCORED, SCORED)
    assert chosen_of(best_over(rows, *NOTHING, "train.lr", ["train.lr"])) == {"rope": "0.001", "alibi": "0.002"}


def test_a_rate_at_which_a_seed_diverged_is_not_chosen():
    rows = rates(SCORED, HELD_BACK)
    gone = (rows["scheme"] == "rope") & (rows["setting"] == "lr=0.002") & (rows["seed"] == 1)
    line = {"experiment": "made", "run": "rope-lr=0.002-seed1", "scheme": "rope", "objective": "mlm", "data": "stdlib",
            "train_len": 128, "setting": "lr=0.002", "seed": 1, "extension": "none", "protocol": "nonoverlap",
            "eval_len": 128, "reason": "diverged at step 7"}  # fmt: skip
    missing = pd.DataFrame([line])[MISSING]
    best = best_over(rows[~gone], missing, NOTHING[1], "train.lr", ["train.lr"])
    assert chosen_of(best)["rope"] == "0.001"
    assert best.missing.empty  # of a rate that nobody looks at
    assert "not all seeds have a loss at 0.002" in chosen_text(best.choice)[0]
    nowhere = pd.concat([missing.assign(scheme="t5", setting=f"lr={rate}") for rate in ("0.001", "0.002")])
    assert (
        "t5: none of 0.001, 0.002" in chosen_text(best_over(rows, nowhere, NOTHING[1], "train.lr", ["train.lr"]).choice)[0]
    )
    assert set(best_over(rows, nowhere, NOTHING[1], "train.lr", ["train.lr"]).missing["scheme"]) == {"t5"}


def test_a_value_with_more_seeds_is_judged_on_those_that_all_have():
    """The others have all theirs: no seed of them diverged."""
    scored_on, held_back = (
        {key: [*losses, *([0.1] if key == ("rope", "0.0005") else [])] for key, losses in of.items()}
        for of in (SCORED, HELD_BACK)
    )
    best = best_over(rates(scored_on, held_back), *NOTHING, "train.lr", ["train.lr"])
    assert chosen_of(best)["rope"] == "0.002"
    assert set(best.choice.query("scheme == 'rope'")["n_seeds"]) == {2}
    assert best.choice["loss"].notna().all()


# one value for all


THREE = ("rope", "alibi", "nope")


def beside(losses, on_held_back=None, missing=NOTHING[0], keep=slice(None)):
    rows = rates(losses, on_held_back or losses)[keep]
    best = best_over(rows, missing, NOTHING[1], "train.lr", ["train.lr"])
    return rows, replace(best, one_for_all=one_for_all(rows, missing, "train.lr", ["train.lr"], best))


def line_of(found, value, a, b, eval_len=128):
    lines = found.one_for_all
    [line] = lines[
        (lines[["value", "scheme_a", "scheme_b"]] == [value, a, b]).all(axis=1) & (lines["eval_len"] == eval_len)
    ].itertuples()
    return line


@pytest.mark.slow
def test_pairs_with_one_rate_for_all_stand_beside_those_with_each_at_its_best():
    """rope is best at 0.002 and alibi at 0.001, where the other one is bad: with one rate for both either may win."""
    rows, found = beside(SCORED, HELD_BACK)
    assert len(found.one_for_all) == 3 * 2  # rates, lengths
    assert (found.one_for_all[["setting", "option"]] == ["", "train.lr"]).all(axis=None)
    at = {value: line_of(found, value, "alibi", "rope") for value in ("0.0005", "0.001", "0.002")}
    assert [(line.verdict, line.best_verdict) for line in at.values()] == [("undecided", "b"), ("b", "b"), ("a", "b")]
    assert [line.difference for line in at.values()] == pytest.approx([0.0, 0.3, -0.1])
    assert [line.best_difference for line in at.values()] == pytest.approx([0.1] * 3)  # 1.3 at 0.001, 1.2 at 0.002
    assert [line.change for line in at.values()] == pytest.approx([0.1, -0.2, 0.2])
    own = pairs(scored(rows)).query("setting == 'lr=0.002' and eval_len == 128").iloc[0]
    assert (at["0.002"].p_holm, -at["0.002"].difference) == pytest.approx((own["p_holm"], own["difference"]))
    page, [text] = choice_page(found), choice_text(found)
    assert "train.lr=0.0005: 2 of 2 verdicts differ with each scheme at its best (0 turned, 0 lost, 2 gained)" in text
    assert "train.lr=0.001: none of 2 verdicts differs with each scheme at its best" in text
    assert "train.lr=0.002: 2 of 2 verdicts differ with each scheme at its best (2 turned, 0 lost, 0 gained)" in text
    assert " ".join(text.split()) in " ".join(answer(found).split())
    lines = re.findall(r"^\| alibi − rope.*", page, re.MULTILINE)
    assert [[cell.strip() for cell in line.strip("|").split("|")] for line in lines] == [
        ["alibi − rope", "nonoverlap", n, one, "**+0.100**", change, how]
        for one, change, how in (("+0.000", "+0.100 ±0.000", "gained"), ("**-0.100**", "+0.200 ±0.000", "turns"))
        for n in ("128", "256")
    ]
    assert re.search(r"\| rope +\| +1.550 \| +1.250 \| \*\*1.050\*\* \|", page), "losses by rate, the chosen in bold"


def test_where_all_have_that_rate_as_their_best_nothing_changes():
    losses = {(scheme, rate): [base + add, base + add + 0.1] for scheme, base in zip(THREE, (1.0, 1.2, 1.5), strict=True)
              for rate, add in (("0.001", 0.0), ("0.002", 0.3))}  # fmt: skip
    _, found = beside(losses)
    same = found.one_for_all[found.one_for_all["value"] == "0.001"]
    assert (same[["change", "change_low", "change_high"]] == 0).all(axis=None)
    for column in ("difference", "low", "high", "p_holm", "n_seeds", "verdict"):
        assert (same[column] == same[f"best_{column}"]).all()
    assert "train.lr=0.001: none of 6 verdicts" in choice_text(found)[0]


@pytest.mark.slow
def test_the_same_models_may_have_another_verdict_by_the_order_of_holm():
    """rope and alibi stand at their best, but nope does not: the third pair decides what factor theirs is held to."""
    noise = [0.0, 0.0002, -0.0002, 0.0001, 0.0]
    wide = [0.01, -0.004, 0.006, 0.0, 0.004]
    losses = {("rope", "0.001"): [1.0] * 5, ("alibi", "0.001"): [1.0055 + e for e in wide],
              ("nope", "0.001"): [1.0 + 8 * (e - 0.003) for e in wide], ("rope", "0.002"): [2.0] * 5,
              ("alibi", "0.002"): [2.0] * 5, ("nope", "0.002"): [0.5 + e for e in noise]}  # fmt: skip
    _, found = beside(losses)
    line = line_of(found, "0.001", "alibi", "rope")
    assert (line.change, line.change_low, line.change_high) == (0, 0, 0)
    assert line.difference == line.best_difference
    assert line.p_holm > 0.05 > line.best_p_holm
    assert (line.verdict, line.best_verdict) == ("undecided", "b")


@pytest.mark.slow
def test_a_rate_at_which_a_seed_diverged_has_no_verdict_for_all():
    rows = rates(SCORED, HELD_BACK)
    gone = (rows["scheme"] == "rope") & (rows["setting"] == "lr=0.002") & (rows["seed"] == 1)
    line = {"experiment": "made", "run": "rope-lr=0.002-seed1", "scheme": "rope", "objective": "mlm", "data": "stdlib",
            "train_len": 128, "setting": "lr=0.002", "seed": 1, "extension": "none", "protocol": "nonoverlap",
            "reason": "diverged at step 7"}  # fmt: skip
    missing = pd.DataFrame([line | {"eval_len": n} for n in (128, 256)])[MISSING]
    _, found = beside(SCORED, HELD_BACK, missing, ~gone)
    lost = line_of(found, "0.002", "alibi", "rope")
    assert (lost.verdict, lost.best_verdict) == (LACKING, "b")
    assert np.isnan([lost.difference, lost.p_holm, lost.change]).all()
    assert "train.lr=0.002: 2 not compared." in choice_text(found)[0]


def test_what_is_chosen_of_one_scheme_has_nobody_to_be_put_beside():
    _, found = beside({key: value for key, value in SCORED.items() if key[0] == "rope"})
    assert found.one_for_all.empty
    assert choice_text(found) == []
    assert "for all" not in choice_page(found)


@pytest.mark.slow
def test_pairs_with_one_rate_are_read_as_they_were_written(tmp_path):
    _, found = beside(SCORED, HELD_BACK)
    save_table(tmp_path / "one_for_all.csv", found.one_for_all)
    save_table(tmp_path / "choice.csv", found.choice)
    choice, lines = load_choice(tmp_path)
    pd.testing.assert_frame_equal(lines, rounded(found.one_for_all), check_dtype=False)
    assert choice_page(replace(found, choice=choice, one_for_all=lines)) == choice_page(found)
    assert [table.empty for table in load_choice(tmp_path / "nothing")] == [True, True]


def test_what_else_varies_stays_and_each_of_it_chooses_for_itself():
    rows = rates(SCORED, HELD_BACK)
    other = rates(SCORED, SCORED).assign(setting=lambda table: table["setting"] + ", n_layers=4")
    both = pd.concat([rows.assign(setting=rows["setting"] + ", n_layers=2"), other])
    best = best_over(both, *NOTHING, "train.lr", ["train.lr"])
    lines = best.choice[best.choice["chosen"] & (best.choice["scheme"] == "rope")]
    assert dict(zip(lines["setting"], lines["value"], strict=True)) == {"n_layers=2": "0.002", "n_layers=4": "0.001"}


def test_an_option_whose_last_part_another_shares_is_chosen_by_its_whole_name():
    rows = rates(SCORED, HELD_BACK)
    both = rows.assign(setting="objective.mask_rate=0.15, " + rows["setting"].str.replace("lr", "train.mask_rate"))
    best = best_over(both, *NOTHING, "train.mask_rate", ["objective.mask_rate", "train.mask_rate"])
    assert chosen_of(best) == {"rope": "0.002", "alibi": "0.001"}
    assert set(best.rows["setting"]) == {"objective.mask_rate=0.15"}


@pytest.mark.parametrize("option", ["train.max_steps", "lr", "data.lr", "train.train_len", "model.lr", "train.nonsense.lr"])
def test_what_does_not_vary_is_not_chosen(option):
    with pytest.raises(UserError, match=f"BEST={option}: expected an option .* found train.lr"):
        best_over(rates(SCORED, HELD_BACK), *NOTHING, option, ["data.lr", "train.lr", "train.train_len"])


def test_without_text_to_choose_on_nothing_is_chosen():
    with pytest.raises(UserError, match="no training text was held back"):
        best_over(scored(rates(SCORED, HELD_BACK)), *NOTHING, "train.lr", ["train.lr"])


def test_schemes_are_compared_within_a_setting_only():
    rows = scored(rates(SCORED, HELD_BACK))
    compared = pairs(rows)
    assert set(compared["setting"]) == {"lr=0.001", "lr=0.002", "lr=0.0005"}
    assert (compared.groupby(["setting", "eval_len"]).size() == 1).all()
    # of other targets: they are not compared
    other = rows[rows["setting"] == "lr=0.002"].assign(n_tokens=lambda table: table["n_tokens"] * 2)
    assert len(pairs(pd.concat([rows[rows["setting"] != "lr=0.002"], other]))) == len(compared)


def test_a_table_has_no_column_of_settings_where_nothing_varies(tmp_path):
    rows = many({"rope": {128: [1.0, 1.1]}, "alibi": {128: [1.1, 1.2]}})
    save_rows(tmp_path / "rows.csv", rows)
    assert "setting" not in (tmp_path / "runs.csv").read_text()
    pd.testing.assert_frame_equal(load_rows(tmp_path / "rows.csv"), rows)
    save_rows(tmp_path / "rows.csv", varied := rows.assign(setting="lr=0.002"))
    pd.testing.assert_frame_equal(load_rows(tmp_path / "rows.csv"), varied)


def test_claims_and_figures_of_papers_average_over_no_settings(tmp_path):
    save_rows(tmp_path / "rows.csv", rates(SCORED, HELD_BACK))
    with pytest.raises(UserError, match="holds 3 settings"):
        remake.load_one_setting(tmp_path / "rows.csv")
    training = pd.DataFrame({"objective": "mlm", "data": "stdlib", "train_len": 128, "setting": ["lr=0.001", "lr=0.002"]})
    with patch.object(remake, "load_training", lambda path: training), pytest.raises(UserError, match="holds 2 settings"):
        remake.load_one_training(tmp_path / "training.csv")


@pytest.mark.slow
def test_every_setting_has_tables_and_figures_of_its_own(tmp_path):
    rows = scored(rates({key: SCORED[key] for key in SCORED if key[1] != "0.0005"}, HELD_BACK))
    write_report(Statistics(rows), tmp_path)
    for rate in ("0_001", "0_002"):
        for name in (f"perplexity_mlm_stdlib_128_lr_{rate}.svg", f"table_narrow_mlm_stdlib_128_lr_{rate}.tex"):
            assert (tmp_path / name).exists()
    points = pd.read_csv(tmp_path / "perplexity_mlm_stdlib_128_lr_0_002.csv")
    assert set(points["setting"]) == {"lr=0.002"}
    assert "training length 128, lr=0.002" in (tmp_path / "table.md").read_text()


@pytest.mark.usefixtures("svg_alone")
@pytest.mark.parametrize("rates_left", [1, *slow(2)])
def test_a_setting_in_which_all_runs_diverged_takes_nothing_from_the_others(tmp_path, rates_left):
    left = ("0.001", "0.002")[:rates_left]
    rows = rates({key: SCORED[key] for key in SCORED if key[1] in left}, HELD_BACK)
    references = rows[(rows["kind"] == "unigram") & (rows["setting"] == "lr=0.001")]
    rows = pd.concat(
        [
            rows,
            references.assign(setting="lr=10.0", run="unigram-lr=10.0-seed0"),
            references.assign(protocol="sliding(stride=8)"),
        ]
    )
    runs = [{"run": f"{scheme}-lr=10.0-seed{seed}", "scheme": scheme, "seed": seed, "eval_len": eval_len}
            for scheme in ("rope", "alibi") for seed in (0, 1) for eval_len in (128, 256)]  # fmt: skip
    labels = {"experiment": "made", "objective": "mlm", "data": "stdlib", "train_len": 128, "setting": "lr=10.0"}
    missing = pd.DataFrame(runs).assign(**labels, extension="none", protocol="nonoverlap", reason="diverged at step 7")
    save_rows(tmp_path / "rows.csv", rows)
    save_table(tmp_path / "missing.csv", missing[MISSING])
    report_again(tmp_path)
    found = Statistics(scored(rows), missing)
    table = (tmp_path / "table.md").read_text()
    assert {*pd.read_csv(tmp_path / "table.csv")["setting"]} == {f"lr={rate}" for rate in left}
    assert "**sliding" not in table
    assert len([*tmp_path.glob("perplexity*.svg")]) == 2 * rates_left
    told = answer(found)
    for text in (table, told, *(path.read_text().replace("\n% ", " ") for path in tmp_path.glob("table_n*p.tex"))):
        assert " ".join(text.split()).count("rope-lr=10.0-seed1 (diverged at step 7)") == 1
    assert not re.search("^missing ", told, re.MULTILINE), "nothing is missing at the other rates"
    best = best_over(rows, missing[MISSING], NOTHING[1], "train.lr", ["train.lr"])
    assert set(chosen_of(best).values()) <= {*left}
    assert "at 10.0" in chosen_text(best.choice)[0]
    write_report(replace(best, rows=scored(best.rows)), tmp_path)


@pytest.mark.slow
@pytest.mark.usefixtures("svg_alone")
def test_every_title_of_the_best_of_several_says_so(tmp_path):
    found = best_over(rates(SCORED, HELD_BACK), *NOTHING, "train.lr", ["train.lr"])
    told = "each scheme at its best train.lr"
    captions = [*latex_tables(found).values(), narrow_table(found, choose(found.rows))]
    assert all(told in re.search(r"\\caption{.*", text)[0] for text in captions)
    assert not any(told in text for text in latex_tables(Statistics(found.rows)).values())
    for figure in (perplexity_figure(found)[0], pairs_figure(found)):
        assert told in " ".join(figure._suptitle.get_text().split())


# all of it


@pytest.mark.slow
def test_a_sweep_over_rates_and_its_best(tmp_path):
    done = run(tmp_path, "train.lr=1e-4,1e-2", "seed=0,1", "train.max_steps=20")
    assert done.returncode == 0, done.stderr
    assert "lr=0.0001" in done.stdout
    assert "lr=0.01" in done.stdout
    rows = load_rows(tmp_path / "smoke" / "rows.csv")
    assert set(rows["setting"]) == {"lr=0.0001", "lr=0.01"}
    assert rows[rows["kind"] == "scheme"].groupby(["scheme", "setting"])["seed"].nunique().eq(2).all()
    held_back = rows[rows["kind"] == SELECTION]
    assert held_back.groupby(["scheme", "setting", "seed"]).size().tolist() == [1] * 8, "one sum is all that choosing takes"
    told = report("--results", tmp_path, "gather", "smoke", "--best", "train.lr")
    assert told.returncode == 0, told.stderr
    folder = tmp_path / "smoke+best-lr"
    choice, beside = load_choice(folder)
    assert set(beside["value"]) == {"0.0001", "0.01"}
    assert (beside.loc[beside["value"] == "0.01", "change"] == 0).all()  # that of all schemes
    assert choice.loc[choice["chosen"], "value"].tolist() == ["0.01", "0.01"]  # twenty steps at 1e-4 learn nothing
    assert "the highest tried" in told.stdout
    assert "the highest tried" in (folder / "table.md").read_text()
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert report("--results", tmp_path, "draw").returncode in (0, 2)  # claims have no experiments here
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert "BEST=train.wd" in report("--results", tmp_path, "gather", "smoke", "--best", "train.wd").stderr


def test_a_file_with_a_comma_in_its_name_leaves_the_rest_of_the_setting_what_it_was():
    """A choice of rates takes the rate out of the setting, and nothing else."""
    settings = {rate: named({"data.train": ["b, c.txt"], "train.lr": rate}) for rate in (0.001, 0.002)}
    rows = pd.concat(
        [
            scheme_rows("rope", {128: [1.0]}, setting=setting, kind=kind)
            for setting in settings.values()
            for kind in ("scheme", SELECTION)
        ]
    )
    assert set(best_over(rows, *NOTHING, "train.lr", ["train.lr"]).rows["setting"]) == {named({"data.train": ["b, c.txt"]})}
