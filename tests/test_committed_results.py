"""The committed results: complete, what their tables and figures show, and the picture that they are known for."""

import io
import math
import os
import re
import shutil
import subprocess
import sys
import tarfile
from functools import cache

import numpy as np
import pandas as pd
import pytest
from marks import slow
from tracked import RESULTS, ROOT

from experiments.claims.report import write_claims
from experiments.speed.evidence import write_evidence
from experiments.speed.report import write_speed_report
from extrap.config.compose import CONF, compose_grid
from extrap.config.schema import Config
from extrap.report.report import report_again
from extrap.results.folders import differences
from extrap.results.provenance import load_provenance
from extrap.results.rows import load_rows, load_training, scored
from extrap.results.shown import IN_NATS
from extrap.score.protocols import every
from extrap.stats.floor import LEARNED, UNFIT
from extrap.stats.perplexity import CONDITION, perplexity

IGNORED = {"quick", "smoke"}  # by git: whatever was run here last
EXPERIMENTS = {path.stem for path in (CONF / "experiment").glob("*.yaml")} - IGNORED
TRACKED = sorted(name for name in EXPERIMENTS if (RESULTS / name / "provenance.yaml").exists())
SOURCES = {"runs.csv", "rows.csv", "missing.csv", "training.csv", "provenance.yaml", "kernels.csv",
           "probes.csv", "probes.yaml"}  # fmt: skip
EVIDENCE = {"evidence.csv", "evidence.md"}
SCHEMES = {"alibi", "learned", "local(rope)", "nope", "rope", "sinusoidal"}
PROTOCOLS = ["nonoverlap", "same_targets"]


@cache
def rows_of(name: str) -> pd.DataFrame:
    return load_rows(RESULTS / name / "rows.csv")


@cache
def configs_of(name: str) -> list[Config]:
    return compose_grid([f"experiment={name}"])


def log_ppl(name: str, protocol: str) -> pd.DataFrame:
    """eval_len x (scheme, seed)."""
    rows = rows_of(name)
    rows = rows[(rows["kind"] == "scheme") & (rows["protocol"] == protocol) & (rows["extension"] == "none")]
    return perplexity(rows, ["scheme", "seed", "eval_len"]).pivot(
        index="eval_len", columns=["scheme", "seed"], values="log_ppl"
    )


# of programs that were no clean checkout: digest, and the commit whose program has it under the Python of the machine
OF_COMMIT = {"2bbc8930ad7bce1d": ("8e4de82", "3.12")}
# the smallest; the others take minutes
QUICK = [pytest.param(name, marks=[] if name == "stride1" else pytest.mark.slow) for name in TRACKED]


@pytest.fixture(autouse=True)
def corpora(monkeypatch):
    monkeypatch.setenv("EXTRAP_CORPORA", "corpora")


def test_the_main_experiments_are_tracked():
    assert {"main", "causal", "markov"} <= set(TRACKED)


@pytest.mark.parametrize("name", QUICK)
def test_all_runs_are_there(name):
    configs = configs_of(name)
    rows = scored(rows_of(name))
    schemes = rows[(rows["kind"] == "scheme") & (rows["extension"] == "none")]
    assert set(rows["experiment"]) == {name}
    found = schemes[["scheme", "seed", "setting"]].drop_duplicates().itertuples(index=False, name=None)
    assert set(found) == {(config.scheme, config.seed, config.setting) for config in configs}
    assert schemes["seed"].nunique() >= 3, "no interval without seeds"
    wanted, train_len = configs[0].eval, configs[0].train.train_len
    for scheme, group in schemes[schemes["protocol"] == "nonoverlap"].groupby("scheme"):
        assert sorted(group["eval_len"].unique()) == [n for n in wanted.lengths if n <= train_len or scheme != "learned"]
    part = ["objective", "setting"]  # of electra a generator, too, which is scored apart
    segments = rows.groupby(["scheme", "extension", *part, "seed", "protocol", "eval_len"])[["document", "segment"]].apply(
        lambda cell: tuple(zip(cell["document"], cell["segment"], strict=True))
    )
    assert (segments.groupby("protocol").nunique() == 1).all(), "the same segments for every scheme, seed and length"
    assert segments.nunique() == len({every(wanted, protocol) for protocol in wanted.protocols}), "and for protocols alike"


