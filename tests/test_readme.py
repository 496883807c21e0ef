"""The READMEs show what is there: tables, code, options, commands and links; their examples run."""

import importlib.util
import math
import re
import shlex
from dataclasses import asdict
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from built import save_weights
from rows import forced
from test_structure import EXPERIMENTS, ROOMS
from tracked import RESULTS, ROOT

from extrap.config.compose import CONF, compose_grid, with_schemes
from extrap.report.answer import answer
from extrap.results.probes import load_probes
from extrap.results.provenance import load_provenance
from extrap.results.rows import load_missing, load_rows, load_training
from extrap.results.shown import IN_NATS
from extrap.runs.prepare import build_scheme, prepare
from extrap.runs.run import build_encoder
from extrap.stats.probes import reach_of, recalled, rises
from extrap.stats.statistics import Statistics
from extrap.testing.promises import check_scheme

PAGES = {
    name: (ROOT / name).read_text()
    for name in ("README.md", *(f"{folder}/README.md" for folder in ("conf", "extrap", "experiments", "results")))
}
README = PAGES["README.md"]
SENTENCES = " ".join(README.split())
QUOTES = [(page, kind, path) for page, text in PAGES.items() for kind, path in re.findall(r"<!-- (\w+) of (\S+) -->", text)]


def quoted(page: str, kind: str, path: str) -> str:
    found = re.search(rf"<!-- {kind} of {re.escape(path)} -->\n+(.*?)\n*<!-- end -->", PAGES[page], re.DOTALL)[1]
    return re.sub(r"^```\w*\n|\n```$", "", found).strip()


def cells(table: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if line.startswith("|")]


def test_the_first_page_is_short():
    assert len(README.splitlines()) <= 140


@pytest.mark.parametrize(("page", "kind", "path"), [quote for quote in QUOTES if quote[1] not in ("answer", "file")])
def test_what_is_quoted_stands_in_its_file(page, kind, path):
    text = quoted(page, kind, path)
    assert text
    assert text in ((RESULTS.parent if path.startswith("results/") else ROOT) / path).read_text()


def test_quotes_are_there():
    kinds = [kind for _, kind, _ in QUOTES]
    assert {kind: kinds.count(kind) for kind in kinds} == {"answer": 1, "file": 1, "reference": 1}


def test_the_table_is_what_a_sweep_says():
    """Where a sweep says it of the rows of main, and in the same words."""
    folder = RESULTS / "main"
    nothing = pd.DataFrame()
    rows, missing, training = (load(folder / f"{name}.csv") for load, name in
                               ((load_rows, "rows"), (load_missing, "missing"), (load_training, "training")))  # fmt: skip
    lines = answer(forced(Statistics(rows, missing, training), pairs=nothing, extrapolates=nothing)).splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith("---")) + 1
    edges = [match.span() for match in re.finditer("-+", lines[first - 1])]
    said = [[line[start:stop].strip() for start, stop in edges] for line in lines[first : lines.index("", first)]]
    header, _, *table = cells(quoted("README.md", "answer", "results/main/rows.csv"))
    assert header == ["scheme", "at L", "4 L", "32 L", "verdict"]
    assert table == said
    assert re.split(r" {2,}", lines[first - 2].strip()) == ["scheme", "at L", "x at 512", "x at 4,096", "verdict"]


def at_train_len(name: str) -> pd.Series:
    """Perplexity by scheme, under nonoverlap."""
    table = pd.read_csv(RESULTS / name / "table.csv").query("protocol == 'nonoverlap' and eval_len == train_len")
    return table[table["extension"] == "none"].set_index("scheme")["ppl"]


