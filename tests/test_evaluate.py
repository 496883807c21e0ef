"""Evaluation: rows against a loop over windows, batching, gaps, a blind model."""

import dataclasses
import math

import numpy as np
import pandas as pd
import pytest
import torch
from marks import slow

from extrap.config.compose import compose_grid, extension_specs
from extrap.config.schema import EvalConfig
from extrap.model import encoder as model
from extrap.positions.rope import Rope
from extrap.runs.run import build_encoder, write_references
from extrap.score import evaluate as evaluation
from extrap.score import reads as reading
from extrap.score.protocols import PROTOCOLS, held_out_batch, label
from extrap.sweep.checks import prepare_grid

SMALL = [
    "experiment=smoke", "seed=0", "train.train_len=16", "eval.lengths=[8,16,21,48]", "eval.n_segments=9", "eval.n_targets=8",
    "eval.stride=3", "eval.windows=[8,16,21]", "eval.protocols=[nonoverlap,same_targets,sliding,position]",
    "eval.extensions=[none]",
]  # fmt: skip


def make(tmp_path, *overrides):
    c = prepare_grid(compose_grid([*SMALL, f"runtime.results_dir={tmp_path}", "position=rope", *overrides]))[0]
    encoder = build_encoder(c)
    with torch.no_grad():  # far from uniform, so that a wrong target or position would show
        encoder.unembedding.weight.mul_(40)
    return c, encoder.eval()


def rows(c, encoder):
    return evaluation.evaluate(encoder, c.source, c.objective, c.config.eval).rows


@pytest.mark.parametrize("objective", ["mlm", "causal"])
@pytest.mark.parametrize("position", ["local", *slow("rope", "alibi")])
def test_rows_equal_a_loop_over_windows(tmp_path, objective, position):
    c, encoder = make(tmp_path, f"objective={objective}", f"position={position}")
    found = rows(c, encoder).set_index(["protocol", "eval_len", "document", "segment"])
    held_out, batch = held_out_batch(c.source, c.objective, c.config.eval)
    assert set(found.index.get_level_values("protocol")) == {"nonoverlap", "same_targets", "sliding(stride=3)", "position"}
    for protocol in c.config.eval.protocols:
        for eval_len, windows in PROTOCOLS[protocol](c.config.eval, 16, c.objective.causal).items():
            for s in range(9):
                nll, count = 0.0, 0
                for window in windows:
                    inputs = torch.from_numpy(batch.inputs[s, window.start : window.stop])[None]
                    with torch.no_grad():
                        logits = encoder.logits(encoder(inputs))[0].double().log_softmax(-1)
                    for t in range(window.score_start, window.score_stop):
                        if batch.scored[s, t]:
                            nll -= logits[t - window.start, batch.targets[s, t]].item()
                            count += 1
                row = found.loc[(label(c.config.eval, protocol), eval_len, held_out.documents[s], held_out.segments[s])]
                assert row["n_tokens"] == count
                assert row["n_bytes"] == count
                assert row["nll_sum"] == pytest.approx(nll, rel=1e-5)


@pytest.mark.slow
def test_rows_do_not_depend_on_how_windows_are_batched(tmp_path, monkeypatch):
    c, encoder = make(tmp_path)
    together = rows(c, encoder)
    monkeypatch.setattr(reading, "FORWARD_TOKENS", 1)
    alone = rows(c, encoder)
    assert together.drop(columns="nll_sum").equals(alone.drop(columns="nll_sum"))
    np.testing.assert_allclose(together["nll_sum"], alone["nll_sum"], rtol=1e-5)


@pytest.mark.parametrize("objective", ["mlm", *slow("causal")])
def test_a_uniform_model_has_perplexity_v(tmp_path, objective):
    c, encoder = make(tmp_path, f"objective={objective}")
    with torch.no_grad():
        encoder.unembedding.weight.zero_()
    for _, cell in rows(c, encoder).groupby(["protocol", "eval_len"]):
        assert math.exp(cell["nll_sum"].sum() / cell["n_tokens"].sum()) == pytest.approx(256, rel=1e-6)


def test_the_same_tokens_are_scored_at_every_length(tmp_path):
    c, encoder = make(tmp_path)
    found = rows(c, encoder).query("protocol != 'position'")
    for (protocol, *_), cell in found.groupby(["protocol", "document", "segment"]):
        assert cell["n_tokens"].nunique() == 1
        assert len(cell) == (3 if "sliding" in protocol else 4)


def test_a_scheme_that_ends_has_no_rows_beyond_its_end(tmp_path):
    c, encoder = make(tmp_path, "position=learned")
    found = rows(c, encoder)
    assert set(found["eval_len"]) == {8, 16}
    assert "position" not in set(found["protocol"])  # its one pass is longer than that


