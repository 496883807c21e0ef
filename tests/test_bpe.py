"""Tokens longer than a byte: what they are made of, that they are the text again, and what rows count of them."""

import hashlib
import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from refusing import refusal
from tokenizers import Tokenizer

from extrap.config.compose import compose_grid
from extrap.config.varied import TOLD
from extrap.data import bpe
from extrap.data.bpe import encoded, made_of, token_texts, tokenized, trained
from extrap.data.documents import Documents
from extrap.data.stored import TOKENIZER, TOKENS, Stored, kept_tokens, store
from extrap.data.text import Text
from extrap.objectives import Causal, Mlm, Rtd
from extrap.results.folders import differences
from extrap.results.provenance import OF_PLACE, _recipe
from extrap.runs.prepare import prepare, store_documents
from extrap.score import references as score_references
from extrap.score.protocols import bytes_scored, held_out_batch
from extrap.score.references import labels, reference_rows
from extrap.sweep.checks import _refuse_other_tokens, prepare_grid

V = 300
WORDS = ["position", "encoding", "extrapolates", "über", "naïve", "=", "\n\n", "def f(x):\n    return x"]


def prose(seed: int, n_words: int = 1500) -> bytes:
    """Text with letters of two bytes, blank lines and runs of blanks."""
    return " ".join(np.random.default_rng(seed).choice(WORDS, n_words)).encode()


TRAIN = {f"t{seed}": prose(seed) for seed in range(3)}
VALID = {"v0": prose(10), "v1": prose(11) + b"Zyxzyx " * 3000, "v2": b"\xe2\x82\xac \xe2\x82"}


def documents(train: dict[str, bytes], valid: dict[str, bytes], n: int = V, **told) -> Documents:
    made = Documents(train, valid, bpe=n, **told)
    made.name = "made"
    return made


@pytest.fixture(scope="module")
def source() -> Documents:
    return documents(TRAIN, VALID)


MADE = trained(TRAIN.values(), V)


# what makes them


def assert_of_training_text_alone(make) -> None:
    texts = token_texts(make(made_of("", V), TRAIN.values(), VALID.values(), V).tokenizer)
    assert any(text in b" extrapolates" and len(text) > 4 for text in texts), "what is trained on is merged"
    assert not any(b"zyx" in text for text in texts), "and what is held out is not"


def test_merges_are_of_training_text_alone():
    assert_of_training_text_alone(tokenized)
    with pytest.raises(AssertionError, match="held out"):
        assert_of_training_text_alone(lambda of, train, valid, n: tokenized(of, [*train, *valid], valid, n))


def test_two_processes_make_the_same_tokens():
    """Of another order of hashes each, and of threads: a vocabulary in the order of a hash map would differ."""
    line = (
        "import sys; from extrap.data.bpe import tokenized; text = sys.stdin.buffer.read()\n"
        f"print(tokenized({{}}, [text], [text, text[99:]], {V}).digests())"
    )
    text = TRAIN["t0"]
    found = {
        subprocess.run(
            [sys.executable, "-c", line],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ".", "RAYON_NUM_THREADS": seed},
            input=text, capture_output=True, check=True, timeout=120,
        ).stdout.decode()
        for seed in ("1", "2")
    }  # fmt: skip
    assert found == {f"{tokenized({}, [text], [text, text[99:]], V).digests()}\n"}


def test_the_first_tokens_are_the_bytes_and_none_is_special():
    made = json.loads(trained(TRAIN.values(), V))
    assert made["added_tokens"] == []
    texts = token_texts(json.dumps(made))
    assert len(texts) == len({*texts}) == V
    assert {*texts[:256]} == {bytes([byte]) for byte in range(256)}
    assert all(len(text) > 1 for text in texts[256:])


@pytest.mark.parametrize(
    ("n", "told"),
    [(256, "expected 257 to 65,536 tokens, or 0 for bytes; found 256"), (70_000, "found 70,000"), (60_000, "no more than")],
)
def test_a_vocabulary_that_cannot_be_is_refused(n, told):
    assert told in refusal(trained, TRAIN.values(), n)


def test_without_the_library_it_is_said_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    assert "pip install 'extrap[bpe]'" in refusal(documents, TRAIN, VALID)


# that they are the text


def assert_sizes_are_those_of_the_text(sizes: list[int]) -> None:
    texts = [*TRAIN.values(), *VALID.values()]
    assert [sum(sizes[i] for i in ids) for ids in encoded(MADE, texts)] == [*map(len, texts)]