def test_numbers_in_sentences_are_those_of_the_tables():
    main, causal = at_train_len("main"), at_train_len("causal")
    assert f"ALiBi's perplexity is {100 * main['alibi'] / main['rope'] - 100:.0f} % above RoPE's in the encoder" in SENTENCES
    assert f"and {100 * causal['alibi'] / causal['rope'] - 100:.0f} % in a [causal model]" in SENTENCES
    depth = [load_provenance(RESULTS / name / "provenance.yaml")["config"]["model"]["n_layers"]
             for name in ("main", "causal")]  # fmt: skip
    assert depth[1] == 2 * depth[0]
    zoo = at_train_len("zoo_mlm") / at_train_len("zoo_mlm")["rope"] * 100 - 100
    power = f"({zoo['kerple(kernel=power)']:.0f} %)"
    assert f"KERPLE's power kernel, also symmetric, is not found to be behind RoPE {power}" in SENTENCES
    told_apart = [f"alibi(variant={variant})" for variant in ("split", "offset", "half", "two")]
    lowest, highest = zoo[told_apart].min(), zoo[told_apart].max()
    assert f"four asymmetric ALiBis are [{lowest:.0f} to {highest:.0f} %](results/zoo_mlm/overview.md) behind" in SENTENCES
    against = pd.read_csv(RESULTS / "zoo_mlm" / "pairs.csv").query("protocol == 'nonoverlap' and eval_len == 128")
    verdicts = against.set_index("scheme_a")["verdict"]
    assert verdicts["kerple(kernel=power)"] == "undecided"
    assert set(verdicts[told_apart]) == {"b"}
    in_encoder, in_causal = (
        100 * math.log(ppl["unigram"] / ppl["nope"]) / math.log(ppl["unigram"] / ppl["sinusoidal"]) for ppl in (main, causal)
    )
    assert f"gains over byte frequencies only {in_encoder:.0f} % of the nats gained with sinusoidal positions" in SENTENCES
    assert f"whose mask reveals some order, {in_causal:.0f} %" in SENTENCES
    said = pd.read_csv(RESULTS / "main" / "extrapolates.csv")
    assert "[no scheme is found to](results/main/pairs.md)" in SENTENCES
    assert "yes" not in set(said["verdict"])
    harmed = said[said["verdict"] == "no"].groupby("scheme")["eval_len"].agg(set)
    assert "at 4 L, 8 L and 32 L longer inputs are found to harm sinusoidal positions, RoPE and NoPE; ALiBi is" in SENTENCES
    assert harmed.to_dict() == {scheme: {512, 1024, 4096} for scheme in ("nope", "rope", "sinusoidal")}
    assert set(said.loc[said["verdict"] == "undecided", "scheme"]) == {"alibi"}


def test_what_is_said_of_rates_and_steps_is_what_their_tables_hold():
    choice = pd.read_csv(RESULTS / "rates+best-lr" / "choice.csv")
    assert "no scheme of `main` but NoPE does better, and none of 70 pairwise verdicts changes" in SENTENCES
    assert set(choice.loc[choice["chosen"] & (choice["value"] != 0.008), "scheme"]) == {"nope"}
    assert (
        "train.lr=0.008 for all, mlm on stdlib, training length 128**: none of 70 verdicts differs"
        in (RESULTS / "rates+best-lr" / "choice.md").read_text()
    )
    told = " ".join(PAGES["results/README.md"].split())
    stability = pd.read_csv(RESULTS / "budget" / "stability.csv")
    pairs = stability[stability["steps"] == 1600]
    same = int((pairs["since"] == 100).sum())
    assert f"to four times as many {same} of {len(pairs)} pairs are decided the same way throughout" in told
    [at_train_len] = pairs.query("protocol == 'nonoverlap' and eval_len == 128").query(
        "scheme_a == 'alibi' and scheme_b == 'sinusoidal'"
    )["since"]
    assert f"ahead of ALiBi at L only from {at_train_len:.0f} steps on" in told
    table = pd.read_csv(RESULTS / "budget" / "table.csv").query("kind == 'scheme' and extension == 'none'")
    flat = table[table["scheme"].isin(["alibi", "local(rope)"])]
    assert flat["ratio"].max() < 1.01
    rope = table.query("scheme == 'rope' and protocol == 'same_targets' and eval_len == 4096").set_index("setting")["ratio"]
    first, most, last = (rope[f"max_steps={steps}"] for steps in (100, 800, 1600))
    assert most == rope.max()
    assert (
        f"at 32 L RoPE breaks more with more training up to 800 steps, by a factor of {first:.1f} after 100 steps, "
        f"of {most:.0f} after 800 and of {last:.0f} after 1,600"
    ) in told