@pytest.mark.parametrize("name", QUICK)
def test_tables_and_figures_show_the_rows(name, tmp_path):
    for source in SOURCES - {"training.csv"}:
        if (RESULTS / name / source).exists():
            (tmp_path / source).symlink_to(RESULTS / name / source)
    check_committed(name, report_again(tmp_path), SOURCES)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["causal_32", *slow(*(name for name in TRACKED if name != "causal_32"))])
def test_training_losses_are_those_of_the_runs(name):
    losses = load_training(RESULTS / name / "training.csv")
    steps = {config.run: config.train.max_steps for config in configs_of(name)}
    rows = rows_of(name)
    trained = {run for run in rows.loc[rows["kind"] == "scheme", "run"] if "/" not in run}
    assert set(losses["run"]) == trained
    assert losses.groupby("run")["step"].max().to_dict() == {run: steps[run] for run in losses["run"]}


@pytest.mark.slow
def test_the_speed_report_shows_its_timings(tmp_path):
    (tmp_path / "timings.csv").write_bytes((RESULTS / "speed" / "timings.csv").read_bytes())
    check_committed("speed", write_speed_report(tmp_path), {"timings.csv", "provenance.yaml", *EVIDENCE})


def test_what_evidence_cost_is_what_the_tracked_runs_cost(tmp_path):
    for path in RESULTS.glob("*/*"):
        if path.name in ("runs.csv", "pairs.csv", "provenance.yaml"):
            (tmp_path / path.parent.name).mkdir(exist_ok=True)
            (tmp_path / path.parent.name / path.name).symlink_to(path)
    written = write_evidence(tmp_path)
    assert {path.name for path in written} == EVIDENCE & {path.name for path in (RESULTS / "speed").iterdir()}
    for path in written:
        assert path.read_bytes() == (RESULTS / "speed" / path.name).read_bytes(), f"make figures changes {path.name}"


@pytest.mark.slow
def test_the_page_of_claims_shows_the_rows(tmp_path):
    for path in RESULTS.glob("*/*.csv"):
        if path.name in SOURCES | {"timings.csv"}:
            (tmp_path / path.parent.name).mkdir(exist_ok=True)
            (tmp_path / path.parent.name / path.name).symlink_to(path)
    check_committed("claims", write_claims(tmp_path), set())


def check_committed(name, written, sources):
    """What follows from the sources is what stands there, but for what is not tracked: a page and SVG."""
    there = {p.name for p in (RESULTS / name).iterdir() if p.suffix not in (".html", ".svg")}
    written = [p for p in written if p.suffix != ".svg"]
    assert {p.name for p in written} == there - sources
    for path in written:
        assert path.read_bytes() == (RESULTS / name / path.name).read_bytes(), f"make figures changes {path.name}"


AT = ["objective", "data", "train_len", "setting", "protocol", "scheme", "eval_len"]


def committed(name: str, table: str) -> pd.DataFrame:
    read = pd.read_csv(RESULTS / name / table, keep_default_na=False, na_values=[""])
    return read if "setting" in read else read.assign(setting="")


def over_itself(said, table, extension):
    """By how much the loss of these lines, with an extension, is above that at the training length."""
    table = table.reindex(columns=[*table.columns, *({"ppl", "nats"} - {*table.columns})])
    table["loss"] = np.where(table["objective"].isin(IN_NATS), table["nats"], np.log(table["ppl"]))
    at_l = table[(table["extension"] == "none") & (table["eval_len"] == table["train_len"])]
    told = said[AT].merge(table[table["extension"] == extension], on=AT)
    told = told.merge(at_l[[*AT[:-1], "loss"]], on=AT[:-1], suffixes=("", "_at_l"))
    return told["loss"] - told["loss_at_l"]


