"""Probes of trained models, beside models whose answer is known exactly."""

import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from pandas.testing import assert_frame_equal
from sweeps import ON_LINUX, ROOT, TINY, copy_of, wait_for
from torch import nn

from extrap.config.compose import compose_grid
from extrap.data.base import HeldOut
from extrap.errors import UserError
from extrap.model.prefix import Prefix
from extrap.probes import probe as probing
from extrap.probes import reach as reaching
from extrap.probes.base import found, nll, probed
from extrap.probes.detection import concordant, detection
from extrap.probes.heads import heads
from extrap.probes.order import order
from extrap.probes.probe import refuse_idle_probes, refuse_other_rows
from extrap.probes.reach import losses_amid, losses_behind, others, reach, shuffled, targets_alone
from extrap.probes.recall import _since, recall
from extrap.report import report as reporting
from extrap.report.probed import reach_figure
from extrap.report.probes import SECTIONS
from extrap.report.report import gather
from extrap.results.folders import RunFolder
from extrap.results.probes import FOUND, load_found, load_probes, recall_bins, save_probes
from extrap.results.rows import OF_RUN, load_rows, save_rows
from extrap.runs.prepare import prepare
from extrap.runs.run import build_encoder
from extrap.runs.trained import load_encoder
from extrap.stats.probes import Reach, reach_of, recalled, rises
from extrap.sweep import probe as command
from extrap.sweep.probe import probe

L = 16


def run_of(position, objective, *overrides, results="results"):
    """A run that nobody trained."""
    given = [
        "experiment=smoke", "seed=0", f"position={position}", f"objective={objective}", "data=markov", "data.vocab_size=8",
        f"train.train_len={L}", "eval.lengths=[16,64]", "eval.n_segments=8", "eval.n_targets=8", "eval.extensions=[none]",
        "eval.protocols=[nonoverlap,same_targets]", "model.n_layers=2", f"runtime.results_dir={results}",
    ]  # fmt: skip
    return prepare(compose_grid([*given, *overrides])[0])


def of(position, objective, *overrides, encoder=None):
    run = run_of(position, objective, *overrides)
    torch.manual_seed(0)
    encoder = encoder or build_encoder(run)
    for parameter in encoder.parameters():  # at the start a model reads little
        nn.init.normal_(parameter, std=0.3)
    with torch.no_grad():
        return probed(run, encoder.eval())


def values(found):
    sums = found.groupby(["probe", "eval_len", "distance", "metric"])[["value_sum", "n"]].sum()
    return sums["value_sum"] / sums["n"]


class Known(nn.Module):
    """A model whose predictions are a function of its tokens: (B, T) -> (B, T, V) nats."""

    def __init__(self, predict, scheme):
        super().__init__()
        self.predict, self.scheme = predict, scheme
        self.none = nn.Parameter(torch.zeros(1))

    def forward(self, tokens, at=None):
        found = self.predict(tokens)
        return found if at is None else found.gather(1, at[..., None].expand(*at.shape, found.shape[-1]))

    def logits(self, hidden):
        return hidden


@torch.no_grad()
def look(probe_, *case, encoder=None):
    return values(probe_(of(*case, encoder=encoder)))


def test_concordant_pairs_are_counted_with_ties_half():
    rng = np.random.default_rng(0)
    told, truth = rng.integers(0, 4, (5, 30)) / 4, rng.integers(0, 2, (5, 30))
    truth[0] = 0  # a row without replaced tokens has no pairs
    found, pairs = concordant(told, truth)
    for row in range(5):
        ones, zeros = told[row][truth[row] == 1], told[row][truth[row] == 0]
        assert found[row] == sum((a > b) + (a == b) / 2 for a, b in product(ones, zeros))
        assert pairs[row] == len(ones) * len(zeros)
    assert pairs[0] == 0