def test_a_scheme_that_reaches_nothing_has_a_table_without_rows(tmp_path):
    c, encoder = make(tmp_path, "position=learned")
    found = evaluation.evaluate(encoder, c.source, c.objective, dataclasses.replace(c.config.eval, lengths=[21, 48],
                                                                                   windows=[21])).rows  # fmt: skip
    assert found.empty
    assert list(found.columns) == list(rows(c, encoder).columns)


@pytest.mark.parametrize("objective", ["mlm", *slow("causal")])
def test_context_that_a_model_cannot_see_changes_nothing(tmp_path, objective):
    # one layer and a window of 5 see 4 tokens away; every target has that much at 16 and beyond
    c, encoder = make(tmp_path, f"objective={objective}", "position=local", "position.window=5")
    same = rows(c, encoder).query("protocol == 'same_targets' and eval_len >= 16")
    for _, cell in same.groupby(["document", "segment"]):
        np.testing.assert_allclose(cell["nll_sum"], cell["nll_sum"].iloc[0], rtol=1e-5)


@pytest.mark.parametrize("causal", [True, False])
def test_one_long_pass_serves_every_protocol(tmp_path, causal):
    c, _ = make(tmp_path)
    whole = [(read, what) for read, what in reading.reads(c.config.eval, 16, causal).items() if read.stop - read.start == 48]
    ((read, scorings),) = whole
    assert read == (0, 48, 48, False)
    assert {"nonoverlap", "same_targets", "position"} == {scoring.protocol for scoring in scorings}


DOUBLED = ["objective=causal", "eval.lengths=[8,16,32,64]", "eval.protocols=[nonoverlap]"]


def tokens_read(encoder, evaluated):
    """What evaluated() is, and how many tokens the encoder reads for it."""
    read = []
    hook = encoder.blocks[0].qkv.register_forward_hook(lambda _, given, __: read.append(given[0].shape[:2].numel()))
    found = evaluated()
    hook.remove()
    return found, sum(read)


@pytest.mark.parametrize("position", ["rope", *slow("local", "learned", "alibi")])
def test_a_causal_model_reads_a_window_that_begins_a_longer_one_with_it(tmp_path, monkeypatch, position):
    c, encoder = make(tmp_path, *DOUBLED, f"position={position}")
    shared, n_shared = tokens_read(encoder, lambda: rows(c, encoder))
    monkeypatch.setattr(reading, "beginnings", lambda asked, steps: {read: [read] for read in asked})
    alone, n_alone = tokens_read(encoder, lambda: rows(c, encoder))
    # of each length but the longest every other window begins a longer one; of each two lengths one segment is read again
    wanted = (9 * 96 + 8, 9 * 128) if position == "learned" else (9 * 160 + 3 * 8 + 2 * 16 + 32, 9 * 256)
    assert (n_shared, n_alone) == wanted
    pd.testing.assert_frame_equal(shared, alone, rtol=1e-6)


@pytest.mark.parametrize("asked", [["position=randomized"], ["position=rope", "objective=mlm"]])
def test_where_a_token_hangs_on_what_is_behind_it_every_window_is_read(tmp_path, asked):
    c, encoder = make(tmp_path, *DOUBLED, *asked)
    assert tokens_read(encoder, lambda: rows(c, encoder))[1] == 9 * 64 * 4


class OfLength(Rope):
    """Angles that follow the length of the input from one on, as of dynamic NTK, and say so nowhere."""

    begins = 16

    def rotation(self, pos):
        return Rope(self.geometry, base=1e4 * max(1.0, len(pos) / self.begins)).rotation(pos)


@pytest.mark.parametrize("begins", [8, *slow(16, 32, 40)])
def test_a_scheme_that_does_not_say_so_is_found_out(tmp_path, monkeypatch, begins):
    c, encoder = make(tmp_path, *DOUBLED, "position=rope")
    monkeypatch.setattr(OfLength, "begins", begins)
    encoder.scheme = OfLength(encoder.scheme.geometry)
    found = rows(c, encoder)
    monkeypatch.setattr(reading, "beginnings", lambda asked, steps: {read: [read] for read in asked})
    assert found.equals(rows(c, encoder))


def test_what_begins_a_window_too_long_for_memory_is_read_by_itself(tmp_path, monkeypatch):
    c, encoder = make(tmp_path, *DOUBLED, "position=rope")
    whole, real = rows(c, encoder), reading.token_nll

    def up_to_32(encoder, batch, columns):
        if batch.inputs.shape[1] > 32:
            raise MemoryError
        return real(encoder, batch, columns)

    monkeypatch.setattr(reading, "token_nll", up_to_32)
    found, missing = evaluation.evaluate(encoder, c.source, c.objective, c.config.eval)
    assert [one[1:] for one in missing] == [("nonoverlap", 64, "out of memory")]
    pd.testing.assert_frame_equal(found, whole.query("eval_len < 64"), rtol=1e-6)


