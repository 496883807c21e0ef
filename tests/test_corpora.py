"""Named corpora: fetched from a hub of this machine by the real command, and what of them is trained on and scored."""

import contextlib
import hashlib
import http.client
import http.server
import io
import json
import os
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from marks import slow
from refusing import refusal
from sweeps import ROOT

from extrap.config.compose import compose_grid
from extrap.data import corpora, fetching
from extrap.data.corpora import CORPORA, FETCHED, Corpus, articles, check_fetched
from extrap.data.fetching import fetch
from extrap.results.rows import load_rows
from extrap.score.references import labels
from extrap.sweep.checks import prepare_grid

NAME, WIKITEXT = "wikitext-2", CORPORA["wikitext-2"]
TRAIN_FILE, TEST_FILE = WIKITEXT.train[0], WIKITEXT.valid[0]


def article(title: str, words: str, n: int = 60) -> list[str]:
    """Lines as the hub has them: blank ones are empty."""
    return [
        "", f" = {title} = \n", "", f" {words} " * n + "\n", f" {words} = 5 = x \n", "", f" = = About {title} = = \n", "",
        " = x \n", "", " = = = Deeper = = = \n", "", f" It ends {words} . \n",
    ]  # fmt: skip


LINES = {
    "train": [
        *article("Lobster", "claws and sea"),
        *article("B = C ( film )", "scenes of it"),
        *article("M @-@ 82", "a road"),
    ],
    "test": [*article("Heron", "wings over water", 400), *article("Osprey", "fish by the river", 400)],
    "validation": article("Secret", "what nobody trains on"),
}


def parquet(rows: list[str]) -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.table({"text": rows}), file)
    return file.getvalue()


class Hub(http.server.BaseHTTPRequestHandler):
    """What the hub answers of a dataset repository: metadata on HEAD, the file on GET."""

    files: dict[str, bytes]
    revision: str
    told: dict[str, bytes]  # of which size and digest are told, where these are others than those of the files
    cut: int | None = None
    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(f"{self.command} {self.path}")
        repository, _, rest = self.path.removeprefix("/datasets/").partition("/resolve/")
        revision, _, file = rest.partition("/")
        if repository != "Salesforce/wikitext" or revision != self.revision or file not in self.files:
            self.send_response(404)
            self.send_header("X-Error-Code", "RevisionNotFound" if revision != self.revision else "EntryNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        content = self.files[file]
        known = self.told.get(file, content)
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("X-Repo-Commit", self.revision)
        self.send_header("X-Linked-Size", str(len(known)))
        self.send_header("X-Linked-ETag", f'"{hashlib.sha256(known).hexdigest()}"')
        self.send_header("ETag", f'"{hashlib.sha256(known).hexdigest()}"')
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content[: self.cut])

    do_HEAD = do_GET

    def log_message(self, *told) -> None:
        pass


@pytest.fixture
def hub():
    """A hub of this machine with the files of WikiText-2, and its address."""
    files = {
        TRAIN_FILE: parquet(LINES["train"]),
        TEST_FILE: parquet(LINES["test"]),
        "wikitext-2-raw-v1/validation-00000-of-00001.parquet": parquet(LINES["validation"]),
    }
    own = type("OwnHub", (Hub,), {"files": files, "revision": WIKITEXT.revision, "told": {}, "asked": []})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), own) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        own.address = f"http://127.0.0.1:{server.server_port}"
        yield own
        server.shutdown()


def run(place: Path, module: str, *arguments: str, address: str = "http://127.0.0.1:9") -> subprocess.CompletedProcess:
    """A real command, in another folder; unless it is given the hub, nobody answers."""
    environment = os.environ | {
        "PYTHONPATH": str(ROOT), "HF_ENDPOINT": address, "HF_HOME": str(place / "home"), "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_ETAG_TIMEOUT": "2", "no_proxy": "127.0.0.1",
    }  # fmt: skip
    line = [sys.executable, "-m", module, *arguments]
    return subprocess.run(line, cwd=place, env=environment, capture_output=True, text=True, timeout=300)