def test_tokens_have_the_bytes_of_their_text():
    assert_sizes_are_those_of_the_text([*map(len, token_texts(MADE))])
    by_id = {i: sign for sign, i in Tokenizer.from_str(MADE).get_vocab().items()}
    for wrong in (
        [1] * V,
        [len(by_id[i].encode()) for i in range(V)],  # the mark of a blank has two bytes, the blank one
        [len(by_id[i].lstrip("Ġ")) for i in range(V)],
    ):
        with pytest.raises(AssertionError):
            assert_sizes_are_those_of_the_text(wrong)


@given(
    st.lists(st.sampled_from([" ", "\n", "  ", "a", "it's", "12", "é", "!", "\x1c", "\xa0", "word", "\r\n"]), max_size=80)
)
@settings(deadline=None, max_examples=60)
def test_pieces_are_encoded_as_the_whole_is(parts):
    text = "".join(parts)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(bpe, "PIECE", 3)
        assert "".join(bpe._pieces(text)) == text
        (found,) = encoded(MADE, [text.encode()])
    assert found.tolist() == Tokenizer.from_str(MADE).encode(text, add_special_tokens=False).ids


@given(st.binary(max_size=60))
def test_any_bytes_are_tokens(text):
    """A split of bytes may cut a character in two."""
    (found,) = encoded(MADE, [text])
    assert b"".join(token_texts(MADE)[i] for i in found) == text
    assert found.dtype == np.uint16


def test_documents_stay_apart_and_batches_are_of_them(source):
    batch = source.batch(np.random.default_rng(0), 40, 32)
    for row in batch:
        text = b"".join(source._texts[i] for i in row)
        assert any(text in document for document in TRAIN.values())
    assert source.vocab_size == V
    assert source.held_out(128, 4).tokens.max() < V
    counts = np.bincount(np.concatenate(encoded(MADE, TRAIN.values())), minlength=V) + 1
    np.testing.assert_allclose(np.exp(-source.unigram_nll(0)), counts / counts.sum())


# what rows count of them


CONFIG = ["experiment=smoke", "position=nope", "seed=0", "data=text", "data.train=[a]", "data.valid=[b]", f"data.bpe={V}"]


@pytest.mark.parametrize("objective", ["causal", "mlm", "rtd"])
def test_rows_know_the_bytes_of_what_they_score(source, objective):
    (config,) = compose_grid([*CONFIG, f"objective={objective}"])
    made = {"causal": Causal, "mlm": Mlm, "rtd": Rtd}[objective]()
    held_out, batch = held_out_batch(source, made, config.eval)

    def check() -> None:
        rows = reference_rows(config, source, made).query("protocol == 'nonoverlap' and eval_len == 64")
        rows = rows[rows["kind"] == rows["kind"].iloc[0]].reset_index()
        for tokens, scored, (_, row) in zip(held_out.tokens, batch.scored, rows.iterrows(), strict=True):
            read = {"causal": tokens[1:], "mlm": tokens, "rtd": tokens[1:-1]}[objective]
            assert row["n_bytes"] == sum(len(source._texts[i]) for i in read[scored]), "bytes of the text that is scored"
            assert row["n_tokens"] == scored.sum()
            assert row["data"] == f"text(bpe={V})"

    check()
    for wrong in (
        lambda *told: np.ones_like(bytes_scored(*told)),
        lambda held_out, source, objective: source.token_bytes[np.roll(held_out.tokens, 1, 1)[:, objective.span]],
    ):
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(score_references, "bytes_scored", wrong)
            with pytest.raises(AssertionError, match="bytes of the text"):
                check()


def test_bits_per_byte_of_the_unigram_are_what_they_are_by_hand(source):
    """The text of the segments, by the library: -log2 of the frequency of every token but the first, over its bytes."""
    (config,) = compose_grid([*CONFIG, "objective=causal"])
    rows = reference_rows(config, source, Causal()).query("protocol == 'nonoverlap' and eval_len == 128")
    library, frequency = Tokenizer.from_str(MADE), {}
    for text in TRAIN.values():
        if len(ids := library.encode(text.decode(), add_special_tokens=False).ids) >= 33:
            for i in ids:
                frequency[i] = frequency.get(i, 0) + 1
    total = sum(frequency.values()) + V
    bits, n_bytes = 0.0, 0
    for tokens in source.held_out(129, 8).tokens:
        bits -= sum(np.log2((frequency.get(i, 0) + 1) / total) for i in tokens[1:])
        n_bytes += sum(len(source._texts[i]) for i in tokens[1:])
    assert rows["nll_sum"].sum() / np.log(2) / rows["n_bytes"].sum() == pytest.approx(bits / n_bytes, rel=1e-9)