@pytest.mark.parametrize("name", [name for name in TRACKED if (RESULTS / name / "extrapolates.csv").exists()])
def test_who_extrapolates_neither_breaks_nor_gains_nothing(name):
    """pairs.md and table.md say the same of the same weights."""
    table = committed(name, "table.csv").query("kind == 'scheme'")
    said = committed(name, "extrapolates.csv").merge(table[table["extension"] == "none"], on=AT, suffixes=("", "_table"))
    said = said.merge(table.loc[table["extension"] == "window", [*AT, "ratio"]], on=AT, suffixes=("", "_window"))
    assert len(said) == len(committed(name, "extrapolates.csv"))
    # each is written with six digits
    for column, extension in (("self_difference", "none"), ("control_difference", "window")):
        np.testing.assert_allclose(said[column], over_itself(said, table, extension), atol=1.1e-5)
    yes, no, control_breaks = (said[said["verdict"] == word] for word in ("yes", "no", "control breaks"))
    assert (yes["ratio"] < np.minimum(1, yes["ratio_window"])).all()
    assert (no["ratio"] > np.minimum(1, no["ratio_window"])).all()
    assert (control_breaks["ratio_window"] > 1).all()
    if "gained" in said:
        assert (yes["gained"] > 0).all()
        assert not yes["verdict_table"].isin(UNFIT).any()
        longest = said[said["eval_len"] == said["eval_len"].max()]
        assert not (no["verdict_table"] == "uses more context").any()
        assert (longest.loc[longest["verdict"] == "yes", "verdict_table"] == "uses more context").all()


def test_who_is_known_to_extrapolate_still_does():
    said = committed("markov", "extrapolates.csv")
    yes = said.loc[said["verdict"] == "yes", ["scheme", "eval_len"]]
    assert set(yes.itertuples(index=False, name=None)) == {("alibi", 512), ("alibi", 1024), ("alibi", 4096)}


@pytest.mark.parametrize("name", TRACKED)
def test_bold_is_who_beats_all_others_in_the_pairs(name):
    table, pairs = committed(name, "table.csv"), committed(name, "pairs.csv")
    bold = set(table.loc[table["best"], [*AT, "kind", "extension"]].itertuples(index=False, name=None))
    expected = set()
    for (*setting, eval_len), cell in pairs.groupby([*CONDITION, "eval_len"]):
        schemes = {*cell["scheme_a"], *cell["scheme_b"]}
        if len(cell) < len(schemes) * (len(schemes) - 1) / 2:
            continue  # of many schemes, each compared with one alone, nobody is known to beat all
        for scheme in schemes:
            mine = cell[(cell["scheme_a"] == scheme) | (cell["scheme_b"] == scheme)]
            if (mine["verdict"] == np.where(mine["scheme_a"] == scheme, "a", "b")).all() and setting[-1] != "position":
                expected.add((*setting, scheme, eval_len, "scheme", "none"))
    assert bold == expected


@pytest.mark.parametrize("name", ["main", *slow(*(name for name in TRACKED if name != "main"))])
def test_it_is_told_what_made_them(name):
    told = load_provenance(RESULTS / name / "provenance.yaml")
    assert re.match(rf"python -m (extrap|experiments\.run) experiment={name} ", told["command"])  # as it was then
    # of the commands before; a sweep's references are none of its runs
    kept = [run for part in told.get("kept", []) for run in part["runs"] if not run.startswith("reference")]
    assert told["runs"] + len(kept) == len(configs_of(name))
    recipe, asked = told["config"], configs_of(name)[0].identity()
    parts = ("model", "objective", "train", "eval")
    changes = differences({part: recipe[part] for part in parts}, {part: asked[part] for part in parts})
    own = ("train.precision: ", *(f"{option}: " for option in recipe.get("vary", [])))  # of the machine, of each run
    assert [change for change in changes if not change.startswith(own)] == [], "what the experiment says today"
    assert all(machine["git_commit"] for machine in told["made_by"])
    assert not any(machine["git_dirty"] for machine in told["made_by"]) or recipe["code"] in OF_COMMIT


