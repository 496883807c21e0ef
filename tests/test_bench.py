"""The benchmark: ratios from timings, errors that are errors, reports that are functions of the timings."""

import ast
import io
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from experiments.report import draw_all
from experiments.speed import equality, evidence, learning, long, objectives, peers, schemes
from experiments.speed.figure import learning_figure, speed_figure
from experiments.speed.ours import TRAINING, Trained, in_turn, training_step
from experiments.speed.report import markdown, write_scheme_report, write_speed_report
from experiments.speed.rounds import Contestant, if_it_compiles, interleave
from experiments.speed.timings import COLUMNS, LOOK, PART, RATIOS, RECIPE, load_timings, ratios, save_timings, times_to_loss
from extrap.config.choices import Precision
from extrap.config.compose import compose_grid
from extrap.errors import UserError
from extrap.model import attention
from extrap.model.definition import attend_reference
from extrap.objectives import Causal, Mlm
from extrap.report.looks import LOOKS
from extrap.runs.prepare import prepare
from extrap.runs.run import build_encoder
from extrap.train.loop import TrainingBatch, train

ROOT = Path(__file__).parents[1]
LOAD = (1.0, 1.0, 50.0, 1.0, 2.0)  # by round, on a machine that others use: the same for all within a round


# seconds of a step by objective and setting
STEPS = {("mlm", ""): 2.0, ("mlm", "all scored"): 3.0, ("mlm", "V = 4,096"): 2.4, ("causal", ""): 2.5,
         ("causal", "V = 4,096"): 4.0, ("rtd", ""): 2.1, ("electra", ""): 3.1}  # fmt: skip


def row(case: str, name: str, number: int, value: float, **columns: object) -> dict[str, object]:
    told = {"unit": "s", "objective": "mlm", "machine": "a machine", "threads": 2, "precision": "bf16"}
    return told | {"case": case, "name": name, "round": number, "value": value} | columns


def timings() -> list[dict[str, object]]:
    """Known ratios: ALiBi takes 1.25 times NoPE's time, the peer 2 (best) and 4 (default) times RoPE's, and so on."""
    rows = []
    for number, load in enumerate(LOAD):
        rows.append(row("peak", "matrix product", number, 0.5 * load, setting="bf16", flops=4e9))
        rows.append(row("peak", "matrix product", number, 1.0 * load, setting="fp32", flops=4e9, precision="fp32"))
        for objective in ("mlm", "causal"):
            step = {"tokens": 4096, "flops": 1e9, "params": 3_000_000, "logits": 608, "n": 256, "objective": objective}
            for scheme, seconds in (("nope", 0.8), ("rope", 1.0), ("alibi", 1.0), ("local(rope)", 1.6)):
                rows.append(row("training", "extrap", number, seconds * load, scheme=scheme, **step))
            for setting, seconds in (("default: fp32", 4.0), ("best: bf16", 2.0), ("best: bf16, other", 3.0)):
                rows.append(row("training", "plain", number, seconds * load, scheme="learned", setting=setting, **step))
                for scheme, times in (("rope", 1), ("alibi", 2)):
                    both = {"scheme": scheme, "setting": setting}
                    rows.append(row("training", "both", number, times * seconds * load, **both, **step))
            for n in (4096, 8192, 16384):
                here = {"n": n, "tokens": n, "objective": objective, "precision": "fp32"}
                rows.append(row("attention", "torch SDPA", number, (n / 4096) ** 2 * load, scheme="nope", **here))
                for scheme, seconds in (("alibi", 0.5 * (n / 4096) ** 2), ("local(rope, window=256)", 0.01 * n / 4096)):
                    rows.append(row("attention", "extrap", number, seconds * load, scheme=scheme, **here))
                    memory = here | {"scheme": scheme, "unit": "bytes"}
                    rows.append(row("memory", "extrap", number, 1000.0 * n, **memory))
        for (objective, setting), seconds in STEPS.items():
            told = {"objective": objective, "setting": setting, "scheme": "rope", "tokens": 4096, "params": 3_000_000}
            rows.append(row("step", "extrap", number, seconds * load, **told))
        for setting, seconds in (("side by side", 4.0), ("one after the other", 5.0)):
            rows.append(row("sweep", "extrap", number, seconds * load, setting=setting, tokens=1000))
        rows.append(row("equality", "extrap", number, 1e-7, setting="forward", scheme="alibi", n=1237, unit="relative"))
    return rows


@pytest.fixture
def folder(tmp_path):
    save_timings(tmp_path / "speed" / "timings.csv", timings()) if (tmp_path / "speed").mkdir() is None else None
    return tmp_path / "speed"


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """The ratios of these timings."""
    file = tmp_path_factory.mktemp("speed") / "timings.csv"
    save_timings(file, timings())
    return ratios(load_timings(file))


# ratios


