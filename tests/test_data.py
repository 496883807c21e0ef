"""Text: which files are read, what is refused, and that no sequence ever leaves its document."""

import gzip
import hashlib
import json
import os
import platform
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from refusing import refusal
from scipy.stats import chisquare

from extrap.config.compose import compose_grid
from extrap.config.schema import EvalConfig
from extrap.data import documents as documents_data
from extrap.data import overlap
from extrap.data import text as text_data
from extrap.data.documents import Documents
from extrap.data.markov import Markov
from extrap.data.overlap import PIECE, verbatim
from extrap.data.reading import read
from extrap.data.stored import Stored, store
from extrap.data.text import Stdlib, Text, stdlib_files
from extrap.errors import UserError
from extrap.objectives import Causal, Mlm, Rtd
from extrap.results.provenance import OF_MACHINE, _recipe, load_provenance, provenance
from extrap.runs.prepare import prepare, store_documents
from extrap.runs.run import describe
from extrap.score.protocols import held_out_batch
from extrap.score.references import labels
from extrap.sweep.checks import prepare_grid
from extrap.train.checkpoint import History

ROOT = Path(__file__).parents[1]
CORPORA = Path(os.environ.get("EXTRAP_CORPORA", ROOT.parent / "shared" / "corpora"))
needs_corpora = pytest.mark.skipif(
    not (CORPORA / "books").is_dir(), reason=f"needs the corpora: no {CORPORA}/books; name their folder in EXTRAP_CORPORA"
)


def documents(train: list[bytes], valid: list[bytes] = [b"x" * 100]) -> Documents:  # noqa: B006  never changed
    made = Documents({f"t{i}": text for i, text in enumerate(train)}, {f"v{i}": text for i, text in enumerate(valid)})
    made.name = "made"
    return made


# the standard library


@pytest.fixture
def library(tmp_path, monkeypatch):
    """Writes files of a made-up standard library and reads them."""
    root = tmp_path / "lib"

    def read(files: dict[str, str]) -> Stdlib:
        for name, text in files.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text)
        return Stdlib()

    monkeypatch.setattr(text_data.sysconfig, "get_path", lambda name: str(root))
    return read


MODULES = {f"m{i:03d}.py": f"x = {i}\n" for i in range(200)}
LEFT_OUT = [
    "site-packages/numpy/core.py", "dist-packages/apt.py", "test/test_os.py", "unittest/test/x.py", "json/tests/y.py",
    "idlelib/run.py", "tkinter/ttk.py", "turtledemo/clock.py", "turtle.py", "lib2to3/main.py", "distutils/core.py",
    "ensurepip/__main__.py", "venv/__main__.py", "site.py", "sitecustomize.py", "lib-dynload/a.py", "encodings/cp037.py",
    "pydoc_data/topics.py", "__phello__/spam.py", "_sysconfigdata__linux_x86.py", "config-3.11-x86/python-config.py",
    "README.txt",
]  # fmt: skip


def test_stdlib_reads_sources_without_tests_packages_and_tables(library, tmp_path):
    kept = {"json/decoder.py": "a", "json/__init__.py": "b", "testing.py": "c", "sitemap.py": "d", "xml/config-x.py": "e"}
    source = library(MODULES | kept | dict.fromkeys(LEFT_OUT, "x = 1") | {"json/empty.py": ""})
    assert source.train.keys() | source.valid.keys() == MODULES.keys() | kept.keys()
    chosen = stdlib_files(tmp_path / "lib")
    assert chosen == sorted(chosen)
    assert list(source.train) == [
        name for path in chosen if (name := path.relative_to(tmp_path / "lib").as_posix()) in source.train
    ]


def test_stdlib_splits_by_file_and_an_added_file_moves_no_other(library):
    before = library(MODULES)
    assert not before.train.keys() & before.valid.keys()
    assert set(before.valid) == {name for name in MODULES if hashlib.sha256(name.encode()).digest()[0] < 32}
    assert 10 <= len(before.valid) <= 40  # an eighth of 200 is 25
    after = library(MODULES | {"a.py": "1", "zz.py": "2", "m100a.py": "3"})
    assert before.train.items() <= after.train.items()
    assert before.valid.items() <= after.valid.items()


def test_the_digest_sees_every_byte_name_and_boundary():
    texts = {"a": b"abc", "b": b"def"}

    def digest(train: dict[str, bytes], valid: dict[str, bytes]) -> str:
        return str(Documents(train, valid).describe()["sha256"])

    first = digest(texts, {"v": b"xyz"})
    assert first == digest(dict(texts), {"v": b"xyz"})
    others = [
        digest({"a": b"abd", "b": b"def"}, {"v": b"xyz"}),
        digest({"a": b"abcd", "b": b"ef"}, {"v": b"xyz"}),  # a byte moves to the next document
        digest({"a": b"abc", "c": b"def"}, {"v": b"xyz"}),
        digest({"b": b"def", "a": b"abc"}, {"v": b"xyz"}),
        digest(texts, {"v": b"xyz", "w": b"!"}),
        digest({"a": b"abc"}, {"b": b"def", "v": b"xyz"}),  # a document moves to the other part
        digest({"a": b"abctrain\0b\0def"}, {"v": b"xyz"}),  # one document that looks like two
    ]
    assert len({first, *others}) == 1 + len(others)


def test_stdlib_without_sources_is_refused(library, tmp_path):
    message = refusal(library, {"test/only.py": "x"})
    assert str(tmp_path / "lib") in message
    assert "data=text" in message