def fetched(place: Path) -> Path:
    """As the command leaves it."""
    folder = place / "corpora" / NAME
    for file, part in ((TRAIN_FILE, "train"), (TEST_FILE, "test")):
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes(parquet(LINES[part]))
    digests = {file: hashlib.sha256((folder / file).read_bytes()).hexdigest() for file in WIKITEXT.files}
    told = {"home": WIKITEXT.home, "revision": WIKITEXT.revision, "files": digests}
    (folder / FETCHED).write_text(json.dumps(told))
    return folder


# fetched by a command, and never by a sweep


def test_a_corpus_is_fetched_at_its_revision_and_only_what_is_used(hub, tmp_path, monkeypatch):
    done = run(tmp_path, "extrap.sweep.corpus", NAME, address=hub.address)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"corpora/{NAME} is there: make sweep ARGS='data=corpus data.name={NAME} name=...'\n"
    files = [asked for asked in hub.asked if "/resolve/" in asked]  # the library has questions of its own
    assert len([asked for asked in files if asked.startswith("GET")]) == 2
    assert all(f"/Salesforce/wikitext/resolve/{WIKITEXT.revision}/" in asked for asked in files)
    assert not any("validation" in asked for asked in files)
    told = json.loads((tmp_path / "corpora" / NAME / FETCHED).read_text())
    assert told["revision"] == WIKITEXT.revision
    assert told["files"] == {file: hashlib.sha256(hub.files[file]).hexdigest() for file in WIKITEXT.files}
    monkeypatch.setattr(corpora, "FOLDER", tmp_path / "corpora")
    source = Corpus(NAME)
    assert [*source.train] == ["00000 Lobster", "00001 B = C ( film )", "00002 M @-@ 82"]
    assert [*source.valid] == ["00000 Heron", "00001 Osprey"]
    assert source.describe()["revision"] == WIKITEXT.revision


@pytest.mark.parametrize("fault", ["other bytes", *slow("cut short", "another size")])
def test_a_broken_download_is_told_and_left_nowhere(hub, tmp_path, fault):
    if fault == "cut short":
        hub.cut = 500
    elif fault == "other bytes":
        hub.told = {TEST_FILE: hub.files[TEST_FILE][:-1] + b"?"}
    else:
        hub.told = {TRAIN_FILE: hub.files[TRAIN_FILE] + b"?"}
    done = run(tmp_path, "extrap.sweep.corpus", NAME, address=hub.address)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: ")
    assert "the same command" in done.stderr.splitlines()[-1]
    assert not (tmp_path / "corpora" / NAME / FETCHED).exists()
    hub.cut, hub.told = None, {}
    assert run(tmp_path, "extrap.sweep.corpus", NAME, address=hub.address).returncode == 0, "and the same command mends it"


def test_a_revision_that_is_gone_and_a_network_that_is_not_there_are_told(hub, tmp_path):
    hub.revision = "0" * 40
    done = run(tmp_path, "extrap.sweep.corpus", NAME, address=hub.address)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert f"at revision {WIKITEXT.revision} is not published any more" in done.stderr
    done = run(tmp_path, "extrap.sweep.corpus", NAME)
    assert done.returncode == 2, done.stderr
    assert "expected a network" in done.stderr.splitlines()[-1]
    done = run(tmp_path, "extrap.sweep.corpus", "wikitext2")
    assert done.stderr == "error: data.name: no corpus 'wikitext2'; did you mean wikitext-2 or wikitext-103?\n"