def test_what_stands_beside_replaced_tokens_is_named_after_tokens(source):
    (config,) = compose_grid([*CONFIG, "objective=rtd"])
    assert {*reference_rows(config, source, Rtd())["scheme"]} == {"rate", "token alone", "two neighbours"}


def test_sizes_are_told_in_tokens(source):
    tokens = max(map(len, source.tokens.valid))
    message = refusal(source.check, 32, 30_000, 8)
    assert f"longest {tokens:,} tokens) hold 0 segments of 30,000 tokens" in message
    assert "a training sequence of 30,000 tokens" in (message := refusal(source.check, 30_000, 128, 1))
    assert "bytes" not in message
    used = source.usage(32, 128, 8)
    assert used["train_bytes"] == sum(map(len, TRAIN.values()))
    assert used["scored_bytes"] > 1.5 * 8 * 128
    assert any("documents: 3" in line and "tokens" in line for line in used["remarks"])


def test_copies_are_found_in_bytes():
    """Whatever tokens stand at their ends."""
    copied = documents(TRAIN, {"copy": b"?" + TRAIN["t1"][1001:9001], "own": VALID["v1"][-2400:]}, max_verbatim_share=0.9)
    message = refusal(copied.usage, 32, 500, 6)
    assert "the held-out document copy is in the training text: 100%" in message
    assert int(message.partition(" of its ")[2].partition(" ")[0].replace(",", "")) > 1.5 * 500 * 3, "bytes, not tokens"
    assert documents(TRAIN, {"own": VALID["v1"][-2400:]}).usage(32, 128, 8)["verbatim_share"] == 0


@pytest.mark.parametrize(
    ("options", "label"), [(["data.join=true"], f"text(joined, bpe={V})"), (["data.bpe=0"], "text"), ([], f"text(bpe={V})")]
)
def test_rows_name_the_tokens(options, label):
    (config,) = compose_grid([*CONFIG, *options])
    assert labels(config)["data"] == label
    assert ("bpe" in config.identity()["data"]) == ("bpe" in label), "rows of bytes stay what they were"
    assert "data.bpe" in TOLD


# kept for all runs of a sweep, and refused where they are others


def written(tmp_path, *options: str) -> list[str]:
    for name, text in (TRAIN | VALID).items():
        (tmp_path / name[0]).mkdir(exist_ok=True)
        (tmp_path / name[0] / name).write_bytes(text if name != "v2" else b"-" * 200)
    told = [f"data.train=[{tmp_path}/t]", f"data.valid=[{tmp_path}/v]", f"runtime.results_dir={tmp_path}/results"]
    return ["experiment=smoke", "data=text", *told, "position=nope", f"data.bpe={V}", *options]


def test_text_is_encoded_once_for_all_runs_and_all_commands(tmp_path, monkeypatch):
    overrides = written(tmp_path)
    first, second = prepare_grid(compose_grid(overrides))
    store_documents(first)
    folder = first.config.documents
    assert hashlib.sha256((folder / TOKENIZER).read_bytes()).hexdigest() == first.identity["data"]["tokenizer_sha256"]
    assert Tokenizer.from_file(str(folder / TOKENIZER)).get_vocab_size() == V
    assert (folder / TOKENS).stat().st_size == 2 * sum(map(len, (*first.source.tokens.train, *first.source.tokens.valid)))
    again = prepare(second.config, stored=True)
    assert isinstance(again.source, Stored)
    assert (again.identity, again.used, again.source.vocab_size) == (second.identity, second.used, V)
    np.testing.assert_array_equal(again.source.token_bytes, first.source.token_bytes)
    rng = np.random.default_rng
    np.testing.assert_array_equal(again.source.batch(rng(0), 9, 32), first.source.batch(rng(0), 9, 32))
    for one, other in zip(again.source.held_out(128, 8), first.source.held_out(128, 8), strict=True):
        np.testing.assert_array_equal(one, other)
    with monkeypatch.context() as patched:
        patched.setattr(bpe, "trained", None)
        assert prepare(first.config).identity == first.identity, "the same command does not train it again"
    (folder / TOKENS).write_bytes(b"\0\0" + (folder / TOKENS).read_bytes()[2:])
    assert kept_tokens(folder) is None, "nor takes what is damaged"
    assert prepare(first.config).identity == first.identity