def test_what_is_said_of_many_schemes_and_extensions_is_what_their_tables_hold():
    at_l, table = at_train_len("zoo_mlm"), pd.read_csv(RESULTS / "zoo_mlm" / "table.csv")
    far = table.query("extension == 'none' and protocol == 'same_targets' and eval_len == 4096").set_index("scheme")
    log_cpb, mixed = "cpb(log_distance=True)", "mixed(local(rope), nope)"
    assert "[Forty-two schemes]" in SENTENCES
    assert len(at_l) - 1 == 42, "and unigram"
    against = pd.read_csv(RESULTS / "zoo_mlm" / "pairs.csv").query("protocol == 'nonoverlap' and eval_len == 128")
    assert set(against["scheme_b"]) == {"rope"}
    ahead = set(against.loc[against["verdict"] == "a", "scheme_a"])
    assert "two are decidedly ahead of RoPE at L, and one of these survives" in SENTENCES
    assert len(ahead) == 2
    highest = table.query("extension == 'none' and protocol == 'same_targets'").groupby("scheme")["ratio_high"].max()
    assert [scheme for scheme in ahead if highest[scheme] < 1.05] == [log_cpb]
    assert f"(`cpb_log`), perplexity {at_l[log_cpb]:.2f} against {at_l['rope']:.2f}" in SENTENCES
    ends = table.query("scheme == @log_cpb and extension == 'none' and protocol == 'same_targets'")
    assert "at 32 L the same to within 1 % (`same_targets`)" in SENTENCES
    assert 0.99 < ends["ratio_low"].min() <= ends["ratio_high"].max() < 1.01
    assert f"within L, perplexity at 32 L is {far.loc['prope', 'ratio']:.1f} times that at L" in SENTENCES
    causal = pd.read_csv(RESULTS / "zoo" / "table.csv").query("extension == 'none' and protocol == 'same_targets'")
    causal = causal[causal["eval_len"] == 4096].set_index("scheme")
    assert f"(RoPE: {far.loc['rope', 'ratio']:.0f} and {causal.loc['rope', 'ratio']:.1f})" in SENTENCES
    angles = ["partialrope", "prope", "learnedrope", "rope(base=500000.0)", "pope", "xpos(scale_base=64.0)"]
    lowest = table.query("extension == 'none' and protocol == 'same_targets'").groupby("scheme")["ratio_low"].max()
    assert (lowest[angles] > 1.05).all()
    assert f"{100 * at_l[mixed] / at_l['rope'] - 100:.0f} % behind RoPE at L (undecided among 41 comparisons)" in SENTENCES
    assert set(against["n_pairs"]) == {41}
    assert "and are unclear in the causal model" in SENTENCES
    assert causal.loc[mixed, "ratio_low"] < 1.05 < causal.loc[mixed, "ratio_high"]
    assert far.loc[mixed, "ratio_high"] < 1.05
    assert against.set_index("scheme_a").loc[mixed, "verdict"] == "undecided"
    for name in ("extend", "extend_mlm"):
        extended = pd.read_csv(RESULTS / name / "extensions.csv").query("scheme_a == 'rope'")
        to_window = extended[extended["extension_b"] == "window"]
        assert f"Of {to_window['extension_a'].nunique()} training-free extensions of RoPE none is found" in SENTENCES
        assert "a" not in set(to_window["verdict"])


def test_what_is_said_of_many_next_token_predictors_is_what_their_tables_hold():
    folder = RESULTS / "zoo"
    at_l = at_train_len("zoo")
    assert "Of 42 [causal models]" in SENTENCES
    assert len(at_l) - 1 == 42, "and unigram"
    against = pd.read_csv(folder / "pairs.csv").query("protocol == 'nonoverlap' and eval_len == 128")
    assert "none is found to be ahead of RoPE at L, and none to use context beyond L" in SENTENCES
    assert (set(against["scheme_b"]), "a" in set(against["verdict"])) == ({"rope"}, False)
    assert "T5's bias, undecided there, is [ahead with five seeds](results/causal/pairs.md) (4 %)" in SENTENCES
    assert against.set_index("scheme_a")["verdict"]["t5"] == "undecided"
    five = pd.read_csv(RESULTS / "causal" / "pairs.csv").query("protocol == 'nonoverlap' and eval_len == 128")
    five = five.set_index(["scheme_a", "scheme_b"])
    (t5,) = (five.loc[pair] for pair in (("rope", "t5"), ("t5", "rope")) if pair in five.index)
    assert t5["verdict"] == ("b" if t5.name[1] == "t5" else "a")
    assert f"{100 * np.expm1(abs(t5['difference'])):.0f}" == "4"
    table = pd.read_csv(folder / "table.csv").query("extension == 'none' and protocol == 'same_targets'")
    assert "yes" not in set(pd.read_csv(folder / "extrapolates.csv")["verdict"])
    far = table.query("eval_len == 4096").set_index("scheme")["ratio"]
    assert f"in a causal model {far['prope']:.1f} times" in SENTENCES


