"""Text: which files are read, what is refused, and that no sequence ever leaves its document."""

import hashlib
import os
import platform
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from extrap.cells import prepare
from extrap.compose import compose_grid
from extrap.config import EvalConfig
from extrap.data import text as text_data
from extrap.data.documents import Documents, Stored, store
from extrap.data.markov import Markov
from extrap.data.text import Stdlib, Text, stdlib_files
from extrap.errors import UserError
from extrap.objectives import Causal, Mlm
from extrap.protocols import held_out_batch

CORPORA = Path(os.environ.get("EXTRAP_CORPORA", Path(__file__).parents[2] / "shared" / "corpora"))
needs_corpora = pytest.mark.skipif(
    not (CORPORA / "books").is_dir(), reason=f"needs the corpora: no {CORPORA}/books; name their folder in EXTRAP_CORPORA"
)


def documents(train: list[bytes], valid: list[bytes] = [b"x" * 100]) -> Documents:  # noqa: B006  never changed
    made = Documents({f"t{i}": text for i, text in enumerate(train)}, {f"v{i}": text for i, text in enumerate(valid)})
    made.name = "made"
    return made


def refusal(function, *arguments) -> str:
    with pytest.raises(UserError) as error:
        function(*arguments)
    message = str(error.value)
    assert "\n" not in message
    return message


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
        ("missing.txt", None, "does not exist"),
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
    assert "data.train: no files given; expected" in refusal(Text, [], [__file__])
    assert "data.valid: no files given; expected" in refusal(Text, [__file__], [])
    for folder in ("empty", "hidden"):
        assert f"data.train: the folder {tmp_path / folder} holds no files" in refusal(
            Text, [str(tmp_path / folder)], [__file__]
        )


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


@pytest.mark.parametrize(("objective", "seg_len"), [(Mlm(), 40), (Causal(), 41)])
def test_held_out_segments_are_as_long_as_the_longest_length_needs(objective, seg_len):
    source = documents([b"train"], [bytes(range(100)), bytes(range(100))])
    config = EvalConfig(["nonoverlap"], ["none"], [10, 40, 20], [10], 5, n_segments=3, n_targets=5, n_pseudo=5)
    held_out, batch = held_out_batch(source, objective, config)
    assert held_out.tokens.shape == (3, seg_len)
    assert batch.inputs.shape == batch.targets.shape == batch.scored.shape == (3, 40)


def test_documents_too_short_to_train_on_are_refused_with_the_numbers():
    source = documents([b"x" * 1000, b"y" * 1234], [b"z" * 5000])
    source.check(1234, 10, 1)
    assert source.batch(np.random.default_rng(0), 4, 1234).shape == (4, 1234)
    message = refusal(source.check, 1235, 10, 1)
    assert "1,234 bytes" in message
    assert "1,235" in message
    assert "train.train_len" in message


SPEC = {"_target_": "extrap.data.text.Text", "train": ["a"], "valid": ["b"]}


def test_documents_that_another_config_has_stored_are_not_read(tmp_path):
    """As a sweep of text leaves them where a sweep of another source, or of other files, comes later."""
    store(documents([b"one"]), tmp_path, SPEC)
    with pytest.raises(LookupError):
        Stored(tmp_path, SPEC | {"train": ["c"]})
    cell = ["experiment=smoke", "data=markov", "position=rope", "seed=0"]
    (config,) = compose_grid([*cell, f"runtime.results_dir={tmp_path}"])
    store(documents([b"one"]), config.folder.parent / "data", SPEC)
    assert isinstance(prepare(config, stored=True).source, Markov)


def test_stored_documents_are_those_that_were_read(tmp_path):
    source = documents([b"a", bytes(range(200)), b"b" * 77], [bytes(range(100)), b"", b"v" * 300])
    store(source, tmp_path / "data", SPEC)
    stored = Stored(tmp_path / "data", SPEC)
    assert stored.describe() == source.describe()
    assert (stored.name, stored.vocab_size) == (source.name, source.vocab_size)
    assert isinstance(stored._stream, np.memmap), "mapped, not read"
    for length in (1, 30, 150):
        found = (one.batch(np.random.default_rng(3), 50, length) for one in (stored, source))
        np.testing.assert_array_equal(*found)
    held_out = stored.held_out(40, 8), source.held_out(40, 8)
    np.testing.assert_array_equal(held_out[0].tokens, held_out[1].tokens)
    assert held_out[0][1:] == held_out[1][1:]
    np.testing.assert_array_equal(stored.unigram_nll(), source.unigram_nll())
    for sizes in ((250, 10, 1), (10, 301, 1)):
        assert refusal(stored.check, *sizes) == refusal(source.check, *sizes)


def test_other_documents_are_stored_anew_and_the_same_are_not(tmp_path):
    store(documents([b"one"]), tmp_path, SPEC)
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    store(documents([b"one"]), tmp_path, SPEC)
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before
    store(documents([b"two", b"three"]), tmp_path, SPEC)
    assert bytes(Stored(tmp_path, SPEC)._stream) == b"twothree"


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