@pytest.mark.parametrize(
    ("case", "peer", "setting", "ratio", "unit"),
    [
        ("training mlm alibi", "extrap nope", "", 0.8, "tokens/s"),
        ("training causal local(rope)", "extrap nope", "", 0.5, "tokens/s"),
        ("training mlm rope", "plain", "default: fp32", 4.0, "tokens/s"),
        ("training mlm alibi", "plain", "best: bf16", 2.0, "tokens/s"),
        ("training causal rope", "both", "best: bf16, other", 3.0, "tokens/s"),
        ("training causal alibi", "both", "best: bf16", 4.0, "tokens/s"),
        ("training mlm rope", "matrix product", "bf16", 0.125, "FLOP/s"),
        ("attention causal alibi 16,384", "torch SDPA", "", 0.5, "s"),
        ("attention bidirectional alibi 4,096", "torch SDPA", "", 0.5, "s"),
        ("attention causal local(rope, window=256) 16,384", "torch SDPA", "", 0.01 / 4, "s"),
        ("attention causal local(rope, window=256) 16,384", "extrap at 8,192", "", 2.0, "s"),
        ("attention causal alibi 8,192", "extrap at 4,096", "", 4.0, "s"),
        ("memory causal alibi 8,192", "extrap at 4,096", "", 2.0, "bytes"),
        ("step rtd", "extrap mlm, all scored", "all scored", 0.7, "s"),
        ("step electra", "extrap mlm", "", 1.55, "s"),
        ("step causal", "extrap mlm", "", 1.25, "s"),
        ("step mlm, V = 4,096", "extrap mlm", "", 1.2, "s"),
        ("step causal, V = 4,096", "extrap causal", "", 1.6, "s"),
        ("sweep", "extrap", "one after the other", 1.25, "tokens/s"),
    ],
)
def test_ratios_are_what_was_put_in(found, case, peer, setting, ratio, unit):
    (line,) = found[(found["case"] == case) & (found["peer"] == peer) & (found["setting"] == setting)].to_dict("records")
    assert line["ratio"] == pytest.approx(ratio)
    assert line["ours"] / line["theirs"] == pytest.approx(ratio)  # the load met both alike
    assert (line["unit"], line["machine"]) == (unit, "a machine")


def test_a_peer_with_the_same_schemes_is_compared_with_the_same_one(found):
    assert list(found.columns) == RATIOS
    assert not found.duplicated(["case", "peer", "setting", "machine"]).any()
    assert len(found[found["peer"] == "both"]) == 2 * 2 * 3  # objectives, schemes, settings
    assert len(found[found["peer"] == "plain"]) == 2 * 2 * 3  # stands against both of ours


def test_ratios_are_of_rounds_and_not_of_medians():
    """Theirs is always twice ours, but which round is in the middle is not the same for both."""
    rows = []
    for number, (ours, theirs) in enumerate([(1.0, 2.0), (4.0, 8.0), (9.0, 3.0)]):
        rows.append(row("sweep", "extrap", number, ours, setting="side by side", tokens=1))
        rows.append(row("sweep", "extrap", number, theirs, setting="one after the other", tokens=1))
    (line,) = ratios(pd.DataFrame([dict.fromkeys(COLUMNS, 0) | r for r in rows])).to_dict("records")
    assert line["ratio"] == pytest.approx(2.0)
    assert (line["ours"], line["theirs"]) == pytest.approx((1 / 4, 1 / 3))


def test_machines_are_never_compared_with_each_other(tmp_path):
    other = [line | {"machine": "another", "round": line["round"] + 10} for line in timings()]
    save_timings(tmp_path / "timings.csv", timings() + other)
    with pytest.raises(UserError, match="of one machine"):
        load_timings(tmp_path / "timings.csv")


@pytest.mark.parametrize("content", [b"", b"a,b\n1,2\n", b"\xff"])
def test_what_is_no_table_of_timings_is_refused(tmp_path, content):
    (tmp_path / "timings.csv").write_bytes(content)
    with pytest.raises(UserError, match=r"timings\.csv is no table") as refused:
        load_timings(tmp_path / "timings.csv")
    assert "\n" not in str(refused.value)


def test_a_measurement_that_is_there_twice_is_refused(tmp_path):
    save_timings(tmp_path / "timings.csv", [*timings(), timings()[0]])
    with pytest.raises(UserError, match="every measurement once"):
        load_timings(tmp_path / "timings.csv")


# rounds


def test_everybody_runs_once_a_round_and_warm_up_is_forgotten():
    ran: list[str] = []
    contestants = [Contestant({"name": name}, lambda name=name: ran.append(name)) for name in "abc"]
    rows = interleave(contestants, rounds=2, title="", warmup=1)
    assert "".join(ran) == "cba" + "abc" + "cba"
    assert sorted((line["name"], line["round"]) for line in rows) == [(name, n) for name in "abc" for n in (0, 1)]
    assert all(line["value"] >= 0 for line in rows)


def test_repeats_divide(monkeypatch):
    monkeypatch.setattr("experiments.speed.rounds.seconds_of", lambda run: 6.0)
    assert interleave([Contestant({}, lambda: None, repeats=3)], 1, "")[0]["value"] == 2.0


def test_batches_are_taken_in_turn():
    seen: list[object] = []
    run = in_turn(seen.append, ["a", "b"])  # type: ignore[list-item]
    for _ in range(3):
        run()
    assert seen == ["a", "b", "a"]


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["mlm", "causal"])
def test_a_step_of_ours_is_told_with_its_sizes(objective):
    """Matrix products of the definition: causal attention over all pairs, no token twice, a gradient twice the forward; the
    last of four layers makes keys, values and queries of every token, and the rest of what is scored.
    """
    (config,) = compose_grid([*TRAINING, "position=rope", f"objective={objective}"])
    told = training_step(prepare(config), torch.device("cpu")).columns
    assert (told["case"], told["scheme"], told["objective"], told["n"]) == ("training", "rope", objective, 256)
    tokens, logits = 16 * 256, 16 * (38 if objective == "mlm" else 256)
    assert (told["tokens"], told["logits"]) == (tokens, logits)
    queries, rest = 3 * 256**2, 9 * 256**2 + 2 * 256 * 256  # of a token in a layer
    assert told["flops"] == 3 * 2 * (tokens * (4 * queries + 3 * rest) + logits * (rest + 256 * 256))