def test_what_is_said_of_many_schemes_on_a_known_floor_is_what_their_tables_hold():
    folder = RESULTS / "zoo_markov"
    assert (
        "Of [42 schemes](results/zoo_markov/overview.md) there, 15 extrapolate at both 8 L and 32 L, most of them with"
        in SENTENCES
    )
    assert len(at_train_len("zoo_markov")) - 4 == 42, "and unigram, the two floors, symbol counts"
    lines = pd.read_csv(folder / "extrapolates.csv")
    nearer, found = (
        set(lines.loc[(lines["verdict"] == "yes") & (lines["eval_len"] == multiple * 128), "scheme"]) for multiple in (8, 32)
    )
    assert found <= nearer
    falling = {"alibi", "alibi(learned=True)", "kerple", "kerple(kernel=power)", "kerple(kernel=three)", "sandwich"}
    learned = {"cpb", "cpb(log_distance=True)", "deberta", "transformerxl", "grape"}
    assert found == falling | learned | {"fox", "stickbreaking", "mixed(local(rope), nope)", "dape(kerple)"}
    angles = {"rope", "rope(base=500000.0)", "partialrope", "prope", "learnedrope", "xpos(scale_base=64.0)", "pope"}
    assert not angles & set(lines.loc[lines["verdict"] == "yes", "scheme"])
    assert angles <= set(pd.read_csv(folder / "table.csv")["scheme"])
    table = pd.read_csv(folder / "table.csv").query("protocol == 'same_targets' and extension == 'none'")
    prope = table[table["eval_len"] == 4096].set_index("scheme").loc["prope"]
    assert prope["ratio_low"] < 1.05 < prope["ratio_high"]
    share = 100 * (prope["ratio_high"] / prope["ratio"] - 1)
    blind = table[(table["kind"] == "window_floor") & (table["eval_len"] == 4096)]["ratio"].iloc[0]
    told = f"{prope['ratio']:.2f} ±{share:.1f}% (best predictor from L tokens: {blind:.2f})"
    assert f"on the Markov source {told}" in SENTENCES
    against = pd.read_csv(folder / "pairs.csv").query("protocol == 'nonoverlap' and eval_len == 128")
    assert "a" not in set(against.loc[against["scheme_b"] == "rope", "verdict"])
    assert set(against["scheme_b"]) == {"rope"}


def test_what_is_said_of_objectives_is_what_their_tables_hold():
    said = "ELECTRA's task. In detection, RoPE explains 13 % of the entropy at L, a byte's two neighbours alone 7 %."
    assert said in SENTENCES
    rtd = pd.read_csv(RESULTS / "rtd" / "table.csv").query("protocol == 'nonoverlap' and eval_len == train_len")
    explained = rtd[rtd["extension"] == "none"].set_index("scheme")["explained"]
    assert [f"{100 * explained[one]:.0f} %" for one in ("rope", "two neighbours")] == ["13 %", "7 %"]
    points = pd.read_csv(RESULTS / "papers" / "clark2020_objectives.csv").query("x == 16")
    assert {*points["objective"]} == {"causal", "mlm", "rtd", "electra", "electra_generator"}
    at_l = pd.read_csv(RESULTS / "papers" / "clark2020_objectives.csv").query("x == 1")
    at_l = at_l.set_index(["objective", "scheme"])
    for objective in ("rtd", "electra"):
        own = pd.read_csv(RESULTS / objective / "table.csv").query("protocol == 'same_targets' and extension == 'none'")
        own = own[(own["objective"] == objective) & (own["eval_len"] == own["train_len"])].set_index("scheme")
        drawn = at_l.loc[objective, "beats_unigram"]
        assert drawn.to_dict() == own.loc[drawn.index, "beats_neighbours"].to_dict()
    at_l = at_l["loss"]
    for line in points.itertuples():
        limit = np.log(1.05) if line.objective not in IN_NATS else 0.05 * (rate(line.objective) - at_l[line[2], line.scheme])
        if line.scheme in ("rope", "sinusoidal"):
            assert line.low > limit, (line.objective, line.scheme)
        elif line.scheme in ("alibi", "local(rope)"):
            assert line.high < limit, (line.objective, line.scheme)