def test_a_sweep_asks_no_network_and_says_what_fetches(tmp_path):
    few = ["experiment=smoke", "name=c", "data=corpus", f"data.name={NAME}", "position=nope", "seed=0"]
    done = run(tmp_path, "extrap", *few)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert f"make corpus NAME={NAME} (python -m extrap.sweep.corpus {NAME}) fetches it" in done.stderr
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda folder: (folder / TEST_FILE).write_bytes((folder / TEST_FILE).read_bytes()[:-9]), "is not what was fetched"),
        (lambda folder: (folder / TRAIN_FILE).unlink(), "is missing"),
        (lambda folder: (folder / FETCHED).write_text("{"), "is damaged"),
        (lambda folder: (folder / FETCHED).write_text('{"home": 1, "revision": 2, "files": []}'), "is damaged"),
        (
            lambda folder: (folder / FETCHED).write_text(
                (folder / FETCHED).read_text().replace(WIKITEXT.revision, "f" * 40)
            ),
            f"at {'f' * 40}, expected Salesforce/wikitext at {WIKITEXT.revision}",
        ),
    ],
)
def test_what_is_not_as_it_was_fetched_is_refused(tmp_path, monkeypatch, change, told):
    folder = fetched(tmp_path)
    monkeypatch.setattr(corpora, "FOLDER", tmp_path / "corpora")
    Corpus(NAME)
    change(folder)
    message = refusal(Corpus, NAME)
    assert told in message
    assert f"make corpus NAME={NAME}" in message


def test_a_result_of_another_revision_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(corpora, "FOLDER", tmp_path / "corpora")
    fetched(tmp_path)
    told = [
        "experiment=smoke", "data=corpus", f"data.name={NAME}", "position=nope", "seed=0", "train.train_len=16",
        f"runtime.results_dir={tmp_path}",
    ]  # fmt: skip
    (run,) = prepare_grid(compose_grid(told))
    assert labels(run.config)["data"] == NAME
    run.folder.claim(run.identity)
    monkeypatch.setitem(CORPORA, NAME, WIKITEXT._replace(revision="e" * 40))
    monkeypatch.setattr(corpora, "check_fetched", lambda *told: None)
    assert "data.revision" in refusal(prepare_grid, compose_grid(told))


# what is a document, and of which part


def assert_articles(split) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(corpora, "_rows", lambda files: LINES[files])
        train, test = split("train", "test")
    assert [name[6:] for name in train] == ["Lobster", "B = C ( film )", "M @-@ 82"]
    assert [name[6:] for name in test] == ["Heron", "Osprey"]
    lobster = train["00000 Lobster"].decode()
    assert lobster.startswith(" = Lobster = \n\n claws")
    assert lobster.endswith(" It ends claws and sea . \n\n")
    lines = [line or "\n" for line in LINES["train"]]
    assert b"".join(train.values()) == "".join(lines[1:]).encode(), "nothing is lost but what stands before the first title"


@pytest.mark.parametrize("pattern", [r" = (.+) = \n", r" =+ (.+) =+ \n", r" = (?!= )([^=]+) = \n"])
def test_articles_begin_with_their_titles(monkeypatch, pattern):
    assert_articles(articles)
    monkeypatch.setattr(corpora, "TITLE", corpora.re.compile(pattern))  # takes sections for titles, or loses a title
    with pytest.raises(AssertionError):
        assert_articles(articles)


def test_a_line_within_a_text_is_no_title():
    rows = ["", " = Real = \n", "", " one \n", " = Not = \n", " two \n"]
    assert [*corpora._articles(rows)] == ["00000 Real"]


@pytest.mark.parametrize("name", CORPORA)
def test_no_part_is_in_another_and_validation_text_is_in_none(name):
    """Splits by files; those within a file are below."""
    of = CORPORA[name]
    assert not {*of.train} & {*of.valid}
    assert all(word not in file for file in of.train for word in ("validation", "test"))
    assert all("test" in file for file in of.valid)
    assert len(of.revision) == (64 if "://" in of.home else 40)
    assert int(of.revision, 16)