def test_what_cannot_be_compiled_is_left_out_with_a_word(capsys):
    def fails() -> None:
        raise RuntimeError("no compiler")

    told: dict[str, object] = {"name": "a peer", "scheme": "rope", "objective": "mlm"}
    runs, broken = Contestant(told, lambda: None), Contestant(told, fails)
    assert (if_it_compiles(runs), if_it_compiles(broken)) == ([runs], [])
    assert capsys.readouterr().out == "a peer, rope, mlm compiled was left out: RuntimeError\n"


# trainings to the same loss


def training_of(name: str, scheme: str, setting: str, seconds: float, losses: list[float]) -> list[dict[str, object]]:
    """Equal parts of `seconds`, each with the loss after it; the rows stand in no order."""
    told = {"scheme": scheme, "setting": setting, "n": 128}
    parts = [row(PART, name, i, seconds, **told, tokens=100 * (i + 1)) for i in range(len(losses))]
    looks = [row(LOOK, name, i, loss, **told, tokens=100 * (i + 1), unit="nats") for i, loss in enumerate(losses)]
    return [*looks[::-1], *parts[::-1]]


def trainings() -> list[dict[str, object]]:
    """Ours ends at a loss of 2 after 4 x 10 s."""
    return [
        *training_of("extrap", "rope", RECIPE, 10.0, [5.0, 4.0, 3.0, 2.0]),
        *training_of("extrap", "rope", "between looks", 25.0, [4.0, 2.1, 1.9, 2.2]),  # and off again
        *training_of("extrap", "rope", "exactly", 20.0, [4.0, 2.0, 1.0, 1.0]),
        *training_of("extrap", "rope", "never", 50.0, [4.0, 3.0, 2.5, 2.000001]),
        *training_of("extrap", "rope", "at the first look", 5.0, [1.5, 1.4, 1.3, 1.2]),
        *training_of("extrap", "rope", "no number", 5.0, [float("inf")] * 4),
        *training_of("extrap", "learned", RECIPE, 8.0, [5.0, 3.1, 2.9, 3.0]),  # there before its end
        *training_of("peer", "learned", "100 steps", 16.0, [5.0, 4.0, 2.9, 2.8]),
    ]


@pytest.mark.parametrize(
    ("scheme", "setting", "seconds", "arrives"),
    [
        ("rope", RECIPE, 40, True),
        ("rope", "between looks", 75, True),
        ("rope", "exactly", 40, True),
        ("rope", "never", 200, False),
        ("rope", "at the first look", 5, True),
        ("rope", "no number", 20, False),
        ("learned", RECIPE, 24, True),
        ("learned", "100 steps", 48, True),
    ],
)
def test_a_time_to_a_loss_is_that_of_the_first_look_that_is_not_above_it(scheme, setting, seconds, arrives):
    times = times_to_loss(pd.DataFrame([dict.fromkeys(COLUMNS, 0) | one for one in trainings()]))
    (line,) = times[(times["scheme"] == scheme) & (times["setting"] == setting)].to_dict("records")
    assert (line["seconds"], line["arrives"], line["goal"]) == (seconds, arrives, 2.0 if scheme == "rope" else 3.0)
    assert line["tokens"] == 400


def test_ratios_of_times_to_a_loss_are_ours_over_theirs_and_bounds_where_they_never_arrive():
    found = ratios(pd.DataFrame([dict.fromkeys(COLUMNS, 0) | one for one in trainings()]))
    told = {line["setting"]: line for line in found.to_dict("records")}
    assert {setting: (line["ratio"], line["unit"]) for setting, line in told.items()} == {
        "between looks": (40 / 75, "s"), "exactly": (1.0, "s"), "never": (40 / 200, "s or more"),
        "at the first look": (8.0, "s"), "no number": (2.0, "s or more"), "100 steps": (0.5, "s"),
    }  # fmt: skip
    assert told["100 steps"] == {
        "case": "time to loss mlm learned", "peer": "peer", "setting": "100 steps",
        "ours": 24.0, "theirs": 48.0, "ratio": 0.5, "unit": "s", "machine": "a machine",
    }  # fmt: skip


def test_a_loss_that_is_no_number_is_kept_as_an_infinite_one(tmp_path):
    told: dict[str, object] = {"name": "a", "machine": "a machine"}
    one = learning.Learner(told, lambda step: None, lambda: float("nan"), n_steps=1, tokens=1)
    save_timings(tmp_path / "timings.csv", learning.train_in_turns([one], looks=1))
    rows = load_timings(tmp_path / "timings.csv")
    assert rows.loc[rows["case"] == LOOK, "value"].tolist() == [float("inf")]


def test_where_ours_diverges_there_is_no_time_to_its_loss():
    diverged = training_of("extrap", "rope", RECIPE, 1.0, [2.0, float("inf")])
    rows = [*diverged, *training_of("a", "rope", "b", 1.0, [3.0, 1.0])]
    rows = pd.DataFrame([dict.fromkeys(COLUMNS, 0) | one for one in rows])
    assert times_to_loss(rows).empty
    assert ratios(rows).empty