def test_what_is_said_of_one_table_is_what_its_report_holds():
    folder = RESULTS / "tied+best-lr"
    said = "with sinusoidal positions 0.04 nats more at L than one with RoPE (`nonoverlap`; with BERT's head 0.05)"
    assert said in SENTENCES
    at_l = "protocol == 'nonoverlap' and eval_len == train_len"
    between = pd.read_csv(folder / "interactions.csv").query(f"{at_l} and scheme_a == 'rope' and scheme_b == 'sinusoidal'")
    between = between.set_index("output")
    assert between["difference"].round(2).to_dict() == {"tied": -0.04, "tied_head": -0.05}
    assert between["verdict"].to_dict() == {"tied": "a", "tied_head": "a"}
    longer = folder.with_name("tied_4096+best-lr")
    said = (
        "this is open, and RoPE not ahead of ALiBi (tied: 6 % behind); at 32 L tying saves sinusoidal 0.95 nats. The same "
        "schemes break."
    )
    assert said in SENTENCES
    against = pd.read_csv(longer / "pairs.csv").query(f"{at_l} and scheme_a == 'alibi' and scheme_b == 'rope'")
    against = against.set_index("setting")[["difference", "verdict"]]
    assert "b" not in set(against["verdict"])
    assert against.loc["output=tied", "verdict"] == "a"
    assert round(100 * np.expm1(-against.loc["output=tied", "difference"])) == 6
    others = pd.read_csv(longer / "interactions.csv").query(f"{at_l} and scheme_a == 'rope' and scheme_b == 'sinusoidal'")
    assert set(others["verdict"]) == {"undecided"}
    outputs = pd.read_csv(longer / "outputs.csv").query("protocol == 'nonoverlap' and eval_len == 4096 and output == 'tied'")
    [off] = outputs.query("scheme == 'sinusoidal'").itertuples()
    assert (round(off.difference, 2), off.verdict) == (-0.95, "a")
    for one in (folder, longer):
        beyond = pd.read_csv(one / "table.csv").query("protocol == 'same_targets' and kind == 'scheme'")
        worst = beyond.groupby(["scheme", "setting"])[["ratio_low", "ratio_high"]].max()
        assert len(worst) == 9
        assert (worst.loc[["rope", "sinusoidal"], "ratio_low"] > 1.05).all()
        assert (worst.loc["alibi", "ratio_high"] < 1.05).all()
        rates = pd.read_csv(one / "choice.csv").query("chosen")
        assert len(rates) == 9
        assert rates["border"].isna().all(), "between the others"


def test_what_is_said_of_electra_on_its_own_text_is_what_its_probe_found():
    rows = load_probes(RESULTS / "electra" / "probes.csv").query("probe == 'detection(own)' and metric == 'auc'")
    rows = rows[rows["run"].str.startswith("rope-")]
    area = (rows["value_sum"] / rows["n"]).groupby(rows["eval_len"]).mean()
    said = f"RoPE's area under the ROC curve falls, from {area[128]:.2f} to {area[4096]:.2f}"
    assert said in " ".join(PAGES["results/README.md"].split())


def rate(objective: str) -> float:
    """What is lost under same_targets by who knows what share of tokens is replaced, and nothing else."""
    table = pd.read_csv(RESULTS / objective / "table.csv").query("protocol == 'same_targets' and scheme == 'rate'")
    return table.loc[table["objective"] == objective, "nats"].iloc[0]


def test_what_is_said_of_probes_is_what_they_found():
    said = (
        "For 39 of the 42 schemes encoder perplexity rises by [less than 5 %](results/zoo_mlm/probes.md) when all text over"
    )
    assert said in SENTENCES
    risen = rises(load_probes(RESULTS / "zoo_mlm" / "probes.csv")).query("probe == 'reach(other)'")
    found = {scheme: reach_of(lines) for scheme, lines in risen.groupby("scheme")}
    assert len(found) == 42
    assert "is replaced by other text (NoPE 7 %, two undecided)." in SENTENCES
    beyond = risen.query("distance == 32 and metric == 'nll'").set_index("scheme")[["low", "value", "high"]]
    assert (np.exp(beyond["high"]) < 1.05).sum() == 39
    assert {*beyond.index[(np.exp(beyond["low"]) < 1.05) & (np.exp(beyond["high"]) > 1.05)]} == {"learned", "partialrope"}
    assert np.exp(beyond.loc["nope", "low"]) > 1.05
    assert round(100 * np.expm1(beyond.loc["nope", "value"])) == 7
    excess = recalled(load_probes(RESULTS / "recall" / "probes.csv")).query("metric == 'nll' and eval_len == 512")
    at = excess[excess["distance"] == 129].set_index("scheme")
    blind = recalled(load_probes(RESULTS / "recall" / "probes.csv")).query("metric == 'window_floor'")
    (blind,) = blind.query("eval_len == 512 and distance == 129")["value"].unique()
    told = [f"{at.loc[scheme, 'value']:.2f}" for scheme in ("alibi", "rope", "local(rope)")]
    assert f"at 4 L, ALiBi is {told[0]} nats above the optimum, RoPE {told[1]}, local attention {told[2]}" in SENTENCES
    assert f", the best predictor from L tokens {blind:.2f}." in SENTENCES
    assert at.loc["alibi", "high"] < at.loc["rope", "low"] < at.loc["rope", "high"] < blind < at.loc["local(rope)", "low"]