def test_who_says_the_same_of_every_token_has_an_area_of_one_half_and_who_knows_one():
    case = of("nope", "rtd", "eval.lengths=[16]")
    scheme = case.encoder.scheme
    constant = Known(lambda tokens: torch.zeros(*tokens.shape, 2), scheme)
    assert {*values(detection(case._replace(encoder=constant)))} == {0.5}
    truth = dict(zip(map(tuple, case.batch.inputs.tolist()), torch.from_numpy(case.batch.targets), strict=True))

    def knows(tokens):
        return torch.stack([nn.functional.one_hot(truth[tuple(row)], 2) for row in tokens.tolist()]).float()

    with torch.no_grad():
        assert {*values(detection(case._replace(encoder=Known(knows, scheme))))} == {1.0}


@torch.no_grad()
def test_pairs_are_of_the_same_text_at_every_length_though_one_does_not_divide_it():
    found = detection(of("nope", "rtd", "eval.lengths=[16,48,64]"))
    assert found.groupby(["document", "eval_len"])["n"].sum().unstack().nunique(axis=1).eq(1).all()


def test_the_text_of_the_own_generator_is_told_apart_from_that_of_the_rows():
    found = look(detection, "nope", "electra")
    own = found["detection(own)", 64, 0]
    assert 0 < own["replaced"] <= 0.15  # a right guess is no replacement
    assert own["auc"] != found["detection", 64, 0, "auc"]
    assert found.equals(look(detection, "nope", "electra"))  # the same draws again


@pytest.mark.parametrize("objective", ["mlm", "causal", "rtd"])
def test_a_window_reads_as_far_as_its_layers_carry_it(objective):
    """Two layers of a window of 3 reach 4 to either side; what a causal model predicts is one farther on."""
    found = look(reach, "local", objective, "position.window=3")
    for kind in ("reach(other)", "reach(shuffled)"):
        rise = (found[kind] - found[kind, L, L, "nll"]).xs("nll", level="metric").droplevel("eval_len")
        last = 4 if objective == "causal" else 2
        assert all(abs(rise[d]) > 1e-4 for d in rise.index if d <= last), rise
        assert all(abs(rise[d]) < 1e-6 for d in rise.index if d > last), rise


def test_who_knows_no_order_reads_the_same_when_far_text_is_shuffled():
    found = look(reach, "nope", "mlm")
    assert np.ptp(found["reach(shuffled)"]) < 1e-6
    assert np.ptp(found["reach(other)"]) > 1e-3