def test_what_is_read_of_all_segments_is_not_read_with_what_is_read_of_few():
    short, long, thin, other = (reading.Read(a, b, b - a, alone=False) for a, b in ((0, 8), (0, 16), (0, 4), (8, 16)))
    steps = {short: 1, long: 2, thin: 4, other: 2}
    assert reading.beginnings(steps, steps) == {long: [long, thin], short: [short], other: [other]}


def extended(c, encoder, extension):
    config = dataclasses.replace(c.config.eval, extensions=extension_specs(["none", extension]))
    found = evaluation.evaluate(encoder, c.source, c.objective, config).rows
    columns = ["protocol", "eval_len", "document", "segment"]
    apart = {name: part.drop(columns="extension").set_index(columns) for name, part in found.groupby("extension")}
    return apart["none"], apart.get(extension)


@pytest.mark.parametrize(("position", "extension"), [("rope", "window"), *slow(("alibi", "lambda"), ("learned", "tile"))])
@pytest.mark.parametrize("objective", ["causal", *slow("mlm")])
def test_an_extension_changes_what_is_longer_than_training_only(tmp_path, objective, position, extension):
    c, encoder = make(tmp_path, f"objective={objective}", f"position={position}")
    scheme = encoder.scheme
    plain, other = extended(c, encoder, extension)
    assert encoder.scheme is scheme, "the weights are as they were"
    short = [key for key in plain.index if key[1] <= 16 and key[0] != "position"]
    assert plain.loc[short].equals(other.loc[short])
    longer = [key for key in other.index if key[1] > 16]
    assert longer
    if position != "learned":
        assert (plain.loc[longer, "n_tokens"] == other.loc[longer, "n_tokens"]).all()
        assert (plain.loc[longer, "nll_sum"] != other.loc[longer, "nll_sum"]).mean() > 0.9


@pytest.mark.slow
def test_extensions_leave_alone_what_they_do_not_apply_to(tmp_path):
    for position, extension in (("rope", "tile"), ("rope", "clamp"), ("learned", "window"), ("local", "lambda")):
        assert extended(*make(tmp_path, f"position={position}", "objective=causal"), extension)[1] is None


def test_pseudo_masks_one_token_at_a_time(tmp_path):
    c, encoder = make(tmp_path, "eval.protocols=[pseudo]", "eval.n_pseudo=3")
    found = rows(c, encoder).set_index(["eval_len", "document", "segment"])
    held_out, _ = held_out_batch(c.source, c.objective, c.config.eval)
    for eval_len, start in ((8, 20), (21, 13), (48, 0)):
        for s in range(9):
            nll = 0.0
            for t in (20, 22, 25):  # three of the eight targets in the middle
                tokens = torch.from_numpy(held_out.tokens[s].copy())
                tokens[t] = 256
                with torch.no_grad():
                    logits = encoder.logits(encoder(tokens[None, start : start + eval_len]))[0].double().log_softmax(-1)
                nll -= logits[t - start, held_out.tokens[s, t]].item()
            row = found.loc[(eval_len, held_out.documents[s], held_out.segments[s])]
            assert row["n_tokens"] == 3
            assert row["nll_sum"] == pytest.approx(nll, rel=1e-5)


@pytest.mark.slow
def test_pseudo_alone_has_no_references_to_wait_for(tmp_path):
    c, encoder = make(tmp_path, "eval.protocols=[pseudo]")
    write_references(c)
    assert not (c.config.folder.parent / "reference" / "eval.csv").exists(), "a table without rows would be refused"
    assert set(rows(c, encoder)["protocol"]) == {"pseudo"}


@pytest.mark.parametrize("objective", ["mlm", *slow("causal")])
def test_segments_that_are_not_read_whole_change_nothing_in_others(tmp_path, objective):
    """Those of nonoverlap are the first, third, fifth, ...; same_targets has all of them."""
    shown = ["protocol", "eval_len", "document", "segment"]
    every, second = (
        rows(*make(tmp_path / str(n), f"objective={objective}", f"eval.whole_every={n}")).set_index(shown) for n in (1, 2)
    )
    held_out, _ = held_out_batch(*(c := make(tmp_path, f"objective={objective}")[0])[1:3], c.config.eval)
    ids = [*zip(held_out.documents, held_out.segments, strict=True)]
    for protocol, part in second.groupby(level="protocol"):
        wanted = ids if protocol == "same_targets" else ids[::2]
        assert {*part.index.droplevel(["protocol", "eval_len"])} == {*wanted}
        np.testing.assert_allclose(part["nll_sum"], every.loc[part.index, "nll_sum"], rtol=1e-6)
        assert part["n_tokens"].equals(every.loc[part.index, "n_tokens"])