def test_trainings_take_turns_and_looks_cost_nothing(monkeypatch):
    clock, did = [0.0], []

    def learner(name: str, n_steps: int) -> learning.Learner:
        def step(number: int) -> None:
            did.append((name, number))
            clock[0] += 1.0

        def look() -> float:
            did.append((name, "look"))
            clock[0] += 1000.0
            return float(len(did))

        return learning.Learner({"name": name}, step, look, n_steps, tokens=7)

    monkeypatch.setattr("experiments.speed.rounds.time.perf_counter", lambda: clock[0])
    rows = learning.train_in_turns([learner("a", 5), learner("b", 2)], looks=2)
    first, second = [("a", 0), ("a", 1), ("a", "look")], [("b", 0), ("b", "look")]
    assert did == [*first, *second, ("b", 1), ("b", "look"), ("a", 2), ("a", 3), ("a", 4), ("a", "look")]
    told = [(one["name"], one["round"], one["case"], one["value"], one["unit"], one["tokens"]) for one in rows]
    assert told == [
        ("a", 0, PART, 2.0, "s", 14), ("a", 0, LOOK, 3.0, "nats", 14),
        ("b", 0, PART, 1.0, "s", 7), ("b", 0, LOOK, 5.0, "nats", 7),
        ("b", 1, PART, 1.0, "s", 14), ("b", 1, LOOK, 7.0, "nats", 14),
        ("a", 1, PART, 3.0, "s", 35), ("a", 1, LOOK, 11.0, "nats", 35),
    ]  # fmt: skip


TINY = (
    "experiment=main", "name=bench", "seed=0", "model.d_model=16", "model.d_ff=32", "train.train_len=16",
    "eval.lengths=[16]", "eval.n_targets=8", "eval.stride=16",
    "train.max_steps=6", "train.batch_size=2", "train.warmup_steps=2",
)  # fmt: skip


@pytest.mark.parametrize("recipe", [("train=default", "objective=mlm"), ("train=adamw", "objective=causal")])
def test_ours_trains_as_a_sweep_does_and_looks_change_nothing(recipe, tmp_path):
    run = prepare(compose_grid([*TINY, *recipe, "position=learned"])[0])
    one = learning.our_learner(run, torch.device("cpu"))
    looks = [line["value"] for line in learning.train_in_turns([one], looks=3) if line["case"] == LOOK]
    log = train(
        build_encoder(run), run.source, run.objective, run.config.train, seed=0, precision=Precision.fp32,
        log=tmp_path / "train.csv", checkpoint=tmp_path / "checkpoint.pt", checkpoint_every=6, of="",
    ).log  # fmt: skip
    assert one.columns["setting"] == (RECIPE if "train=default" in recipe else "AdamW, 6 steps")
    assert looks[-1] == log[-1].held_out_loss
    assert len({*looks}) == 3


def test_the_plain_baseline_trains_by_its_own_recipe(monkeypatch):
    """As nanoGPT: matrices and tables decay, nothing else does."""
    made = []
    real = torch.optim.AdamW
    monkeypatch.setattr(torch.optim, "AdamW", lambda *a, **k: made.append(real(*a, **k)) or made[0])
    run = prepare(compose_grid([*TINY, "train=adamw", "train.lr=1e-3", "objective=mlm", "position=learned"])[0])
    one = learning.plain_learner(run, torch.device("cpu"))
    before = one.look()
    rates = []
    for step in range(6):
        one.step(step)
        rates += [group["lr"] for group in made[0].param_groups]
    assert one.look() != before
    assert rates[::2] == rates[1::2] == [learning.plain_rate(step, run.config.train) for step in range(6)]
    for group in made[0].param_groups:
        assert group["betas"] == (0.9, 0.99)
        assert {parameter.dim() >= 2 for parameter in group["params"]} == {group["weight_decay"] == 0.1}


def test_the_rate_of_the_baseline_ends_at_a_tenth():
    config = replace(compose_grid(["experiment=main", "seed=0", "position=rope", *learning.PEER])[-1].train, max_steps=2000)
    assert (config.batch_size, config.optimizer.value, config.mask_rate) == (12, "adamw", 0.15)
    assert [learning.plain_rate(step, config) for step in (0, 99, 100, 1050, 2000)] == pytest.approx(
        [1e-5, 1e-3, 1e-3, 5.5e-4, 1e-4]
    )


@pytest.mark.slow
def test_all_train_the_same_model_on_the_same_text_each_by_its_own_recipe(monkeypatch):
    """Over schedules of three lengths where it is not ours; what they are looked at on follows from what is the same."""
    monkeypatch.setattr(learning, "prepare_all", lambda configs: configs)
    for whose in ("our", "plain"):
        monkeypatch.setattr(learning, f"{whose}_learner", lambda config, device, whose=whose: (whose, config))
    found = [*learning.learners(torch.device("cpu"))]
    assert len(found) == 16
    for objective, n_layers, recipe in (("Mlm", 2, (400, 16, 0.3)), ("Causal", 4, (600, 8, 0.3))):
        of_it = [(whose, config) for whose, config in found if config.objective["_target_"].endswith(objective)]
        assert len({str((c.data, c.objective, c.model, c.train.train_len, c.seed)) for _, c in of_it}) == 1
        model, train = of_it[0][1].model, of_it[0][1].train
        assert (model.d_model, model.n_layers, train.train_len) == (128, n_layers, 128)
        assert [
            (whose, c.scheme, c.train.optimizer.value, c.train.max_steps, c.train.batch_size, c.train.mask_rate)
            for whose, c in of_it
        ] == [
            *(("our", scheme, "muon", *recipe) for scheme in ("rope", "learned")),
            *(("our", "rope", "adamw", steps, 8, 0.15) for steps in (600, 1200, 2400)),
            *(("plain", "learned", "adamw", steps, 12, 0.15) for steps in (500, 1000, 2000)),
        ]