def test_the_real_library():
    source = Stdlib()
    names = [*source.train, *source.valid]
    assert len(set(names)) == len(names)
    assert not any({"test", "tests", "site-packages"} & set(name.split("/")) for name in names)
    assert len(source.train) > 100
    assert len(source.valid) > 10
    described = source.describe()
    assert described["python"] == platform.python_version()
    assert described["train_bytes"] == sum(map(len, source.train.values()))
    # what is the same in both parts is too short to score anything on
    shared = set(source.train.values()) & set(source.valid.values())
    assert all(len(text) < 128 for text in shared)


# files and folders


def test_text_reads_files_and_folders(tmp_path):
    folder = tmp_path / "folder"
    (folder / "deep").mkdir(parents=True)
    (folder / ".git").mkdir()
    contents = {"b.txt": "B", "a.txt": "Ä", "deep/c": "C"}
    for name, text in contents.items():
        (folder / name).write_text(text)
    (folder / ".hidden").write_text("not read")
    (folder / ".git" / "config").write_text("not read")
    single = tmp_path / "valid.txt"
    single.write_text("V")
    source = Text([str(folder), str(folder / "b.txt")], [str(single)])  # b.txt is named twice, read once
    assert list(source.train) == ["folder/a.txt", "folder/b.txt", "folder/deep/c"]
    assert list(source.train.values()) == ["Ä".encode(), b"B", b"C"]
    assert source.valid == {"valid.txt": b"V"}


def test_a_corpus_has_the_same_names_and_digest_wherever_it_lies(tmp_path, monkeypatch):
    for place in ("here", "there"):
        for part in ("train", "valid"):
            (tmp_path / place / part).mkdir(parents=True)
            (tmp_path / place / part / "a.txt").write_text(part)
    here, there = (Text([str(tmp_path / p / "train")], [str(tmp_path / p / "valid")]) for p in ("here", "there"))
    monkeypatch.chdir(tmp_path / "here" / "train")
    relative = Text(["."], ["../valid"])
    assert list(here.train) == list(relative.train) == ["train/a.txt"]
    assert here.describe() == there.describe() == relative.describe()


def test_two_documents_of_one_name_are_refused(tmp_path):
    for place in ("here", "there"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "a.txt").write_text(place)
    with pytest.raises(UserError, match=r"would both be named a\.txt; give the folder"):
        Text([str(tmp_path / "here" / "a.txt"), str(tmp_path / "there" / "a.txt")], [str(tmp_path)])


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("missing.txt", None, "(No such file or directory)"),
        ("empty.txt", b"", "is empty; expected UTF-8 text"),
        ("binary.bin", b"\x7fELF\0\0", "is a binary file (it holds NUL bytes); expected UTF-8 text"),
        ("latin-1.txt", "naïve".encode("latin-1"), "is not UTF-8 text (byte 2"),
        ("cut.txt", "é".encode()[:1], "is not UTF-8 text (byte 0"),
        ("n" * 300, None, "n" * 300),  # longer than a file name can be
    ],
)
@pytest.mark.parametrize("part", ["train", "valid"])
def test_a_bad_file_is_refused_by_name(tmp_path, name, content, words, part):
    good, bad = tmp_path / "good.txt", tmp_path / name
    good.write_text("good")
    if content is not None:
        bad.write_bytes(content)
    message = refusal(Text, *([str(bad)], [str(good)])[:: 1 if part == "train" else -1])
    assert str(bad) in message
    assert words in message


def test_a_bad_file_within_a_folder_is_refused_by_name(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "good.txt").write_text("good")
    (tmp_path / "folder" / "bad.txt").write_bytes(b"\xff")
    assert "bad.txt: is not UTF-8" in refusal(Text, [str(tmp_path / "folder")], [__file__])


def test_an_unreadable_file_is_refused_by_name(tmp_path, monkeypatch):
    good, bad = tmp_path / "good.txt", tmp_path / "bad.txt"
    good.write_text("good")
    bad.write_text("secret")
    read = Path.read_bytes

    def forbidden(path):  # permissions do not stop an administrator, who may run this
        if path.name == "bad.txt":
            raise PermissionError(13, "Permission denied")
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", forbidden)
    assert f"{bad}: cannot be read (Permission denied)" in refusal(Text, [str(bad)], [str(good)])


def test_no_files_and_empty_folders_are_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden" / ".x").write_text("x")
    assert "data.train names no files; expected data.train=[PATH,...]" in refusal(Text, [], [__file__])
    assert "data.valid names no files; expected" in refusal(Text, [__file__], [])
    assert "No such file" in refusal(Text, [""], [__file__]), "not the folder that the command stands in"
    told = refusal(Text, [str(tmp_path / "gone")], [__file__])
    assert told == f"data.train: {tmp_path / 'gone'}: cannot be read (No such file or directory)", "and nothing on formats"
    for folder in ("empty", "hidden"):
        assert f"data.train: {tmp_path / folder} holds no files" in refusal(Text, [str(tmp_path / folder)], [__file__])


def test_a_file_name_that_is_no_text_is_refused(tmp_path):
    odd = tmp_path / os.fsdecode(b"\xff.txt")
    try:
        odd.write_text("text")
    except OSError:
        pytest.skip("this file system has no such names")
    refusal(lambda: Text([str(odd)], [__file__]).describe())