def test_a_multiple_of_many_digits_is_met():
    config = EvalConfig(["nonoverlap"], ["none"], [128, 129, 256], [128], 8, 4, 1, 8, 8, extension_multiples=[1.0078125])
    assert [config.extended(n, 128) for n in (129, 130, 256)] == [True, False, True]


def test_extensions_are_scored_at_their_multiples_and_the_longest_length(tmp_path):
    asked = ["eval.extensions=[none,window]", "eval.lengths=[16,24,32,40,48]", "eval.multiples=[]"]
    found = {
        name: {
            *rows(*make(tmp_path / name, *asked, f"eval.extension_multiples={some}")).query("extension == 'window'")[
                "eval_len"
            ]
        }
        for name, some in (("all", "[]"), ("some", "[1.5,2]"))
    }
    assert found["all"] >= {16, 24, 32, 40, 48}
    assert found["all"] - found["some"] == {21, 40}  # 21 is a window of sliding


class NotANumberFrom(Rope):
    """Adds a value that is none to the vectors from a position on."""

    first, value = 30, math.nan

    def embed(self, x, pos):
        return torch.where(pos[:, None] >= self.first, self.value, x)


@pytest.mark.parametrize("value", [math.nan, *slow(math.inf)])
@pytest.mark.parametrize("objective", ["mlm", *slow("causal")])
def test_a_length_whose_loss_is_no_number_has_a_reason_and_no_row(tmp_path, monkeypatch, objective, value):
    c, encoder = make(tmp_path, f"objective={objective}", "eval.extensions=[none,window]")
    monkeypatch.setattr(NotANumberFrom, "value", value)
    whole, broken = rows(c, encoder), NotANumberFrom(encoder.scheme.geometry)
    encoder.scheme = broken
    found, missing = evaluation.evaluate(encoder, c.source, c.objective, c.config.eval)
    assert encoder.scheme is broken
    assert {one.reason for one in missing} == {"not a number"}
    lacking = {(one.extension, one.protocol, one.eval_len) for one in missing}
    assert {(extension, "nonoverlap", 48) for extension in ("none", "window")} <= lacking
    keys = ["extension", "protocol", "eval_len"]
    of_whole, of_found = (set(table[keys].itertuples(index=False, name=None)) for table in (whole, found))
    assert of_found == of_whole - lacking
    kept = whole[[key in of_found for key in whole[keys].itertuples(index=False, name=None)]]
    # the others are what they would be; a causal model may read them by themselves and not with what follows them
    rounding = {"rtol": 1e-6} if objective == "causal" else {"check_exact": True}
    pd.testing.assert_frame_equal(found.reset_index(drop=True), kept.reset_index(drop=True), **rounding)


def test_one_segment_whose_loss_is_no_number_takes_its_length_with_it(tmp_path, monkeypatch):
    """And a protocol that lacks the training length has nothing left to compare with."""
    c, encoder = make(tmp_path, "eval.protocols=[nonoverlap,same_targets]")
    real = reading.token_nll

    def one_is_none(encoder, batch, columns):
        nll, wanted = real(encoder, batch, columns)
        if batch.inputs.shape == (9, 16) and wanted.sum() < 9 * 8:
            nll[3, np.flatnonzero(wanted[3])[:1]] = math.nan
        return nll, wanted

    monkeypatch.setattr(reading, "token_nll", one_is_none)
    found, missing = evaluation.evaluate(encoder, c.source, c.objective, c.config.eval)
    told = {(one.protocol, one.eval_len): one.reason for one in missing}
    assert told["nonoverlap", 16] == "not a number"
    assert told["nonoverlap", 48] == "not a number at the training length"
    assert set(found["protocol"]) <= {"same_targets"}


def test_weights_are_float32_in_evaluation_whatever_training_was(tmp_path):
    c, encoder = make(tmp_path)
    seen = []
    encoder.blocks[0].qkv.register_forward_hook(lambda _, __, output: seen.append(output.dtype))
    rows(c, encoder)
    assert set(seen) == {torch.float32}


def test_long_inputs_go_through_the_mlp_in_parts(tmp_path, monkeypatch):
    _, encoder = make(tmp_path)
    tokens = torch.randint(256, (2, 45))
    whole = encoder(tokens)
    monkeypatch.setattr(model, "MLP_TOKENS", 8)
    torch.testing.assert_close(encoder(tokens), whole, rtol=0, atol=1e-5)