def test_the_machines_of_the_tracked_results_are_those_of_their_provenance():
    _, *lines = cells(PAGES["results/README.md"].partition("**The tracked results**")[2].partition("The commits stand")[0])
    told = {name: line[1:] for line in lines for name in re.findall(r"`(\w+)`", line[0])}
    experiments = {path.stem for path in (ROOT / "conf" / "experiment").glob("*.yaml")} - {"quick", "smoke"}  # not tracked
    assert {*told} == {name for name in experiments if (RESULTS / name / "rows.csv").exists()}
    for name, (seeds, machines) in told.items():
        folder = RESULTS / name
        runs = pd.read_csv(folder / "runs.csv").query("kind == 'scheme'")
        assert runs["seed"].nunique() == int(seeds), folder.name
        provenance = yaml.safe_load((folder / "provenance.yaml").read_text())
        made_by = [one for part in (provenance, *provenance.get("kept", [])) for one in part["made_by"]]
        assert {one["precision"] for one in made_by} == {"fp32"}
        for one in made_by:
            gpu = one["device"].startswith("NVIDIA H100")
            assert ("NVIDIA H100" if gpu else f"{one['device']}, {one['instructions']}") in machines, folder.name
        assert len({(one["device"], one["instructions"]) for one in made_by}) == machines.count(";") + 1, folder.name


def test_two_machines_decide_alike():
    at = ["protocol", "eval_len", "scheme_a", "scheme_b"]
    main, budget = (
        table[(table["extension_a"] == "none") & (table["extension_b"] == "none")].set_index(at)["verdict"]
        for table in (
            pd.read_csv(RESULTS / "main" / "pairs.csv").query("protocol in ['nonoverlap', 'same_targets']"),
            pd.read_csv(RESULTS / "budget" / "pairs.csv").query("setting == 'max_steps=400'"),
        )
    )
    decided = main[main != "undecided"], budget[budget != "undecided"]
    both = decided[0].index.intersection(decided[1].index)
    assert (main[both] == budget[both]).all()
    assert {*decided[1].index} <= {*decided[0].index}
    assert (
        f"Of {len(main)} pairs, `main` and the 400 steps of `budget` decide {len(both)} alike and none contrarily; "
        f"{len(decided[0]) - len(both)} more are decided by the five seeds of `main` alone."
    ) in " ".join(PAGES["results/README.md"].split())


def test_one_learning_rate_serves_all_schemes():
    assert "at 0.04 for the matrices of the blocks, AdamW (0.9, 0.95) at 8e-3 for all else" in " ".join(
        PAGES["results/README.md"].split()
    )
    for path in (RESULTS).glob("*/provenance.yaml"):
        config = yaml.safe_load(path.read_text()).get("config")
        if config and "train.lr" not in config.get("vary", []):
            rates = config["train"]["lr"], config["train"]["muon_ratio"] * config["train"]["lr"]
            assert rates == (8e-3, 0.04) if config["train"]["optimizer"] == "muon" else rates[0] == 2e-3


# own schemes


@pytest.fixture
def mine(tmp_path):
    """The scheme of the README, in a file of its own: causal -> scheme."""
    (tmp_path / "mine.py").write_text(quoted("README.md", "file", "mine.py"))
    [run] = compose_grid(with_schemes(["experiment=quick", f"scheme={tmp_path / 'mine.py'}:Mine"], beside=False))
    assert run.scheme == "mine"
    return partial(build_scheme, run)


def test_the_scheme_of_the_readme_is_short_and_what_its_docstring_says(mine, causal):
    """- slope_(side, h) * log(1 + abs(i - j))"""
    assert len(quoted("README.md", "file", "mine.py").splitlines()) <= 25
    check_scheme(partial(mine, causal), longest=2048)
    scheme = mine(causal)
    bias = scheme.score_mod(torch.arange(9))
    for i, j, h in ((8, 0, 1), (0, 8, 3), (5, 5, 0), (3, 4, 2)):
        found = bias(torch.tensor(0.5), torch.tensor(0), torch.tensor(h), torch.tensor(i), torch.tensor(j))
        expected = 0.5 - scheme.slope[int(i > j)][h].item() * math.log(1 + abs(i - j))
        assert found.item() == pytest.approx(expected, rel=1e-6)


# examples


def snippets(page: str) -> dict[str, str]:
    """Comment above it -> Python."""
    return dict(re.findall(r"<!-- (run [^>]*) -->\n```python\n(.*?)```", PAGES[page], re.DOTALL))


def test_rows_are_read_as_the_readme_shows(monkeypatch):
    monkeypatch.chdir(ROOT)
    names = {}
    exec(snippets("results/README.md")["run from the root of the checkout"], names)
    assert len(names["rows"])