def zipped(path: Path, name: str, text: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(name, text)
    return path


def test_a_hundred_million_bytes_are_split_as_everybody_splits_them(tmp_path):
    path = zipped(tmp_path / "x.zip", "enwik8", b"a" * 90_000_000 + b"v" * 5_000_000 + b"t" * 5_000_000)
    ((_, train),), ((_, test),) = (part.items() for part in corpora.hundred_million([path], []))
    assert len(train) == train.count(b"a") == 90_000_000
    assert len(test) == test.count(b"t") == 5_000_000


def test_rows_are_documents(tmp_path):
    train, test = tmp_path / "train.parquet", tmp_path / "test.parquet"
    train.write_bytes(parquet([f"book {n}" for n in range(300)]))
    test.write_bytes(parquet(["one", "", "two"]))
    parts = corpora.first_rows(250)([train], [test])
    assert (len(parts[0]), parts[1]) == (250, {"000000": b"one", "000002": b"two"})
    first, held_out = corpora.held_out_rows(250, of_256=8)([train], [])
    assert not {*first.values()} & {*held_out.values()}
    assert {*first, *held_out} == {f"{n:06d}" for n in range(250)}
    assert 2 <= len(held_out) <= 20
    fewer = corpora.held_out_rows(100, of_256=8)([train], [])[1]
    assert fewer.items() <= held_out.items(), "more documents move no other"


@pytest.fixture
def archive(tmp_path, monkeypatch):
    """A corpus of one zip file at an address, and its content."""
    text = b"one text " * 1000
    content = zipped(tmp_path / "origin.zip", "small", text).read_bytes()
    known = corpora.Published(
        "http://there/small.zip", hashlib.sha256(text).hexdigest(), ("small.zip",), (), corpora.hundred_million
    )
    monkeypatch.setitem(CORPORA, "small", known)
    return content


@pytest.mark.parametrize("fault", ["", "cut short", "other text", "no network", "no HTTP"])
def test_an_archive_is_known_by_what_it_holds(tmp_path, monkeypatch, archive, fault):
    answers = {
        "": archive, "cut short": archive[:-30], "other text": zipped(tmp_path / "o.zip", "small", b"two").read_bytes(),
    }  # fmt: skip

    @contextlib.contextmanager
    def answer(address, timeout):
        if fault.startswith("no"):
            raise OSError("no route to host") if fault == "no network" else http.client.BadStatusLine("SSH-2.0")
        yield io.BytesIO(answers[fault])

    monkeypatch.setattr(fetching.urllib.request, "urlopen", answer)
    folder = tmp_path / "small"
    if not fault:
        fetch("small", folder)
        check_fetched("small", folder)
        return
    told = {"cut short": "no whole zip file", "other text": "came with SHA-256", "no network": "expected a network"}
    told["no HTTP"] = told["no network"]
    assert told[fault] in refusal(fetch, "small", folder)
    assert [*folder.glob("*.zip")] == [], "or it would be taken for fetched"
    assert "make corpus NAME=small" in refusal(check_fetched, "small", folder)
    (folder / "small.zip").write_bytes(b"somebody's")
    if fault == "no network":
        assert told[fault] in refusal(fetch, "small", folder)
        assert (folder / "small.zip").read_bytes() == b"somebody's", "what came from elsewhere stays"


def test_a_corpus_that_is_whole_needs_no_network(tmp_path, monkeypatch, archive):
    answers = [contextlib.nullcontext(io.BytesIO(archive))]
    monkeypatch.setattr(fetching.urllib.request, "urlopen", lambda address, timeout: answers.pop())
    fetch("small", tmp_path / "small")
    fetch("small", tmp_path / "small")  # nobody answers
    check_fetched("small", tmp_path / "small")


@pytest.mark.slow
def test_a_sweep_on_a_corpus_with_longer_tokens(hub, tmp_path):
    assert run(tmp_path, "extrap.sweep.corpus", NAME, address=hub.address).returncode == 0
    few = [
        "experiment=smoke", "name=c", "data=corpus", f"data.name={NAME}", "data.bpe=300", "position=rope", "seed=0",
        "objective=causal", "train.train_len=16", "train.max_steps=5", "eval.n_segments=4", "eval.extensions=[none]",
    ]  # fmt: skip
    done = run(tmp_path, "extrap", *few)
    assert done.returncode == 0, done.stderr
    rows = load_rows(tmp_path / "results" / "c" / "rows.csv")
    assert {*rows["data"]} == {f"{NAME}(bpe=300)"}
    assert (rows["n_bytes"] > rows["n_tokens"]).all()
    assert {*rows["document"]} == {"00000 Heron", "00001 Osprey"}
    assert f"causal on {NAME}(bpe=300), training length 16" in (tmp_path / "results" / "c" / "table.md").read_text()
    assert run(tmp_path, "extrap", *few).returncode == 0, "finished, and not made again"