@pytest.mark.slow
@pytest.mark.parametrize("digest", OF_COMMIT)
def test_what_was_no_clean_checkout_has_the_program_of_a_commit(digest, tmp_path):
    commit, version = OF_COMMIT[digest]
    python = shutil.which(f"python{version}") or ""
    works = python and subprocess.run([python, "--version"], capture_output=True).returncode == 0
    tree = subprocess.run(["git", "-C", str(ROOT), "archive", commit, "extrap"], capture_output=True)
    if not works or tree.returncode:
        pytest.skip(f"needs Python {version}, under which this digest was taken, and the history of the repository")
    with tarfile.open(fileobj=io.BytesIO(tree.stdout)) as files:
        files.extractall(tmp_path, filter="data")
    installed = [path for path in sys.path if path.endswith("site-packages")]  # of another Python: what is pure will do
    paths = os.pathsep.join([str(tmp_path), *installed])
    ask = [python, "-c", "from extrap.runs.digest import PROGRAM; print(PROGRAM)"]
    told = subprocess.run(ask, capture_output=True, text=True, check=True, cwd=tmp_path, env={"PYTHONPATH": paths})
    assert told.stdout.strip() == digest


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("name", ["main", "causal"])
def test_who_breaks_and_who_does_not(name, protocol):
    table = log_ppl(name, protocol)
    at, far = table.loc[128], table.loc[2048]
    for scheme in ("sinusoidal", "rope"):
        assert (far[scheme] - at[scheme] > np.log(1.5)).all(), f"{scheme} at 16 L, in every seed"
    for scheme in ("alibi", "local(rope)"):
        assert (table[scheme] - at[scheme] < np.log(1.03)).all(axis=None), f"{scheme} at any length, in every seed"
    assert table["learned"].loc[256:].isna().all(axis=None)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_without_positions_an_encoder_is_far_behind(protocol):
    mlm = log_ppl("main", protocol).loc[128]
    for scheme in SCHEMES - {"nope"}:
        assert (mlm["nope"] - mlm[scheme] > np.log(1.3)).all(), f"behind {scheme} in every seed"


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_causal_mask_tells_most_of_what_sinusoidal_positions_do(protocol):
    """Of what sinusoidal positions learn from context, counted from the frequencies of bytes."""
    mlm, causal, rows = log_ppl("main", protocol).loc[128], log_ppl("causal", protocol).loc[128], rows_of("causal")
    known = rows[(rows["kind"] == "unigram") & (rows["protocol"] == protocol) & (rows["eval_len"] == 128)]
    nothing = known["nll_sum"].sum() / known["n_tokens"].sum()
    assert ((nothing - causal["nope"]) / (nothing - causal["sinusoidal"]) > 0.6).all(), "in every seed"
    for scheme in ("alibi", "rope", "local(rope)", "sinusoidal"):
        behind, without_mask = causal["nope"] - causal[scheme], mlm["nope"] - mlm[scheme]
        assert behind.max() < without_mask.min(), f"nearer to {scheme}, whatever the seeds"


def test_no_scheme_is_below_the_floor_beyond_the_noise_of_documents():
    rows = rows_of("markov")
    by_document = rows.groupby(["kind", "scheme", "protocol", "eval_len", "document", "seed"])[["nll_sum", "n_tokens"]].sum()
    nll = (by_document["nll_sum"] / by_document["n_tokens"]).rename("nll").reset_index()
    floor = nll[nll["kind"] == "floor"].set_index(["protocol", "eval_len", "document"])["nll"].rename("floor")
    schemes = nll[nll["kind"] == "scheme"].join(floor, on=["protocol", "eval_len", "document"])
    for key, cell in schemes.groupby(["scheme", "protocol", "eval_len", "seed"]):
        excess = cell["nll"] - cell["floor"]
        assert excess.mean() > -3 * excess.std() / np.sqrt(len(excess)), key


def test_excess_of_local_attention_that_is_blind_beyond_l_is_as_near_to_1_as_is_said():
    page = (RESULTS / "README.md").read_text()
    (said,) = re.findall(r"is within (0\.\d+) of 1, the\s+generator of `electra` within (0\.\d+)", page)
    far = {False: 0.0, True: 0.0}  # of the generator
    for name in TRACKED:
        table = pd.read_csv(RESULTS / name / "table.csv").query("scheme == 'local(rope)' and extension == 'none'")
        if "null_excess" in table:
            table = table[table["full_context"].fillna("same_targets") != "same_targets"]
            for objective, lines in table.groupby("objective"):
                of = objective == "electra_generator"
                far[of] = max(far[of], (lines["null_excess"] - 1).abs().max())
    assert [f"{10**-4 * math.ceil(10**4 * distance):.4f}" for distance in far.values()] == [*said]


def test_every_scheme_with_positions_has_left_the_plateau():
    table = pd.read_csv(RESULTS / "markov" / "table.csv").query("kind == 'scheme' and eval_len == 128")
    assert (table[table["scheme"] != "nope"]["learned"] > LEARNED).all()
    assert set(table.loc[table["learned"] <= LEARNED, "verdict"]) == {"still on the plateau"}, "and who has not, is told"