def test_the_table_tells_bounds_as_bounds(folder):
    save_timings(folder / "timings.csv", [*timings(), *trainings()])
    rows = load_timings(folder / "timings.csv")
    table = markdown(rows, ratios(rows))
    cells = [[cell.strip() for cell in line.split("|")[3:-1]] for line in table.splitlines() if "(rope) " in line]
    assert ["never", "400", "2.000", "2.000", "more than 200", "less than 0.20"] in cells
    assert ["between looks", "400", "2.200", "2.000", "75.0", "0.53"] in cells
    assert [RECIPE, "400", "2.000", "2.000", "40.0", "–"] in cells
    assert "1/4 of their schedule" in table


def test_the_figure_shows_every_look():
    rows = [*trainings(), *([one | {"objective": "causal"} for one in trainings() if one["setting"] == RECIPE])]
    figure, points = learning_figure(pd.DataFrame([dict.fromkeys(COLUMNS, 0) | one for one in rows]))
    assert len(points) == 7 * 4 + 2 * 4  # all but that without a number
    lines = {line.get_label(): line for line in figure.axes[0].lines}
    assert {"rope, recipe", "rope, AdamW", "learned, recipe", "peer, learned"} < set(lines)
    assert list(lines["rope, recipe"].get_xdata()) == [10, 20, 30, 40]
    assert list(lines["rope, recipe"].get_ydata()) == [5, 4, 3, 2]
    assert lines["rope, recipe"].get_color() == LOOKS["rope"]["color"]
    dots = {tuple(map(float, line.get_xydata()[0])) for line in figure.axes[0].lines if line.get_marker() == "o"}
    assert dots == {(40, 2), (75, 1.9), (5, 1.5), (24, 2.9), (48, 2.9)}  # one of ours and another's at (40, 2)


# evidence


PAIRS = pd.DataFrame([
    {"protocol": protocol, "extension_a": "none", "extension_b": other, "verdict": verdict, "n_seeds": 3}
    for protocol, other, verdict in (
        ("nonoverlap", "none", "a"), ("nonoverlap", "none", "undecided"), ("same_targets", "none", "b"),
        ("same_targets", "window", "a"), ("sliding", "none", "a"),
    )
])  # fmt: skip


def report_of(folder: Path, seconds: list[float | str], **changes: object) -> None:
    """A report whose runs took so long, each on two cores."""
    made_by = {"device": "a", "instructions": "machine", "precision": "fp32", "threads": 2, "processes": 1}
    train_config = {"optimizer": "muon", "max_steps": 1400, "batch_size": 16}
    parts = {"model": {}, "data": {}, "objective": {}, "eval": {}, "train": train_config}
    told = {"command": "a test", "made_by": [made_by], "config": parts} | changes
    folder.mkdir(parents=True)
    (folder / "provenance.yaml").write_text(yaml.safe_dump(told))
    PAIRS.to_csv(folder / "pairs.csv", index=False)
    shared = f"{folder.name},{{}},{{}},rope,mlm,stdlib,128,{{}},1,1,1,{{}},{{}},1\n"
    lines = [shared.format(f"rope-seed{i}", "scheme", i, of, of and 0.5) for i, of in enumerate(seconds)]
    columns = "experiment,run,kind,scheme,objective,data,train_len,seed,parameters,tokens,train_flops,train_seconds,"
    lines = [columns + "eval_seconds,peak_memory\n", *lines, shared.format("unigram", "unigram", 0, "", "")]
    (folder / "runs.csv").write_text("".join(lines))


def test_evidence_is_told_by_what_it_cost(tmp_path):
    report_of(tmp_path / "main", [10.0, 20.0, 30.0])
    report_of(tmp_path / "quick", [1.0])  # what somebody has run here
    written = evidence.write_evidence(tmp_path)
    assert [path.name for path in written] == ["evidence.csv", "evidence.md"]
    lines = pd.read_csv(written[0], keep_default_na=False).to_dict("records")
    assert [(line["experiment"], line["commit"]) for line in lines] == [("main", "818f747"), ("main", "")]
    assert lines[1] == {
        "experiment": "main", "commit": "", "training": "Muon, 1,400 steps of 16", "seeds": 3, "runs": 3,
        "core_seconds": 2 * (60 + 1.5), "pairs": 3, "decided": 2, "device": "a machine", "precision": "fp32",
        "core_seconds_per_run": 41.0, "core_seconds_per_decided_pair": 61.5,
    }  # fmt: skip
    page = written[1].read_text()
    (line,) = (line for line in page.splitlines() if line.startswith("| main") and "Muon" in line)
    assert [cell.strip() for cell in line.split("|")[3:8]] == ["3", "3", "41.0", "2 of 3", "61.5"]
    assert "nan" not in page


@pytest.mark.parametrize(
    ("seconds", "changes"),
    [
        ([10.0, ""], {}),
        ([10.0], {"made_by": [{"threads": cores, "device": "a", "precision": "b"} for cores in (1, 2)]}),
    ],
)
def test_a_report_that_does_not_know_its_costs_tells_none(tmp_path, seconds, changes):
    report_of(tmp_path / "main", seconds, **changes)
    assert evidence.write_evidence(tmp_path) == []
    assert not (tmp_path / "speed").exists()