def test_other_text_is_not_encoded_by_what_is_kept(tmp_path):
    store(documents(TRAIN, VALID), {}, tmp_path, {})
    kept = kept_tokens(tmp_path)
    assert documents(TRAIN, VALID, kept=kept).tokens is kept
    for other in (documents(TRAIN | {"t2": prose(9)}, VALID, kept=kept), documents(TRAIN, VALID, V + 1, kept=kept)):
        assert other.tokens is not kept


@pytest.mark.parametrize("change", ["version", "tokenizer", "encoding"])
def test_a_result_of_other_tokens_is_refused(tmp_path, monkeypatch, change):
    """Another version of the library makes all anew; where that is the same, rows are, too."""
    overrides = written(tmp_path, "seed=0")
    (run,) = prepare_grid(compose_grid(overrides))
    run.folder.claim(run.identity)
    store_documents(run)
    monkeypatch.setattr("tokenizers.__version__", "0.0.1")
    asked = []
    if change == "version":
        monkeypatch.setattr(bpe, "trained", lambda *told: asked.append(told) or trained(*told))
        prepare_grid(compose_grid(overrides))
        assert asked, "made anew, and found to be the same"
        return
    if change == "tokenizer":
        monkeypatch.setattr(bpe, "trained", lambda texts, n: trained([*texts, b"other other other"] * 9, n))
    else:
        monkeypatch.setattr(bpe, "encoded", lambda made, texts: [ids[::-1] for ids in encoded(made, texts)])
    message = refusal(prepare_grid, compose_grid(overrides))
    assert f"data.{'tokenizer' if change == 'tokenizer' else 'tokens'}_sha256" in message


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["data.bpe=280,300"], "data.bpe: expected one vocabulary in a sweep, found 2 (data.bpe=280, 300"),
        (["data.bpe=0,300"], "found 2 (data.bpe=0, 300"),
    ],
)
@pytest.mark.parametrize("objective", ["mlm", "causal"])
def test_losses_of_other_vocabularies_stand_in_no_report_together(tmp_path, objective, options, told):
    overrides = written(tmp_path, f"objective={objective}", "seed=0", *options)
    assert told in refusal(prepare_grid, compose_grid(overrides))


def test_nor_do_those_of_other_texts_tokens(tmp_path):
    overrides = written(tmp_path, "seed=0")
    runs = [prepare(*compose_grid([*overrides, *more])) for more in ([], [f"data.train=[{tmp_path}/t/t0]"])]
    assert "found 2 (data.bpe=300, 300; other text makes another)" in refusal(_refuse_other_tokens, runs)
    _refuse_other_tokens([runs[0], runs[0]])
    plain = [prepare(*compose_grid([*overrides, "data.bpe=0", *more])) for more in ([], [f"data.train=[{tmp_path}/t/t0]"])]
    _refuse_other_tokens(plain)  # bytes are bytes


def test_reports_of_other_tokens_are_not_joined(tmp_path):
    """What `make report EXPERIMENT="a b"` compares."""
    identity, plain = (prepare(*compose_grid(written(tmp_path, "seed=0", f"data.bpe={n}"))).identity for n in (V, 0))
    other = identity | {"data": identity["data"] | {"tokenizer_sha256": "0"}}
    for one, option in ((plain, "data.bpe"), (other, "data.tokenizer_sha256")):
        assert any(option in change for change in differences(_recipe(identity, OF_PLACE), _recipe(one, OF_PLACE)))


def test_pairs_of_too_many_tokens_are_not_counted(tmp_path, monkeypatch):
    monkeypatch.setattr("extrap.sweep.checks.MOST_TOKENS", V - 1)
    for objective in ("rtd", "electra"):
        overrides = written(tmp_path, "seed=0", f"objective={objective}")
        assert "data.bpe: expected at most 299 tokens with objective=rtd" in refusal(prepare_grid, compose_grid(overrides))


def test_text_of_files_is_joined_before_it_is_encoded(tmp_path):
    written(tmp_path)
    joined = Text([f"{tmp_path}/t"], [f"{tmp_path}/v"], join=True, bpe=V)
    assert sum(joined.token_bytes[one].sum() for one in joined.tokens.train) == sum(map(len, TRAIN.values())) + 2