def test_a_trained_model_is_read_as_the_readme_shows(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where no sweep has been
    small = snippets("results/README.md")["run after a sweep"].replace(
        '"experiment=main"', '"experiment=smoke", "data=markov"'
    )
    cell = prepare(compose_grid(["experiment=smoke", "data=markov", "position=rope", "seed=0"])[0])
    cell.folder.claim(cell.identity)
    save_weights(cell, build_encoder(cell))
    names = {}
    exec(small, names)
    assert names["weights"].shape == (1, 1, 2, 256, 256)


@pytest.mark.slow
def test_models_are_trained_as_one_as_the_readme_shows():
    small = snippets("results/README.md")["run in place of a sweep"].replace("range(8)", "range(2)")
    names = {}
    exec(small.replace('"experiment=main"', '"experiment=smoke", "data=markov"'), names)
    assert names["losses"].shape == (20, 2)
    for run, encoder in zip(names["runs"], names["encoders"], strict=True):
        assert not torch.equal(encoder.embedding.weight, build_encoder(run).embedding.weight)


def test_every_example_of_python_is_tried():
    shown = sum(text.count("```python") for text in PAGES.values())
    tried = sum(len(snippets(page)) for page in PAGES) + sum(kind in ("file", "reference") for _, kind, _ in QUOTES)
    assert shown == tried


# commands


def test_make_targets_exist():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {
        name
        for text in PAGES.values()
        for name in re.findall(r"(?:^    (?:\w+=\S+ )?|`(?:\w+=\S+ )?)make ([a-z-]+)", text, re.M)
    }
    assert named <= targets
    assert named >= targets - {"help", "setup", "test-all", "check", "clean"}, "what a user needs is named"


@pytest.mark.slow
def test_what_is_swept_can_be_chosen():
    """Sweeps with options, of one scheme and seed; experiments alone are composed in test_structure."""
    sweeps = {line for text in PAGES.values() for line in re.findall(r"make sweep[^#`\n]*", text) if "=..." not in line}
    chosen = set()
    for line in sweeps:
        given = dict(word.split("=", 1) for word in shlex.split(line.replace(",...]", "]"))[2:])
        assert set(given) <= {"EXPERIMENT", "LAUNCHER", "ARGS", "SCHEME"}, line
        assert (CONF / "experiment" / f"{given.get('EXPERIMENT', 'main')}.yaml").exists(), line
        assert (CONF / "hydra" / "launcher" / f"{given.get('LAUNCHER', 'local')}.yaml").exists(), line
        options = [re.sub(r"^(seed|position)=(\w+),.*", r"\1=\2", word) for word in given.get("ARGS", "").split()]
        options = [word for word in options if not word.startswith("hydra.launcher.")]
        if options:
            chosen.add((f"experiment={given.get('EXPERIMENT', 'main')}", "seed=0", "position=rope", *options))
    assert len(chosen) >= 4
    for overrides in chosen:
        n_values = [word.count(",") + 1 for word in overrides if "[" not in word]
        given = {word.partition("=")[0] for word in overrides}
        swept = [config.varied for config in compose_grid([*overrides[:3]])]
        others = {repr([value for option, value in of.items() if option not in given]) for of in swept}
        assert len(compose_grid([*overrides])) == math.prod(n_values) * len(others)


def test_modules_that_are_started_exist():
    named = {name for text in PAGES.values() for name in re.findall(r"-m ([a-z]\w*(?:\.\w+)*)", text)}
    assert "extrap" in named
    assert all(importlib.util.find_spec(name) for name in named)


def slug(heading: str) -> str:
    return re.sub(r"[^\w -]", "", heading.lower()).strip().replace(" ", "-")


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\((?!https?:)([^)]+)\)", PAGES[page]):
        path, _, anchor = link.partition("#")
        target = (ROOT / page).parent / path if path else ROOT / page
        assert target.exists(), link
        if anchor:
            assert anchor in {slug(heading) for heading in re.findall(r"^#+ (.*)", target.read_text(), re.M)}, link


# the map


def section(page: str, title: str) -> str:
    return re.search(rf"^## {title}\n(.*?)(?=^#|\Z)", PAGES[page], re.DOTALL | re.M)[1]


def test_the_map_names_every_room_in_the_order_of_the_data():
    rooms = [row[0] for row in cells(section("extrap/README.md", "Rooms"))[2:]]
    assert [re.sub(r"`|/|\.py", "", name) for name in rooms] == [name for name in ROOMS if not name.startswith("__")]
    for name in rooms:
        assert (ROOT / "extrap" / name.strip("`")).exists()