def test_where_nothing_is_decided_no_pair_has_a_price(tmp_path):
    report_of(tmp_path / "main", [10.0])
    PAIRS.assign(verdict="undecided").to_csv(tmp_path / "main" / "pairs.csv", index=False)
    table, page = evidence.write_evidence(tmp_path)
    assert pd.read_csv(table)["core_seconds_per_decided_pair"].isna().tolist() == [False, True]
    assert "0 of 3" in page.read_text()
    assert "nan" not in page.read_text()
    assert "inf" not in page.read_text()


def test_what_evidence_cost_before_is_what_the_reports_of_that_commit_say():
    def shown(commit: str, path: str) -> str:
        done = subprocess.run(["git", "show", f"{commit}:{path}"], cwd=ROOT, capture_output=True, text=True, check=True)
        return done.stdout

    before = pd.read_csv(evidence.BEFORE, dtype={"commit": str}).to_dict("records")
    assert {line["experiment"] for line in before} == {"main", "causal", "markov", "prose", "prose_mlm"}
    for line in before:
        try:
            told = yaml.safe_load(shown(line["commit"], f"results/{line['experiment']}/provenance.yaml"))
        except (OSError, subprocess.CalledProcessError):
            pytest.skip("the history of the project is not here")
        pairs = pd.read_csv(io.StringIO(shown(line["commit"], f"results/{line['experiment']}/pairs.csv")))
        seconds = told["seconds_of_all_runs"]
        assert line == evidence.evidence(line["experiment"], told, pairs, told["runs"], seconds, line["commit"])


# equality


@pytest.fixture(params=[Mlm(), Causal()], ids=["mlm", "causal"])
def trained(request, scheme_of, encoder_of):
    causal = request.param.causal
    return [
        Trained(case, "causal" if causal else "mlm", encoder_of(scheme_of(case, causal)).eval())
        for case in ("alibi", "local position.window=5", "t5")
    ]


@pytest.fixture
def short(monkeypatch):
    monkeypatch.setattr(equality, "LENGTHS", (13, 37))
    monkeypatch.setattr(equality, "LONG", 83)
    return torch.randint(11, (1, 83))


def test_paths_that_are_right_pass(trained, short, small):
    rows = equality.check(trained, short)
    paths = [(line["setting"], line["n"]) for line in rows]
    assert paths.count(("forward", 83)) == paths.count(("forward", 37)) == paths.count(("training", 13)) == 3
    assert paths.count(("training, parameters", 37)) == 1  # of T5
    assert all(line["value"] <= 1e-5 for line in rows)


@pytest.mark.parametrize("wrong", ["forward", "long", "gradient", "table", "no number"])
def test_a_path_that_is_wrong_is_an_error(trained, short, small, monkeypatch, wrong):
    forward = long.layers_of

    def wrong_gradient(scheme, pos, *, training):
        attend = attention.prepare(scheme, pos, training=training)
        if wrong == "gradient":
            return lambda q, k, v: attend(q.detach(), k, v) + 0 * q
        if wrong == "no number":  # of values, which are not the first
            return lambda q, k, v: attend(q, k, v) + (0 * v.square()).sqrt()
        if not (parameters := [*scheme.parameters()]):
            return attend
        tables = sum(table.sum() for table in parameters)  # the forward stays as it is
        return lambda q, k, v: attend(q, k, v) + 1e-3 * (tables - tables.detach())

    def wrong_forward(encoder, tokens):
        layers = forward(encoder, tokens)
        n = tokens.shape[1]
        if n == (37 if wrong == "forward" else 83):
            layers[-1].mixed[:, :, n - 1] += 1e-3  # the last query of the last layer alone
        return layers

    if wrong in ("gradient", "table", "no number"):
        monkeypatch.setattr(equality, "prepare", wrong_gradient)
    else:
        monkeypatch.setattr(equality, "layers_of", wrong_forward)
    with pytest.raises(UserError, match="differs from the float64 reference") as refused:
        equality.check(trained, short)
    assert "\n" not in str(refused.value)


def test_rows_of_the_definition_are_its_rows(trained):
    q, k, v = torch.randn(3, 1, 4, 29, 8, dtype=torch.float64)
    for one in trained:
        scheme, pos, rows = one.encoder.scheme, torch.arange(29), torch.tensor([28, 0, 7])
        whole = attend_reference(scheme, pos, q, k, v)
        found = attend_reference(scheme, pos, q, k, v, q_idx=rows)
        torch.testing.assert_close(found, whole[:, :, rows])


def test_layers_are_what_attention_gets_and_gives(trained):
    tokens = torch.randint(11, (1, 17))
    for one in trained:
        layers = long.layers_of(one.encoder, tokens)
        assert [part.shape for part in (*layers[0].qkv, layers[0].mixed)] == [(1, 4, 17, 8)] * 4
        scheme = one.encoder.scheme
        again = attention.prepare(scheme, scheme.positions(17), training=False)(*layers[0].qkv)
        torch.testing.assert_close(again, layers[0].mixed)
        assert len(layers) == len(one.encoder.blocks)
        read: list[torch.Tensor] = []  # by the last layer, in a pass of the encoder itself
        hook = one.encoder.blocks[-1].register_forward_pre_hook(lambda block, given, read=read: read.append(given[0]))
        one.encoder(tokens)
        hook.remove()
        last = one.encoder.blocks[-1]
        heads = last.qkv(last.attn_norm(read[0])).view(1, 17, 3, 4, 8).permute(2, 0, 3, 1, 4)
        torch.testing.assert_close(torch.stack(layers[-1].qkv), heads)