def test_what_is_replaced_lies_beyond_the_distance_and_comes_from_another_document(monkeypatch):
    case = of("rope", "mlm")
    alone, documents = targets_alone(case)
    assert alone.scored.sum(axis=1).tolist() == [1] * len(documents)
    assert (alone.inputs[:, L // 2] == case.run.source.vocab_size).all()  # hidden alone
    of_document, far, read = (
        dict(zip(case.held_out.documents, case.held_out.tokens, strict=True)),
        abs(np.arange(L) - L // 2),
        [],
    )
    monkeypatch.setattr(reaching, "losses_in", lambda encoder, alone, inputs: read.append(inputs))
    losses_amid(case.encoder, alone, others(case.held_out), [1, 4])
    assert (read[0] == alone.inputs).all()

    def holds(text, piece, at):
        return any((text[first : first + L] == piece)[at].all() for first in range(len(text) - L + 1))

    for d, inputs in zip([1, 4], read[1:], strict=True):
        assert (inputs == alone.inputs)[:, far <= d].all()
        for document, text, piece in zip(documents, alone.targets, inputs, strict=True):
            assert holds(of_document[document], text, far >= 0)
            assert not holds(of_document[document], piece, far > d)
            assert any(holds(other, piece, far > d) for name, other in of_document.items() if name != document)


@pytest.mark.parametrize("tokens_at_a_time", [4096, 5 * L])
@torch.no_grad()
def test_a_text_that_is_read_once_gives_the_losses_of_one_that_is_read_again(tokens_at_a_time, monkeypatch):
    case = of("rope", "causal")
    alone, _ = targets_alone(case)
    other, distances = others(case.held_out), [1, 2, 8]
    n_each = len(alone.inputs) // len(other)
    donors = np.concatenate([alone.inputs[n_each * at : n_each * (at + 1)] for at in other])
    monkeypatch.setattr(reaching, "FORWARD_TOKENS", tokens_at_a_time)
    read = []
    monkeypatch.setattr(reaching, "Prefix", lambda encoder, tokens: read.append(len(tokens)) or Prefix(encoder, tokens))
    for d, losses in zip([L, *distances], losses_behind(case.encoder, alone, other, distances), strict=True):
        own = np.where(np.arange(L) < L - d, donors, alone.inputs)
        again = nll(case.encoder, alone._replace(inputs=own)).sum(axis=1)
        np.testing.assert_allclose(losses, again, rtol=0, atol=1e-5)
    assert sum(read) == n_each * (len(other) + 1)  # the first stands in for the last one, and is forgotten by then


def test_a_copy_of_the_document_under_another_name_stands_in_nobodys_place():
    """With it in its place a model that reads everything would be found to read nothing."""
    tokens = np.array([[1, 2], [1, 2], [3, 4], [5, 6]])
    assert others(HeldOut(tokens, ["a", "copy", "b", "b"], [0, 0, 0, 1])).tolist() == [2, 2, 0, 0]
    with pytest.raises(UserError, match="two documents or more, found a alone"):
        others(HeldOut(tokens[:2], ["a", "copy"], [0, 0]))


def test_shuffled_tokens_are_the_same_tokens_elsewhere():
    inputs = np.arange(40).reshape(2, 20)
    beyond = np.abs(np.arange(20) - 10) > 3
    changed = shuffled(inputs, beyond, np.random.default_rng(0).random(inputs.shape))
    assert (changed[:, ~beyond] == inputs[:, ~beyond]).all()
    assert (np.sort(changed[:, beyond]) == inputs[:, beyond]).all()
    assert (changed[:, beyond] != inputs[:, beyond]).any(axis=1).all()


def test_direction_is_nothing_to_an_even_bias_and_order_nothing_without_positions():
    for position, known in (("nope", {"reversed", "shuffled"}), ("alibi", {"reversed"}), ("rope", set())):
        found = look(order, position, "mlm")
        for name in ("reversed", "shuffled"):
            change = found[f"order({name})"].iloc[0] - found["order(as_is)"].iloc[0]
            assert (abs(change) < 1e-6) == (name in known), (position, name, change)


def test_how_long_ago_each_symbol_stood():
    tokens = np.random.default_rng(0).integers(0, 5, 60)
    back = _since(tokens)
    for t, now in enumerate(tokens):
        before = [s for s in range(t) if tokens[s] == now]
        assert back[t] == (t - before[-1] if before else 0)


@torch.no_grad()
def test_who_looks_up_what_followed_is_at_the_floor_at_every_distance():
    case = of("nope", "causal")
    source = case.run.source

    def looks_up(tokens):
        found = []
        for row in tokens.numpy():
            counts = np.full((len(row), 8, 8), source.alpha)
            for t in range(1, len(row)):
                counts[t] = counts[t - 1]
                counts[t, row[t - 1], row[t]] += 1
            now = counts[np.arange(len(row)), row]
            found.append(np.log(now / now.sum(axis=1, keepdims=True)))
        return torch.from_numpy(np.stack(found))

    exact = case._replace(encoder=Known(looks_up, case.encoder.scheme))
    excess = recalled(labelled(recall(exact)))
    own = excess[excess["metric"] == "nll"]
    assert own["value"].abs().max() < 1e-6
    assert {*own["distance"]} >= {1, 3, 9, 17}
    assert (own["distance"] <= own["eval_len"]).all()
    near = excess[(excess["metric"] == "window_floor") & (excess["eval_len"] == 64)]
    assert (near.loc[near["distance"] > L, "value"] > 0.01).all()  # beyond what it looks back


@torch.no_grad()
def test_what_stood_before_the_input_is_not_among_what_can_be_recalled():
    case = of("nope", "causal")
    config, tokens = case.run.config.eval, case.held_out.tokens[:, :-1]
    counts = recall(case).query("metric == 'nll'").groupby(["eval_len", "distance"])["n"].sum()
    bins, longest = recall_bins(L), tokens.shape[1]
    for eval_len in case.lengths:
        expected = Counter()
        for row in tokens.tolist():
            for t in range(longest - config.n_targets, longest):
                before = [s for s in range(longest - eval_len, t) if row[s] == row[t]]
                expected[max(low for low in bins if low <= t - before[-1]) if before else 0] += 1
        assert counts.loc[eval_len].to_dict() == expected


def labelled(found, seed=0):
    told = dict.fromkeys(OF_RUN, "x") | {"seed": seed, "train_len": L}
    return found.assign(**told)


@torch.no_grad()
def test_heads_without_weights_look_everywhere_alike_and_a_window_into_itself():
    case = of("nope", "mlm", "eval.lengths=[16,128]")
    for block in case.encoder.blocks:
        block.qkv.weight.zero_()
    found = values(heads(case))
    for n in (16, 128):
        apart = np.abs(np.subtract.outer(np.arange(n), np.arange(n)))
        assert found["heads(1,1)", n, 0, "distance"] == pytest.approx(apart.mean(), rel=1e-5)
        assert found["heads(2,1)", n, 0, "beyond"] == pytest.approx((apart > L / 2).mean(), rel=1e-5)
        assert found["heads(2,1)", n, 0, "entropy"] == pytest.approx(math.log(n), rel=1e-5)
    found = look(heads, "local", "mlm", "position.window=3")
    assert found.xs("beyond", level="metric").max() == 0
    assert found.xs("distance", level="metric").max() <= 2


def reads(*lows_and_highs):
    lines = [(2**k, low, high) for k, (low, high) in enumerate(lows_and_highs)]
    return pd.DataFrame(lines, columns=["distance", "low", "high"])


def test_reach_is_told_between_what_is_decided():
    assert reach_of(reads((1.0, 1.2), (0.06, 0.1), (0.01, 0.04), (-0.01, 0.02))) == Reach(2, 4)
    assert reach_of(reads((1.0, 1.2), (0.03, 0.1), (0.01, 0.04), (-0.01, 0.02))) == Reach(1, 4)  # at 2 nothing is decided
    assert reach_of(reads((1.0, 1.2), (0.01, 0.04), (0.01, 0.1), (-0.01, 0.02))) == Reach(1, 8)
    assert reach_of(reads((1.0, 1.2), (0.06, 0.1), (0.06, 0.07))) == Reach(4, None)
    assert reach_of(reads((0.01, 0.04), (0.01, 0.02))) == Reach(0, 1)
    assert reach_of(reads((np.nan, np.nan), (np.nan, np.nan))) == Reach(0, None)  # one seed decides nothing


def test_many_schemes_are_drawn_as_brackets():
    lines = [line for n in range(14) for line in _risen(f"scheme{n}", decided=n < 13)]
    (axes,) = reach_figure(pd.DataFrame(lines)).axes
    assert [label.get_text() for label in axes.get_yticklabels()][-1] == "scheme13"  # whose end is not decided, last
    assert [*axes.lines[0].get_xdata()] == [2, 4]


def _risen(scheme, decided):
    told = dict.fromkeys(OF_RUN, "x") | {"scheme": scheme, "train_len": L, "probe": "reach(other)", "eval_len": L}
    values = ((1, 1.0), (2, 0.2), (4, 0.0))
    return [told | {"distance": d, "value": v, "low": v - 0.01, "high": v + (0.01 if decided else 0.1)} for d, v in values]


def test_rises_are_paired_by_seed():
    lines = []
    for seed, level in enumerate((1.0, 2.0, 4.0)):
        for distance, value in ((1, level + 0.5), (L, level)):
            one = pd.DataFrame([("reach(other)", L, distance, "d", "nll", 10 * value, 10)])
            one.columns = ["probe", "eval_len", "distance", "document", "metric", "value_sum", "n"]
            lines.append(labelled(one, seed))
    (line,) = rises(pd.concat(lines)).itertuples()
    assert (line.value, line.low, line.high, line.n_seeds) == pytest.approx((0.5, 0.5, 0.5, 3))


def test_probes_that_say_nothing_of_a_run_are_refused_before_it_is_looked_into():
    for objective, data, name, told in (
        ("mlm", "markov", "recall", "is for data=markov and objective=causal"),
        ("mlm", "markov", "detection", "is for objective=rtd and electra"),
        ("mlm", "markov", "reech", "did you mean reach"),
    ):
        with pytest.raises(UserError, match=told):
            refuse_idle_probes([run_of("nope", objective, f"data={data}", f"eval.probes=[{name}]")])
    with pytest.raises(UserError, match="two documents or more"):
        refuse_idle_probes([run_of("nope", "mlm", "eval.n_segments=1", "eval.probes=[reach]")])
    both = [run_of("nope", objective, "eval.probes=[detection]") for objective in ("rtd", "mlm")]
    with pytest.raises(UserError, match="is for objective=rtd and electra"):
        refuse_idle_probes(both)  # whichever comes first


def test_finished_runs_are_looked_into_once_and_a_page_says_what_was_found(swept, tmp_path, capsys, svg_alone, monkeypatch):
    results = copy_of(swept, tmp_path / "results")
    before = (results / "smoke" / "rows.csv").read_bytes()
    asked = [*TINY, f"runtime.results_dir={results}"]
    monkeypatch.setattr(command, "ProcessPoolExecutor", lambda *told: ThreadPoolExecutor(1))  # which is begun at once
    monkeypatch.setattr(reporting, "page_again", lambda *told: [])  # the next test looks at that page
    probe([*asked, "eval.probes=[order,order]"])
    first = load_probes(results / "smoke" / "probes.csv")
    assert {*first["scheme"]} == {"rope", "nope"}
    folder = results / "runs" / "smoke" / "rope-seed0"
    save_probes(folder / "probes.csv", load_found(folder / "probes.csv").assign(value_sum=0.0))
    probe([*asked, "eval.probes=[order,recall]"])
    both = load_probes(results / "smoke" / "probes.csv")
    assert {*both["probe"]} == {*first["probe"], "recall"}
    kept = both[(both["scheme"] == "rope") & (both["probe"] != "recall")]
    assert (kept["value_sum"] == 0).all()  # what was found is not looked for again,
    for path in (folder / "probes.csv", folder.with_name("nope-seed0") / "probes.csv"):
        save_probes(path, load_found(path).assign(code="as it was before"))
    probe([*asked, "eval.probes=[order]"])  # unless another probe of that name has found it
    again = load_probes(results / "smoke" / "probes.csv")
    assert_frame_equal(again[again["probe"] != "recall"].reset_index(drop=True), first)
    assert {*load_found(folder / "probes.csv").query("probe == 'recall'")["code"]} == {"as it was before"}
    other = results / "runs" / "smoke" / "nope-seed0" / "probes.csv"
    kept, earlier = other.read_bytes(), load_found(other).assign(code="as it was once")
    save_probes(other, earlier)
    with pytest.raises(UserError, match="nope-seed0: what the probe order found there is of another version of it than"):
        probe([*asked, "position=rope", "eval.probes=[order]"])  # two seeds, of two versions, would be one mean
    with pytest.raises(UserError, match="is of another version of it than what it finds in nope-seed0"):
        gather(results, "smoke", "make report")
    other.write_bytes(kept)
    page = (results / "smoke" / "probes.md").read_text()
    assert "Direction and order" in page
    assert "Recall by distance" in page
    assert str(results / "smoke" / "recall.svg") in capsys.readouterr().out
    assert (results / "smoke" / "rows.csv").read_bytes() == before
    with pytest.raises(UserError, match=r"n_layers: \d -> 3 \(found there -> asked for"):
        probe([*asked, "eval.probes=[order]", "model.n_layers=3"])
    with pytest.raises(UserError, match="no finished run"):
        probe([*asked, "eval.probes=[order]", "name=another"])
    with pytest.raises(UserError, match="expected some of reach, order"):
        probe(asked)


@pytest.mark.slow
def test_what_was_found_elsewhere_stays_as_long_as_its_rows_do(swept, tmp_path, svg_alone):
    """What stands in a report of runs that are not here is neither lost nor told to be of the weights that are."""
    results = copy_of(swept, tmp_path / "results")
    report, runs, asked = results / "smoke", results / "runs" / "smoke", [*TINY, f"runtime.results_dir={results}"]
    page, told = report / "page.html", "Direction and order"
    assert told not in page.read_text()
    probe([*asked, "eval.probes=[order]"])
    assert told in page.read_text()  # that the sweep has made
    before = (report / "probes.csv").read_text()
    made_by = yaml.safe_load((report / "probes.yaml").read_text())
    assert made_by["weights_of"] == [RunFolder(runs / "rope-seed0").load_config()["code"]]
    shutil.move(runs / "nope-seed0", tmp_path / "nope-seed0")  # as in a clone, where only its rows are
    for _ in range(2):
        probe([*asked, "position=rope", "eval.probes=[order]"])
        assert (report / "probes.csv").read_text() == before
        (kept,) = yaml.safe_load((report / "probes.yaml").read_text())["kept"]
        assert kept == made_by | {"runs": ["nope-seed0"]}  # and not of the command in between

    (runs / "rope-seed0" / "probes.csv").unlink()  # as when it has been trained anew
    gather(results, "smoke", "make report")
    assert {*load_probes(report / "probes.csv")["run"]} == {"nope-seed0"}
    assert "rope" not in (report / "probes.md").read_text()
    assert told in page.read_text()
    shutil.move(tmp_path / "nope-seed0", runs / "nope-seed0")
    (runs / "nope-seed0" / "probes.csv").unlink()
    gather(results, "smoke", "make report")
    assert not [path.name for path in report.iterdir() if path.name.startswith(("probes", "order"))]
    assert told not in page.read_text()


def test_two_who_look_into_a_run_at_once_lose_nothing_of_each_other(swept, tmp_path, monkeypatch):
    asked = [*TINY, "position=rope", f"runtime.results_dir={copy_of(swept, tmp_path / 'results')}"]
    mine, other = (compose_grid([*asked, f"eval.probes=[{names}]"])[0] for names in ("order,heads", "heads,recall"))
    looked = probing.PROBES["order"].look

    def slow(of):
        probing.look_into(other)
        return looked(of)

    monkeypatch.setitem(probing.PROBES, "order", probing.Probe(slow))
    probing.look_into(mine)
    found = load_probes(mine.folder / "probes.csv")
    assert {probe.partition("(")[0] for probe in found["probe"]} == {"order", "heads", "recall"}


@torch.no_grad()
@pytest.mark.parametrize("protocol", ["nonoverlap", "same_targets"])  # the one that rows hold
def test_a_program_that_makes_another_model_of_the_same_weights_is_told(swept, tmp_path, protocol):
    config = compose_grid([*TINY, f"runtime.results_dir={copy_of(swept, tmp_path / 'results')}", "position=rope"])[0]
    run = prepare(config, stored=True)
    rows = load_rows(run.folder.rows)
    save_rows(run.folder.rows, rows[rows["protocol"] == protocol])
    case = probed(run, load_encoder(run))
    refuse_other_rows(case)
    case.encoder.blocks[0].qkv.weight *= -3
    with pytest.raises(UserError, match="computes something else today"):
        refuse_other_rows(case)


def test_where_something_is_not_a_number_nothing_is_found_at_that_length():
    three = [10, 10, 10]
    broken = found("order(as_is)", 64, ["a", "a", "b"], {"nll": (np.array([np.nan, 30.0, 5.0]), three)})
    assert broken.set_index("document")["value_sum"].to_dict() == {"a": np.inf, "b": 5.0}, "not 30, of half the places"
    sound = found("order(as_is)", 32, ["a", "a", "b"], {"nll": (np.array([20.0, 30.0, 5.0]), three)})
    assert_frame_equal(probing._numbers(pd.concat([broken, sound], ignore_index=True)).reset_index(drop=True), sound)


def test_bins_are_named_by_their_own_ends_whatever_is_shown_of_others():
    """At L a bin ends at L, although none beyond it is shown; where no symbol stood in one, its neighbours do not grow."""
    lines = [("recall", n, distance, "d", metric, 1.0 + (metric == "nll"), 1)
             for n in (L, 8 * L) for distance in (0, 1, 3, 9, 4 * L + 1) for metric in ("nll", "floor", "window_floor")
             if distance <= n]  # fmt: skip
    (_, near), (_, far) = SECTIONS["recall"].tables(labelled(pd.DataFrame(lines, columns=FOUND)), "")
    assert [*near][1:] == ["never", "1 to 2", "3 to 8", "9 to 16"]
    assert [*far][1:] == ["never", "1 to 2", "3 to 8", "9 to 16", "65 or more"]


def test_reach_is_called_undecided_where_it_is_and_told_in_perplexity_only_where_that_is_one():
    def drawn(objective, n_seeds):
        parts = [
            labelled(pd.DataFrame([(kind, L, distance, "d", "nll", level + seed / 100, 1)], columns=FOUND), seed)
            for seed in range(n_seeds)
            for kind in ("reach(other)", "reach(shuffled)")
            for distance, level in ((1, 2.0), (2, 1.5), (4, 1.01), (L, 1.0))
        ]
        found = pd.concat(parts).assign(objective=objective)
        ((_, table),) = SECTIONS["reach"].tables(found, "")
        words = [text.get_text() for axes in reach_figure(rises(found)).axes for text in axes.texts]
        return table["reach"].item(), "5 % of perplexity" in words

    assert drawn("mlm", 3) == ("2 to 4", True)
    assert drawn("mlm", 1) == ("undecided", True)
    assert drawn("rtd", 3) == ("–", False)


@pytest.mark.slow
@ON_LINUX
@pytest.mark.parametrize("command", ["probes", "figures"])
def test_whoever_is_killed_leaves_nobody_at_work(swept, tmp_path, command):
    results = copy_of(swept, tmp_path / "results")
    commands = {
        "probes": ["extrap.sweep.probe", *TINY, "eval.probes=[reach,heads]", f"runtime.results_dir={results}"],
        "figures": ["experiments.report", "--results", str(results), "draw"],
    }
    line = [sys.executable, "-m", *commands[command]]
    probing = subprocess.Popen(line, cwd=ROOT, start_new_session=True, stdout=subprocess.DEVNULL)

    def at_work():
        stats = [path.read_text().rpartition(")")[2].split() for path in Path("/proc").glob("[0-9]*/stat")]
        return [one for one in stats if one[3] == str(probing.pid)]  # of its session

    wait_for(lambda: len(at_work()) >= 4, probing)  # itself, the server, and workers
    os.kill(probing.pid, signal.SIGKILL)
    probing.wait()
    until = time.monotonic() + 30
    while at_work() and time.monotonic() < until:
        time.sleep(0.1)
    assert at_work() == []


@pytest.mark.slow
@ON_LINUX
def test_a_process_that_is_killed_is_told_in_a_line(swept, tmp_path):
    results = copy_of(swept, tmp_path / "results")
    line = [sys.executable, "-m", "extrap.sweep.probe", *TINY, "eval.probes=[reach,heads]", f"runtime.results_dir={results}"]
    probing = subprocess.Popen(line, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

    def workers():
        parents = {
            path.parent.name: path.read_text().rpartition(")")[2].split()[1] for path in Path("/proc").glob("[0-9]*/stat")
        }
        forked = [pid for pid, parent in parents.items() if parents.get(parent) == str(probing.pid)]
        return [int(pid) for pid in forked if b"forkserver" in Path("/proc", pid, "cmdline").read_bytes()]

    wait_for(workers, probing)
    os.kill(workers()[0], signal.SIGKILL)
    _, told = probing.communicate(timeout=60)
    assert told.startswith("error: a process that looked into a run was killed, as where memory runs out")
    assert told.count("\n") == 1


def test_a_damaged_table_is_told(tmp_path):
    (tmp_path / "probes.csv").write_text("run,probe\n")
    with pytest.raises(UserError, match="no table of what probes found"):
        load_probes(tmp_path / "probes.csv")