def test_four_paths_lead_through_eight_files_at_most():
    text = section("extrap/README.md", "Four paths")
    assert len(re.findall(r"^\*\*", text, re.M)) == 4
    assert len({*re.findall(r"\*\*`(\S+\.py)`\*\*", text)}) == 8
    named = re.findall(r"`([\w.]+)`\s+\(\**`(\S+\.py)`\**\)", text)
    assert len(named) >= 20
    for name, file in named:
        assert re.search(rf"^ *(def|class) {name.split('.')[-1]}\b|^{name}\b", (ROOT / file).read_text(), re.M), (
            f"{name} in {file}"
        )
        assert name.split(".")[0] in (ROOT / file).read_text()


def test_modules_that_the_map_names_exist():
    for page, text in PAGES.items():
        for path in re.findall(r"`((?:extrap|experiments|conf|tests)/[\w/]+\.\w+)`", text):
            assert (ROOT / path).exists() or ("file", path) in {quote[1:] for quote in QUOTES}, f"{page}: {path}"


# options


def told_options() -> dict[str, list[object]]:
    """Option -> the values that tables of conf/README.md give it."""
    told: dict[str, list[object]] = {}
    for row in cells(PAGES["conf/README.md"]):
        for option, value in re.findall(r"`(\w+\.\w+)=([^`]*)`", " ".join(row[:3] if len(row) > 2 else row[:1])):
            told.setdefault(option, []).append(yaml.safe_load(value))
    return told


RECIPES = {("train", "causal"), ("train", "markov"), ("train", "adamw")}  # which say what they have other than the default


def test_every_option_is_told_with_its_value():
    options: dict[str, list[object]] = {}
    for path in CONF.glob("*/*.yaml"):
        if path.parent.name not in ("experiment", "extension", "scale") and (path.parent.name, path.stem) not in RECIPES:
            for key, value in yaml.safe_load(path.read_text()).items():
                if key not in ("_target_", "defaults"):
                    options.setdefault(f"{path.parent.name}.{key}", []).append(value)
    told = told_options()
    assert told.keys() == options.keys()
    for key, values in options.items():
        assert sorted(told[key], key=repr) == sorted(values, key=repr), key
    for path in CONF.glob("extension/*.yaml"):
        for key in yaml.safe_load(path.read_text()).keys() - {"_target_"}:
            assert re.search(rf"{path.stem}\([^)]*{key}=", PAGES["conf/README.md"]), f"{path.stem}({key}="


def test_what_is_counted_is_there():
    for name in ("zoo", "zoo_mlm"):
        swept = yaml.safe_load((CONF / "experiment" / f"{name}.yaml").read_text())["hydra"]["sweeper"]["params"]["position"]
        assert f"| `{name}` | {len(swept.split(','))} schemes" in PAGES["conf/README.md"]
    for name in ("extend", "extend_mlm"):
        asked = yaml.safe_load((CONF / "experiment" / f"{name}.yaml").read_text())["eval"]["extensions"]
        assert f"{len(asked) - 1} extensions of RoPE" in PAGES["conf/README.md"]


def test_recipes_differ_from_the_default_in_what_it_has():
    default = yaml.safe_load((CONF / "train" / "default.yaml").read_text())
    others = {("train", path.stem): yaml.safe_load(path.read_text()) for path in CONF.glob("train/*.yaml")}
    del others["train", "default"]
    assert others.keys() == RECIPES
    for (_, name), other in others.items():
        assert f"`train/{name}.yaml`" in PAGES["conf/README.md"] or f"`train={name}`" in PAGES["conf/README.md"]
        assert other.pop("defaults") == ["default"]
        assert other.keys() < default.keys()


def test_a_config_has_no_other_options():
    config = asdict(compose_grid(["experiment=main", "position=rope", "seed=0"])[0])
    groups = {key: value for key, value in config.items() if isinstance(value, dict)}
    assert {key for key in config if key not in groups} == {"name", "seed", "vary"}
    for key in ("name", "seed", "vary"):
        assert f"| `{key}` |" in PAGES["conf/README.md"]
    for group in ("model", "train", "eval", "runtime"):
        assert {f"{group}.{key}" for key in groups[group]} <= set(told_options())


@pytest.mark.parametrize("folder", ["position", "experiment", "extension", "hydra/launcher", "data"])
def test_every_choice_is_told(folder):
    said = set(re.findall(r"[`=]([\w]+)`", PAGES["conf/README.md"])) | set(
        re.findall(r"`?LAUNCHER=(\w+)", PAGES["conf/README.md"])
    )
    names = {path.stem for path in (CONF / folder).glob("*.yaml")}
    assert names <= said
    if folder == "experiment":
        assert names == {path.stem for path in EXPERIMENTS}
        first = {
            name for row in cells(section("conf/README.md", "Experiments"))[2:] for name in re.findall(r"`(\w+)`", row[0])
        }
        assert names == first