# peers


@pytest.mark.slow
def test_a_missing_extra_is_told_in_one_line():
    code = "import sys; sys.modules['x_transformers'] = sys.modules['transformers'] = None; sys.argv = ['bench']; "
    code += "import runpy; runpy.run_module('experiments.bench', run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stderr.startswith("error: the benchmark needs transformers")
    assert "make bench" in done.stderr
    assert done.stderr.count("\n") == 1


def test_peers_are_imported_where_they_are_needed_alone():
    for path in (ROOT / "experiments").rglob("*.py"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                assert "transformers" not in ast.unparse(node)


def test_the_baseline_learns_and_its_logits_are_counted():
    network = peers.Nano(peers.VOCAB, 8, 16, 2, 2, causal=True)
    inputs = torch.randint(256, (4, 8))
    batch = TrainingBatch(inputs, torch.arange(0, 32, 2), inputs.flatten()[::2])
    assert peers.count_logits(network, peers.scored_loss, batch) == 32  # all of them, whatever is scored
    step = peers.stepper(network, peers.scored_loss, peers.Setting(flash=True, tuned=True))
    before = peers.scored_loss(network, batch).item()
    for _ in range(20):
        step(batch)
    assert peers.scored_loss(network, batch).item() < before


def test_the_baseline_starts_as_nano_gpt_does():
    """Its model.py: 0.02, over sqrt(2 layers) for what is added to the residual stream; no bias."""
    torch.manual_seed(0)
    network = peers.Nano(peers.VOCAB, 128, 128, 8, 4, causal=True)
    assert network.head.weight is network.tokens.weight
    for name, parameter in network.named_parameters():
        if parameter.dim() == 2:
            wanted = 0.02 / 4 if name.endswith(("proj.weight", "mlp.2.weight")) else 0.02
            assert parameter.std().item() == pytest.approx(wanted, rel=0.05), name
        else:
            assert torch.equal(parameter, torch.full_like(parameter, float(name.endswith("weight")))), name


def test_the_baseline_looks_back_only_when_causal():
    tokens = torch.zeros(1, 8, dtype=torch.long)
    changed = tokens.clone()
    changed[0, -1] = 1
    for causal in (True, False):
        network = peers.Nano(peers.VOCAB, 8, 16, 2, 2, causal)
        assert torch.equal(network(tokens)[0, 0], network(changed)[0, 0]) is causal


# reports


@pytest.mark.slow
def test_the_report_is_a_function_of_the_timings_byte_for_byte(folder, capsys):
    written = write_speed_report(folder)
    assert {path.name for path in written} == {
        "ratios.csv",
        "table.md",
        *(f"speed.{s}" for s in ("png", "pdf", "svg", "csv")),
    }
    before = {path: path.read_bytes() for path in written}
    for path in written:
        path.unlink()
    draw_all(folder.parent)
    assert {path: path.read_bytes() for path in written} == before
    assert str(folder / "speed.png") in capsys.readouterr().out


@pytest.mark.slow
def test_trainings_to_a_loss_have_a_figure_of_their_own_and_change_no_other(folder):
    before = {path: path.read_bytes() for path in write_speed_report(folder)}
    save_timings(folder / "timings.csv", [*timings(), *trainings()])
    written = write_speed_report(folder)
    assert {*written} - {*before} == {folder / f"time_to_loss.{s}" for s in ("png", "pdf", "svg", "csv")}
    changed = {path.name for path, content in before.items() if path.read_bytes() != content}
    assert changed == {"ratios.csv", "table.md"}


@pytest.mark.slow
def test_a_scheme_looks_as_in_other_figures():
    """Local attention with another window too."""
    figure, _ = speed_figure(load_timings(ROOT / "results" / "speed" / "timings.csv"))
    lines = {line.get_label(): line for axes in figure.axes[2:] for line in axes.lines if line.get_label() != "torch SDPA"}
    assert {"alibi", "rope", "t5", "kerple", "nope", "local(rope, window=256)"} == set(lines)
    for label, line in lines.items():
        look = LOOKS[label.replace(", window=256", "")]
        assert (line.get_color(), line.get_marker()) == (look["color"], look["marker"])


def test_the_table_shows_what_was_measured(folder):
    rows = load_timings(folder / "timings.csv")
    table = markdown(rows, ratios(rows))
    assert "nan" not in table
    for part in ("3,000,000", " 608 ", "both (rope)", "plain (learned)", "8 GFLOP/s in bf16", "1.0e-07"):
        assert part in table, part
    (line,) = (one for one in table.splitlines() if "plain (learned)" in one and "best: bf16 " in one and "causal" in one)
    assert [cell.strip() for cell in line.split("|")[5:-1]] == ["608", "2,048", "2.00", "2.00"]


@pytest.mark.parametrize(("case", "tables"), [("training", 2), ("attention", 1), ("sweep", 1)])
def test_a_part_of_the_cases_can_be_reported(folder, case, tables):
    rows = load_timings(folder / "timings.csv")
    some = rows[rows["case"] == case]
    assert markdown(some, ratios(some)).count("\n**") == tables


# every scheme


def scheme_timings() -> list[dict[str, object]]:
    """ALiBi takes 1.25 times NoPE's time in training, and twice at 4,096; FIRE's memory is quadratic; a table ends."""
    rows = []
    for number, load in enumerate(LOAD):
        for scheme, seconds in (("nope", 0.8), ("alibi", 1.0), ("fire", 1.6), ("learned", 0.8)):
            step = {"scheme": scheme, "tokens": 2048, "params": 400_000, "n": 128}
            rows.append(row("training", "extrap", number, seconds * load, **step))
            for n in (2048, 4096) if scheme != "learned" else ():
                told = {"scheme": scheme, "n": n, "tokens": n}
                times = 2 if scheme == "alibi" and n == 4096 else 1
                rows.append(row("evaluation", "extrap", number, n * 1e-5 * times * load, **told))
                if not number:
                    bytes_above = n * 1e3 if scheme != "fire" else n * n * 4.0
                    rows.append(row("memory", "extrap", 0, bytes_above, unit="bytes", **told))
    return rows


def test_the_table_of_schemes_is_over_nope_within_rounds(tmp_path):
    save_timings(tmp_path / "steps.csv", scheme_timings())
    (page,) = write_scheme_report(tmp_path)
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.read_text().splitlines() if "|" in line]
    found = {line[0]: line[1:] for line in cells}
    assert found["nope"] == ["400,000", "1.00", "1.00", "1.00", "4.10", "linearly (2.00)"]
    assert found["alibi"] == ["400,000", "0.80", "1.00", "0.50", "4.10", "linearly (2.00)"]
    assert found["fire"] == ["400,000", "0.50", "1.00", "1.00", "67.1", "faster (4.00)"]
    assert found["learned"] == ["400,000", "1.00", "–", "–", "–", "–"]
    assert "**absolute, or none**" in page.read_text()
    assert "at least 1.00 times the smallest in training, and 1.00 times in scoring" in " ".join(page.read_text().split())