def test_a_file_in_both_parts_is_refused(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    shared = folder / "shared.txt"
    shared.write_text("text")
    (tmp_path / "link.txt").symlink_to(shared)
    (tmp_path / "link").symlink_to(folder)
    other_way = folder / ".." / "folder" / "shared.txt"
    for path in (shared, other_way, folder, tmp_path / "link.txt", tmp_path / "link"):
        message = refusal(Text, [str(folder)], [str(path)])
        assert str(shared) in message
        assert "data.train too" in message


# training batches


def distinct(lengths: list[int]) -> list[bytes]:
    """Documents out of distinct byte ranges: byte // 8 names the document."""
    rng = np.random.default_rng(0)
    return [bytes(rng.integers(8 * d, 8 * d + 8, size=n, dtype=np.uint8)) for d, n in enumerate(lengths)]


def assert_stays_within_documents(batch) -> None:
    texts = distinct([40, 9, 300, 10, 1, 17, 10, 25])
    rows = batch(documents(texts), np.random.default_rng(1), 5000, 10)
    assert rows.shape == (5000, 10)
    assert rows.dtype == np.int64
    home = rows // 8
    assert (home == home[:, :1]).all()
    assert set(home[:, 0]) == {0, 2, 3, 5, 6, 7}  # all but the two that are too short
    for row in rows[:500]:
        assert bytes(row.astype(np.uint8)) in texts[row[0] // 8]


def assert_every_start_is_equally_likely(batch) -> None:
    texts = [bytes(range(0, 12)), bytes(range(20, 22)), bytes(range(40, 45)), bytes(range(60, 63))]  # a byte is a place
    starts = [*range(0, 10), *range(40, 43), 60]  # the last of each leaves just three bytes
    first = batch(documents(texts), np.random.default_rng(2), 28_000, 3)[:, 0]
    assert sorted(set(first)) == starts
    assert chisquare([(first == start).sum() for start in starts]).pvalue > 1e-4


def of_the_whole_stream(source, rng, batch_size, length):
    start = rng.integers(len(source._stream) - length + 1, size=batch_size)
    return source._stream[start[:, None] + np.arange(length)].astype(np.int64)


def documents_first(source, rng, batch_size, length):
    texts = [np.frombuffer(text, dtype=np.uint8) for text in source.train.values() if len(text) >= length]
    rows = []
    for text in (texts[i] for i in rng.integers(len(texts), size=batch_size)):
        start = rng.integers(len(text) - length + 1)
        rows.append(text[start : start + length])
    return np.stack(rows).astype(np.int64)


def without_the_last_start(source, rng, batch_size, length):
    return Documents.batch(source, rng, batch_size, length + 1)[:, :length]


def test_batches_stay_within_documents_with_every_start_equally_likely():
    assert_stays_within_documents(Documents.batch)
    assert_every_start_is_equally_likely(Documents.batch)


@pytest.mark.parametrize(
    ("check", "mutant"),
    [
        (assert_stays_within_documents, of_the_whole_stream),
        (assert_every_start_is_equally_likely, documents_first),
        (assert_every_start_is_equally_likely, without_the_last_start),
    ],
)
def test_wrong_batches_are_noticed(check, mutant):
    with pytest.raises(AssertionError):
        check(mutant)


def test_a_batch_depends_on_its_generator_alone():
    def draw(source, seed, step):
        return source.batch(np.random.default_rng((seed, step)), 8, 16)

    used, fresh = documents(distinct([200, 100])), documents(distinct([200, 100]))
    for step in range(5):
        draw(used, 0, step)
    np.testing.assert_array_equal(draw(used, 0, 3), draw(fresh, 0, 3))
    assert (draw(used, 0, 3) != draw(used, 0, 4)).any()
    assert (draw(used, 0, 3) != draw(used, 1, 3)).any()


# held-out segments


def test_segments_of_a_long_document_come_from_all_of_it():
    found = documents([b"train"], [bytes(range(250))]).held_out(10, 5)
    assert found.tokens[:, 0].tolist() == [20, 70, 120, 170, 220]
    assert found.segments == [0, 1, 2, 3, 4]


@pytest.mark.slow
@settings(deadline=None, derandomize=True)
@given(
    lengths=st.lists(st.integers(0, 120), min_size=1, max_size=8), seg_len=st.integers(1, 30), n_segments=st.integers(1, 12)
)
def test_held_out_segments_are_whole_disjoint_and_spread(lengths, seg_len, n_segments):
    source = documents([b"train"], [bytes(range(n)) for n in lengths])  # a byte is its own place
    capacity = np.array([n // seg_len for n in lengths])
    if capacity.sum() < n_segments:
        message = refusal(source.check, 1, seg_len, n_segments)
        assert f"hold {capacity.sum()} segments of {seg_len} bytes, expected {n_segments}" in message
        assert f"longest {max(lengths)} bytes" in message
        return
    source.check(1, seg_len, n_segments)
    found = source.held_out(seg_len, n_segments)
    assert found.tokens.shape == (n_segments, seg_len)
    assert found.tokens.dtype == np.int64
    assert len(set(zip(found.documents, found.segments, strict=True))) == n_segments
    seen: set[tuple[str, int]] = set()
    for tokens, document in zip(found.tokens, found.documents, strict=True):
        np.testing.assert_array_equal(tokens, np.arange(tokens[0], tokens[0] + seg_len))
        assert tokens[-1] < len(source.valid[document])
        places = {(document, int(token)) for token in tokens}
        assert not places & seen
        seen |= places
    taken = np.array([found.documents.count(name) for name in source.valid])
    # as even as the documents allow: whoever has less than another is used up
    assert all(count >= taken.max() - 1 or count == room for count, room in zip(taken, capacity, strict=True))


@pytest.mark.parametrize(("objective", "seg_len"), [(Mlm(), 40), (Causal(), 41), (Rtd(), 42)])
def test_held_out_segments_are_as_long_as_the_longest_length_needs(objective, seg_len):
    source = documents([b"train"], [bytes(range(100)), bytes(range(100))])
    config = EvalConfig(
        ["nonoverlap"], ["none"], [10, 40, 20], [10], 5, n_segments=3, whole_every=1, n_targets=5, n_pseudo=5
    )
    held_out, batch = held_out_batch(source, objective, config)
    assert held_out.tokens.shape == (3, seg_len)
    assert batch.inputs.shape == batch.targets.shape == batch.scored.shape == (3, 40)


def test_documents_too_short_to_train_on_are_refused_with_the_numbers():
    source = documents([b"x" * 1000, b"y" * 1234], [b"z" * 5000])
    source.check(1234, 10, 1)
    assert source.batch(np.random.default_rng(0), 4, 1234).shape == (4, 1234)
    message = refusal(source.check, 1235, 10, 1)
    assert "the longest has 1,234 bytes" in message
    assert "1,235" in message
    assert "train.train_len" in message


SPEC = {"_target_": "extrap.data.text.Text", "train": ["a"], "valid": ["b"]}


def test_documents_that_another_config_has_stored_are_not_read(tmp_path):
    """As a sweep of text leaves them where a sweep of another source, or of other files, comes later."""
    store(documents([b"one"]), {}, tmp_path, SPEC)
    with pytest.raises(LookupError):
        Stored(tmp_path, SPEC | {"train": ["c"]})
    cell = ["experiment=smoke", "data=markov", "position=rope", "seed=0"]
    (config,) = compose_grid([*cell, f"runtime.results_dir={tmp_path}"])
    store(documents([b"one"]), {}, config.folder.parent / "data", SPEC)
    assert isinstance(prepare(config, stored=True).source, Markov)


def test_stored_documents_are_those_that_were_read(tmp_path):
    source = documents([b"a", bytes(range(200)), b"b" * 77], [bytes(range(100)), b"", b"v" * 300])
    used = source.usage(1, 40, 8)
    store(source, used, tmp_path / "data", SPEC)
    stored = Stored(tmp_path / "data", SPEC)
    assert stored.describe() == source.describe()
    assert stored.usage(1, 40, 8) == used
    assert (stored.name, stored.vocab_size) == (source.name, source.vocab_size)
    assert isinstance(stored._stream, np.memmap), "mapped, not read"
    for length in (1, 30, 150):
        found = (one.batch(np.random.default_rng(3), 50, length) for one in (stored, source))
        np.testing.assert_array_equal(*found)
    held_out = stored.held_out(40, 8), source.held_out(40, 8)
    np.testing.assert_array_equal(held_out[0].tokens, held_out[1].tokens)
    assert held_out[0][1:] == held_out[1][1:]
    for length in (1, 100):
        np.testing.assert_array_equal(stored.unigram_nll(length), source.unigram_nll(length))


def test_other_documents_are_stored_anew_and_the_same_are_not(tmp_path):
    store(documents([b"one"]), {"n": 1}, tmp_path, SPEC)
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    store(documents([b"one"]), {"n": 1}, tmp_path, SPEC)
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before
    store(documents([b"one"]), {"n": 2}, tmp_path, SPEC)
    assert Stored(tmp_path, SPEC).usage(1, 1, 1) == {"n": 2}
    store(documents([b"two", b"three"]), {"n": 2}, tmp_path, SPEC)
    assert bytes(Stored(tmp_path, SPEC)._stream) == b"twothree"
    for damaged in (b"twothreX", b"two"):
        (tmp_path / "documents").write_bytes(damaged + b"-" * 99)
        store(documents([b"two", b"three"]), {"n": 2}, tmp_path, SPEC)
        assert bytes(Stored(tmp_path, SPEC)._stream) == b"twothree", "whatever has become of the file since"


# what is used of the documents


def words(seed: int, n_bytes: int) -> bytes:
    """Text that no other seed gives."""
    rng = np.random.default_rng(seed)
    return bytes(rng.choice(np.frombuffer(b"etaoin shrdlu", dtype=np.uint8), n_bytes))


def test_training_text_that_cannot_be_trained_on_is_told_and_refused_above_a_share(tmp_path):
    pieces = [words(i, 31) for i in range(1431)] + [b"=" * 80]
    source = documents(pieces, [words(-1 % 2**32, 2000)])
    message = refusal(source.check, 32, 128, 8)
    assert "99.8% of the training text (1,431 of 1,432 documents, the longest has 80 bytes)" in message
    assert "32 bytes" in message
    assert "lower train.train_len" in message
    source.check(31, 128, 8)
    source.min_usable_share = 0.0
    source.check(32, 128, 8)
    used = source.usage(32, 128, 8)
    assert (used["train_documents"], used["train_bytes"]) == (1, 80)
    assert "training documents: 1,432 (44,441 bytes); of 32 bytes or more: 1 (80 bytes)" in used["remarks"]
    all_used = source.usage(31, 128, 8)
    assert (all_used["train_documents"], all_used["train_bytes"]) == (1432, 1431 * 31 + 80)
    assert not any("training documents:" in remark for remark in all_used["remarks"])


def test_the_unigram_reference_counts_what_can_be_trained_on():
    source = documents([b"a" * 99 + b"b", b"c" * 20, b"b" * 3])
    counts = np.ones(256)
    counts[ord("a")], counts[ord("b")] = 100, 2
    np.testing.assert_allclose(source.unigram_nll(21), -np.log(counts / counts.sum()))
    counts[ord("c")] = 21
    np.testing.assert_allclose(source.unigram_nll(4), -np.log(counts / counts.sum()))


def test_the_tracked_unigram_rows_count_all_of_the_standard_library(library):
    source = library(MODULES | {"long.py": "y" * 500})
    everything = np.bincount(np.frombuffer(b"".join(source.train.values()), dtype=np.uint8), minlength=256) + 1
    np.testing.assert_array_equal(source.unigram_nll(400), -np.log(everything / everything.sum()))


def test_which_documents_are_scored_is_told():
    source = documents([words(0, 5000)], [words(i, 300) for i in range(1, 31)] + [b"short"])
    used = source.usage(32, 128, 16)
    by_hash = sorted((f"v{i}" for i in range(30)), key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    scored = used["scored_documents"]
    assert set(scored) == set(by_hash[:16]), "a sample: names may follow each other as their contents do"
    assert scored == sorted(scored, key=[f"v{i}" for i in range(30)].index), "in the order of the corpus"
    assert (used["valid_documents"], used["valid_bytes"]) == (30, 9000)
    assert (used["scored_segments"], used["scored_bytes"]) == (16, 16 * 128)
    (told,) = used["remarks"]
    assert "documents: 31 (9,005 bytes); of 128 bytes or more: 30 (9,000 bytes)" in told
    assert f"16 segments from 16 of them ({scored[0]}, {scored[1]}, ... {scored[-1]})" in told
    assert documents([words(0, 5000)], [words(1, 3000)]).usage(32, 128, 16)["remarks"] == []


def by_looking(stream: bytes, segment: bytes) -> int:
    """The bytes of a segment that lie in a piece which the stream holds, the plain way."""
    stream, segment = stream.replace(b"\r", b""), segment.replace(b"\r", b"")
    covered = set()
    for i in range(len(segment) - PIECE + 1):
        if segment[i : i + PIECE] in stream:
            covered |= set(range(i, i + PIECE))
    return len(covered)


@pytest.mark.parametrize("chunk", [2**20, 1000, 70, 7])
def test_verbatim_pieces_are_found_wherever_they_lie(monkeypatch, chunk):
    monkeypatch.setattr(overlap, "CHUNK", chunk)
    stream, own = words(1, 3000), words(2, 400)
    segments = [
        own,
        stream[:400],
        stream[-400:],
        own[:100] + stream[1000:1200] + own[100:200],
        stream[500:563] + own[:337],  # one byte short of a piece
        stream[500:564] + own[:336],
        own[:336] + stream[990:1054],
        stream[100:300] + stream[2000:2200],
        (stream[:100] + b"\r\n" + stream[100:398]),
    ]
    found = verbatim(np.frombuffer(stream, dtype=np.uint8), segments)
    assert [n for n, _ in found] == [by_looking(stream, segment) for segment in segments]
    assert [n for n, _ in found][:5] == [0, 400, 400, 200, 0]
    assert verbatim(np.frombuffer(stream[:10], dtype=np.uint8), [one[:50] for one in segments]) == [(0, 50)] * 9


@pytest.mark.parametrize(
    "changed",
    [
        lambda text: text,
        lambda text: text.replace(b"\n", b"\r\n"),
        lambda text: text + b"one more line\n",
        lambda text: b"\xef\xbb\xbf" + text,
        lambda text: words(3, 4000) + text + words(4, 4000),  # all in one file
    ],
)
def test_training_text_that_contains_a_held_out_document_is_refused(tmp_path, changed):
    held_out = b"\n".join(words(i, 60) for i in range(100))
    train, valid = tmp_path / "train.txt", tmp_path / "valid.txt"
    valid.write_bytes(held_out)
    train.write_bytes(words(7, 20_000) + changed(held_out))
    source = Text([str(train)], [str(valid)])
    source.check(32, 1000, 4)
    message = refusal(source.usage, 32, 1000, 4)
    assert "valid.txt is in the training text: 100% of its" in message
    assert "take it out of one" in message
    taken = Text([str(train)], [str(valid)], max_verbatim_share=1.0).usage(32, 1000, 4)
    assert taken["verbatim_share"] == pytest.approx(1, abs=0.05)
    assert any("stand in the training text too" in remark for remark in taken["remarks"])
    (tmp_path / "copy.txt").write_bytes(changed(held_out))
    if b"one more line" not in changed(held_out) and len(changed(held_out)) < 7000:
        message = refusal(Text, [str(tmp_path / "copy.txt")], [str(valid)])
        assert "valid.txt is a copy of a document of data.train" in message


def test_near_copies_are_told_with_their_share():
    mine, theirs = words(1, 4000), words(2, 4000)
    source = documents([words(3, 9000) + mine[:2000]], [mine, theirs])
    used = source.usage(32, 4000, 2)
    assert used["verbatim"] == {"v0": 0.5}
    assert used["verbatim_share"] == 0.25
    (told,) = used["remarks"]
    assert told.startswith(
        "25.0% of the scored bytes stand in the training text too, 64 bytes or more in a row (most: v0 50%)"
    )


def test_near_copies_in_the_standard_library_do_not_end_a_sweep():
    source = Stdlib()
    sizes = 128, 4096, min(16, sum(len(text) // 4096 for text in source.valid.values()))
    source.check(*sizes)
    assert 0 <= source.usage(*sizes)["verbatim_share"] < 0.5


# text of other kinds


def write(folder: Path, files: dict[str, bytes | str]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


@pytest.fixture
def valid(tmp_path) -> str:
    (tmp_path / "held-out.txt").write_text("held out")
    return str(tmp_path / "held-out.txt")


def test_a_mark_of_byte_order_at_the_head_of_a_file_is_no_text(tmp_path, valid):
    mark = b"\xef\xbb\xbf"
    folder = write(tmp_path / "folder", {"a.txt": mark + b"one" + mark, "b.txt": mark, "c.txt": mark + b'{"text": "two"}'})
    source = Text([str(folder / "a.txt")], [valid])
    assert [*source.train.values()] == [b"one" + mark]
    assert "is empty" in refusal(Text, [str(folder / "b.txt")], [valid])
    assert [*read([str(folder / "c.txt")], "data.train", "*", "text").documents.values()] == [b"two"]


def test_all_bad_files_of_a_folder_are_told_at_once(tmp_path, valid):
    folder = write(tmp_path / "folder", {
        "a/picture.png": b"\x89PNG\0", "b.txt": "naïve".encode("latin-1"), "c.txt.gz": gzip.compress(b"c"),
        "good.txt": "good", "utf-16.txt": "text".encode("utf-16"), "table.parquet": b"PAR1\0\0",
    })  # fmt: skip
    os.mkfifo(folder / "pipe")
    (folder / "out").symlink_to("/etc/hostname")
    message = refusal(Text, [str(folder)], [valid])
    assert message.startswith("data.train: 7 files cannot be read: ")
    for name in ("picture.png", "b.txt", "c.txt.gz", "utf-16.txt", "table.parquet", "pipe", "out"):
        assert name in message
    for told in ("gunzip", "iconv", "JSON lines", "data.pattern='*.txt'"):
        assert told in message
    assert list(Text([str(folder)], [valid], pattern="good*").train) == ["folder/good.txt"]
    write(folder, {f"{i:03d}.bin": b"\0" for i in range(100)})
    assert "107 files" in (message := refusal(Text, [str(folder)], [valid]))
    assert "; and 87 more; expected UTF-8 text" in message


def test_empty_files_of_a_folder_are_left_out_with_a_word(tmp_path, valid):
    folder = write(tmp_path / "repo", {"a.py": "a = 1", "__init__.py": "", "pkg/__init__.py": ""})
    source = Text([str(folder)], [valid])
    assert list(source.train) == ["repo/a.py"]
    assert source.remarks == ["data.train: empty files are left out (2: repo/__init__.py, repo/pkg/__init__.py)"]
    assert f"no text in ['{folder}']" in refusal(Text, [str(folder)], [valid], "__init__.py")
    assert "is empty" in refusal(Text, [str(folder / "__init__.py")], [valid])


def test_a_pattern_chooses_the_files_of_folders(tmp_path, valid):
    folder = write(tmp_path / "f", {"a.txt": "1", "b.md": "2", "train/c.txt": "3", "valid/[x].txt": "4", "d.bin": b"\0"})
    assert list(Text([str(folder)], [valid], pattern="*.txt").train) == ["f/a.txt", "f/train/c.txt", "f/valid/[x].txt"]
    assert list(Text([str(folder)], [valid], pattern="train/*").train) == ["f/train/c.txt"]
    assert list(Text([str(folder / "b.md")], [valid], pattern="*.txt").train) == ["b.md"], "what is named is read"
    assert "holds no files that match *.rst" in refusal(Text, [str(folder)], [valid], "*.rst")
    with pytest.raises(ValueError, match="empty pattern"):  # a line of the command, as of all that a class refuses
        Text([str(folder)], [valid], "")


LINES = [{"text": "First.", "n": 1}, {"text": "Second\nline.", "n": 2}, {"text": "", "n": 3}, {"text": "Ünï", "n": 4}]


def test_json_lines_are_documents(tmp_path, valid):
    lines = "\r\n".join(json.dumps(line) for line in LINES) + "\n\n"
    folder = write(tmp_path / "set", {"a.jsonl": lines, "b.jsonl": lines.replace("First", "Other")})
    (tmp_path / "held-out.jsonl").write_text('{"text": "Held out.", "n": null}\n{"text": "Second\\nline."}')
    source = Text([str(folder)], [str(tmp_path / "held-out.jsonl")], field="text")
    assert source.train == {
        "set/a.jsonl:1": b"First.", "set/a.jsonl:2": b"Second\nline.", "set/a.jsonl:4": "Ünï".encode(),
        "set/b.jsonl:1": b"Other.", "set/b.jsonl:2": b"Second\nline.", "set/b.jsonl:4": "Ünï".encode(),
    }  # fmt: skip
    assert list(source.valid.values()) == [b"Held out.", b"Second\nline."]
    assert source.remarks == ["data.valid: held-out.jsonl:2 is a copy of a document of data.train"]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("plain text", "line 1: expected a JSON object with text in the field text (data.field), found plain text"),
        (
            '{"text": "a"}\n{"txt": "b", "n": 1}',
            'line 2: expected a JSON object with text in the field text (data.field), found {"txt": "b", "n": 1}',
        ),
        ('["text"]', 'found ["text"]'),
        ('{"text": 7}', 'found {"text": 7}'),
        ('{"text": "a\\u0000b"}', 'found {"text": "a\\u0000b"}'),
        ('{"text": "\\ud800"}', 'found {"text": "\\ud800"}'),
        ("[" * 100_000, "line 1: expected a JSON object"),
        ('{"text": ""}\n\n', "no line holds text in the field text"),
    ],
)
def test_what_is_no_json_line_is_refused_with_its_place(tmp_path, valid, content, told):
    folder = write(tmp_path / "set", {"bad.jsonl": content, "good.jsonl": '{"text": "good"}'})
    message = refusal(Text, [str(folder)], [str(folder / "good.jsonl")], "*", "text")
    assert f"{folder}/bad.jsonl" in message
    assert told in message


def test_marked_up_text_is_read_as_it_is_with_a_word(tmp_path, valid):
    folder = write(
        tmp_path / "f", {"a.jsonl": '{"text": "a"}', "b.CSV": "a,b", "c.html": "<p>", "d.html": "<b>", "e.txt": "e"}
    )
    (told,) = Text([str(folder)], [valid]).remarks
    assert told == (
        "data.train: files taken as plain text: .jsonl (1), .csv (1), .html (2); marks and keys are learned and scored too "
        "(data.field=NAME reads a field of JSON lines instead)"
    )
    (told,) = Text([str(folder / "b.CSV")], [valid]).remarks
    assert told.startswith("data.train: files taken as plain text: .csv (1); marks and keys are learned and scored too")


def test_joined_documents_are_one(tmp_path, valid):
    folder = write(tmp_path / "f", {f"{i:03d}.txt": f"text {i:02d}" for i in range(50)})
    apart, joined = Text([str(folder)], [valid]), Text([str(folder)], [valid], join=True)
    assert "data.join=true" in refusal(apart.check, 32, 8, 1)
    assert "data.join=true" in refusal(apart.check, 4, 9, 1)
    joined.check(32, 8, 1)
    (text,) = joined.train.values()
    assert text.split(b"\0") == list(apart.train.values())
    assert joined.describe()["sha256"] != apart.describe()["sha256"]
    assert "50 documents are joined to be trained on, 1 to be scored" in joined.remarks[0]


@pytest.mark.parametrize(("options", "label"), [([], "text"), (["data.join=true"], "text(joined)")])
def test_rows_tell_joined_documents(options, label):
    (config,) = compose_grid(["experiment=smoke", "data=text", "position=rope", "seed=0", *options])
    assert labels(config)["data"] == label


def test_the_cache_of_a_hub_is_read(tmp_path, valid):
    cache = write(tmp_path / "hub", {"blobs/1f": '{"text": "a"}', "blobs/2f": '{"text": "b"}', "private": "secret"})
    (cache / "snapshots" / "rev" / "data").mkdir(parents=True)
    (cache / "snapshots" / "rev" / "a.jsonl").symlink_to("../../blobs/1f")
    (cache / "snapshots" / "rev" / "data" / "b.jsonl").symlink_to("../../../blobs/2f")
    for place in ("snapshots/rev", "snapshots/rev/data", "snapshots"):
        source = Text([str(cache / place)], [valid], pattern="*.jsonl")
        assert b'{"text": "b"}' in source.train.values()
        assert all(name.endswith(".jsonl") for name in source.train)


@pytest.mark.parametrize(
    "target", ["../../private", "../../../outside", "../../blobs/link", "../../blobs/deep/x", "/etc/hostname"]
)
def test_no_link_of_a_hub_cache_leads_elsewhere(tmp_path, valid, target):
    cache = write(tmp_path / "hub", {"blobs/1f": "a", "blobs/deep/x": "x", "private": "secret"})
    (tmp_path / "outside").write_text("secret")
    (cache / "blobs" / "link").symlink_to(tmp_path / "outside")
    (cache / "snapshots" / "rev").mkdir(parents=True)
    (cache / "snapshots" / "rev" / "a.txt").symlink_to(target)
    message = refusal(Text, [str(cache / "snapshots" / "rev")], [valid])
    assert "a.txt is neither a file nor a link to one within" in message
    assert "name it itself" in message


def test_a_blob_beside_a_folder_of_another_name_is_not_read(tmp_path, valid):
    write(tmp_path / "x", {"blobs/1f": "a", "corpus/b.txt": "b"})
    (tmp_path / "x" / "corpus" / "a.txt").symlink_to("../blobs/1f")
    assert "nor a link to one within" in refusal(Text, [str(tmp_path / "x" / "corpus")], [valid])


def test_options_that_are_not_told_are_no_part_of_what_a_run_is():
    """Rows that were made before an option was there stay what a sweep of the same config makes."""
    told = ["experiment=smoke", "data=text", "position=rope", "seed=0", "data.train=[a]", "data.valid=[b]"]
    (plain,), (chosen,) = (compose_grid([*told, *options]) for options in ([], ["data.field=text", "data.join=true"]))
    assert plain.identity()["data"] == {"_target_": "extrap.data.text.Text", "train": ["a"], "valid": ["b"]}
    assert chosen.identity()["data"] == plain.identity()["data"] | {"field": "text", "join": True}


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, id=path.parent.name, marks=[] if path.parent.name == "main" else pytest.mark.slow)
        for path in sorted(ROOT.glob("results/*/provenance.yaml"))
    ],
)
def test_the_tracked_results_are_still_of_the_same_data(path, monkeypatch):
    if not (ROOT / "conf" / "experiment" / f"{path.parent.name}.yaml").exists():
        pytest.skip("no sweep")
    monkeypatch.setenv("EXTRAP_CORPORA", "corpora")
    config = compose_grid([f"experiment={path.parent.name}"])[0]
    old, new = (
        {option: value for option, value in _recipe(of, OF_MACHINE).items() if option.startswith("data.")}
        for of in (load_provenance(path)["config"], config.identity())
    )
    assert new == {
        key: value for key, value in old.items() if key not in ("data.python", "data.settings")
    }  # found in reading


def test_a_run_records_what_it_used_of_the_data(tmp_path):
    overrides = ["experiment=smoke", "data=text", "position=nope", "seed=0", f"runtime.results_dir={tmp_path / 'r'}"]
    write(tmp_path, {"short/a.txt": words(1, 900), "short/b.txt": words(2, 20), "v.txt": words(3, 3000)})
    (cell,) = prepare_grid(compose_grid([*overrides, f"data.train=[{tmp_path}/short]", f"data.valid=[{tmp_path}/v.txt]"]))
    assert cell.used == cell.source.usage(32, 128, 8)
    assert (cell.used["train_documents"], cell.used["scored_documents"]) == (1, ["v.txt"])
    told = describe(cell, torch.device("cpu"), History(1.0, [], 1))
    assert told["used"] == cell.used
    cell.folder.claim(cell.identity)
    (cell.config.folder / "eval.csv").touch()
    (cell.config.folder / "meta.json").write_text(json.dumps(told | {"costs": {"train_seconds": 1.0, "eval_seconds": 1.0}}))
    assert provenance(cell.config.folder.parent, "a test")["used"] == cell.used
    store_documents(cell)
    again = prepare(cell.config, stored=True)
    assert isinstance(again.source, Stored)
    assert (again.used, again.identity) == (cell.used, cell.identity)
    (other,) = compose_grid([*overrides, "data.train=[x]", "data.valid=[y]"])
    with pytest.raises(UserError):
        prepare(other, stored=True)


def test_texts_are_compared_once_for_all_runs_of_a_sweep(tmp_path, monkeypatch):
    looks = []
    monkeypatch.setattr(documents_data, "verbatim", lambda *told: looks.append(told) or verbatim(*told))
    write(tmp_path, {"t.txt": words(1, 900), "v.txt": words(3, 3000)})
    told = ["data=text", f"data.train=[{tmp_path}/t.txt]", f"data.valid=[{tmp_path}/v.txt]"]
    cells = prepare_grid(
        compose_grid(["experiment=smoke", *told, "position=nope,rope", "seed=0,1", f"runtime.results_dir={tmp_path / 'r'}"])
    )
    store_documents(cells[0])
    for cell in cells:
        prepare(cell.config, stored=True)
    assert len(cells) == 4
    assert len(looks) == 1


# real corpora


@needs_corpora
def test_books_by_path():
    source = Text([str(CORPORA / "books" / "train")], [str(CORPORA / "books" / "valid")])
    described = source.describe()
    assert (described["train_documents"], described["valid_documents"]) == (24, 3)
    assert described["train_bytes"] > 30_000_000
    source.check(129, 4097, 48)
    for row in source.batch(np.random.default_rng(0), 20, 129):
        assert any(bytes(row.astype(np.uint8)) in text for text in source.train.values())
    held_out = source.held_out(4097, 48)
    assert [held_out.documents.count(name) for name in source.valid] == [16, 16, 16]


@needs_corpora
def test_one_long_file_is_cut_into_disjoint_segments():
    source = Text([str(CORPORA / "books" / "valid" / "dracula.txt")], [str(CORPORA / "wikitext-2" / "valid.txt")])
    (text,) = source.valid.values()
    places = [text.find(bytes(tokens.astype(np.uint8))) for tokens in source.held_out(4097, 32).tokens]
    assert min(np.diff(places)) >= 4097
    assert places[-1] > 0.9 * len(text)  # from all of the file, not from its beginning


def test_of_held_out_copies_one_is_scored(tmp_path):
    folder = write(tmp_path / "train", {"a.txt": "first\nsecond"})
    held_out = write(
        tmp_path / "valid", {"a.txt": "one\ntwo", "b.txt": "one\r\ntwo\n", "c.txt": "one two", "d.txt": "other"}
    )
    source = Text([str(folder)], [str(held_out)])
    assert [*source.valid] == ["valid/a.txt", "valid/d.txt"]
    assert source.remarks == ["data.valid: of documents that are copies of each other one is scored (2 are left out)"]
    (joined,) = Text([str(folder)], [str(held_out)], join=True).valid.values()
    assert joined.count(b"\0") == 3


def test_text_that_was_trained_on_at_another_width_of_its_lines_is_found(tmp_path):
    words = " ".join(f"word-{number}" for number in range(400))
    folder = write(tmp_path / "train", {"a.txt": textwrap.fill(words, 70) + "\n\nand more"})
    held_out = write(tmp_path / "valid", {"b.txt": textwrap.fill(words, 50)})
    assert "is in the training text: " in refusal(Text([str(folder)], [str(held_out)]).usage, 32, 1200, 2)
    copy = write(tmp_path / "copy", {"b.txt": textwrap.fill(words, 50) + "\n\nand more"})
    assert "b.txt is a copy of a document of data.train" in refusal(Text, [str(folder)], [str(copy)])


def test_no_pattern_skips_files_without_a_word(tmp_path, valid):
    folder = write(tmp_path / "corpus", {"top.txt": "1", "sub/mid.txt": "2", ".store/s.txt": "3"})
    write(tmp_path / "outside", {"o.txt": "4"})
    assert "expected a pattern without **" in refusal(Text, [str(folder)], [valid], "**/*.txt")
    (folder / "again").symlink_to("sub")
    assert [*Text([str(folder)], [valid], pattern="*.txt").train] == ["corpus/sub/mid.txt", "corpus/top.txt"]
    for target in ("../outside", ".store"):
        (folder / "linked").symlink_to(target)
        for pattern in ("*", "*.txt"):
            assert "linked is neither a file nor a link to one within" in refusal(Text, [str(folder)], [valid], pattern)
        (folder / "linked").unlink()


def test_an_empty_file_that_is_named_is_an_error_however_its_path_is_typed(tmp_path, valid, monkeypatch):
    write(tmp_path, {"a.txt": "text", "empty.txt": ""})
    monkeypatch.chdir(tmp_path)
    for typed in ("empty.txt", "./empty.txt", str(tmp_path / "empty.txt")):
        assert "is empty" in refusal(Text, ["a.txt", typed], [valid])