def test_what_is_said_of_the_speed_of_training_is_so_in_every_round():
    steps = load_timings(ROOT / "results" / "speed_schemes" / "steps.csv").query("case == 'training'")
    for _, rows in steps.groupby("objective"):
        seconds = rows.pivot(index="round", columns="scheme", values="value")
        over = seconds.rdiv(seconds["nope"], axis=0)
        assert set(over.columns[over.max() < 0.5]) == {"dape(kerple)"}
        assert set(over.columns[over.median() < 0.6]) <= {"dape(kerple)", "cable(scaled=False)", "fox", "deberta"}
    page = (ROOT / "results" / "speed_schemes" / "table.md").read_text()
    assert "linearly" in page
    assert "faster (" not in page


@pytest.mark.slow
def test_schemes_are_measured(tmp_path, monkeypatch):
    monkeypatch.setattr(schemes, "EXPERIMENTS", ("smoke",))
    monkeypatch.setattr(schemes, "MULTIPLES", (2, 4))
    rows = [row for part in schemes.measurements(torch.device("cpu")) for row in part]
    save_timings(tmp_path / "steps.csv", [{"machine": "a machine", "threads": 1} | row for row in rows])
    (page,) = write_scheme_report(tmp_path)
    assert "linearly" in page.read_text() or "faster" in page.read_text()
    assert {row["case"] for row in rows} == {"training", "evaluation", "memory"}


@pytest.mark.slow
def test_steps_are_timed_by_objective_and_with_more_tokens(monkeypatch):
    small = ("experiment=smoke", "name=bench", "seed=0", "data=stdlib", "train.train_len=16", "train.batch_size=2",
             "eval.lengths=[16]", "eval.n_segments=8", "model.d_model=32", "model.n_heads=2", "model.d_ff=32")  # fmt: skip
    monkeypatch.setattr(objectives.ours, "TRAINING", small)
    contestants = objectives.contestants(torch.device("cpu"))
    rows = [one.columns | {"round": 0, "value": 1.0, "unit": "s", "machine": "m"} for one in contestants]
    logits = {("mlm", ""): 10, ("mlm", "all scored"): 32, ("mlm", "V = 4,096"): 10, ("causal", ""): 32,
              ("causal", "V = 4,096"): 32, ("rtd", ""): 32, ("electra", ""): 4}  # fmt: skip
    assert {(row["objective"], row["setting"]): row["logits"] for row in rows} == logits
    assert {row["tokens"] for row in rows} == {32}
    params = {(row["objective"], row["setting"]): row["params"] for row in rows}
    assert params["mlm", ""] == params["mlm", "all scored"]
    for objective in ("mlm", "causal"):
        assert params[objective, "V = 4,096"] - params[objective, ""] == 2 * (4096 - 256) * 32
    for one in contestants:
        loss, _ = one.run()
        assert loss.isfinite()
        if one.columns["objective"] in ("mlm", "causal"):  # at the start
            n_outputs = 4096 if one.columns["setting"] == "V = 4,096" else 256
            assert loss.item() == pytest.approx(np.log(n_outputs), abs=0.3)
    compared = ratios(pd.DataFrame([dict.fromkeys(COLUMNS, 0) | row for row in rows]))
    assert [*compared["case"]] == [
        "step rtd", "step electra", "step causal", "step mlm, V = 4,096", "step causal, V = 4,096",
    ]  # fmt: skip
    assert (compared["ratio"] == 1).all()
