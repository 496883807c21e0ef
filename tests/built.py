"""Schemes built as the configs name them, each with the formula that it is checked against."""

import functools
import json
import os
import re
import sysconfig
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import hydra
import pytest
import sweeps
import torch
from filelock import FileLock
from hydra.core.config_store import ConfigStore
from marks import slow
from references.base import formula

from extrap.config import compose, door
from extrap.config.choices import Output
from extrap.config.compose import CONF, compose_grid
from extrap.config.overrides import texts
from extrap.config.schema import ModelConfig
from extrap.data import documents, overlap, text
from extrap.errors import UserError
from extrap.model import attention, decay, relative
from extrap.model.encoder import Encoder
from extrap.model.seed import seed_generators
from extrap.report import drawing, labels
from extrap.runs.prepare import build_scheme
from extrap.train.checkpoint import History, save_checkpoint

torch.set_num_threads(1)

FILES = sorted(file.stem for file in (CONF / "position").glob("*.yaml"))
# one scheme for each way through attention: what holds for these holds for those that are built alike
KINDS = ["nope", "learned", "sinusoidal", "rope", "t5", "fire", "local", "fox", "cope", "mixed", "sinks", "pope", "ssmax"]
# a scheme with other arguments can be wrong where its defaults are right
VARIANTS = ["t5 position.n_buckets=8 position.max_distance=20", "local position.window=3 position@position.inner=alibi"]
MORE = [
    "rope position.base=500.0",
    "sinusoidal position.base=100.0",
    "local position.window=5",
    "local position.window=9 position@position.inner=t5",
    "local position.window=5 position@position.inner=sinusoidal",
    "cable position.form=weighted position.scaled=false",
    "cable position.form=printed",
    "shaw position.clip=3",
    "deberta position.span=4 position.max_distance=7",
    "deberta position.span=6 position.max_distance=null",
    "dape position.kernel_size=3",
    "dape position.kernel_size=3 position@position.inner=alibi",
]


@pytest.fixture(scope="session", autouse=True)
def composed_once():
    """What Hydra composes of the same files it composes once in a process, in 0.1 s; extrap itself keeps nothing."""
    known = {}

    def files():
        if compose.CONF == CONF:  # which no test changes
            return ()
        return tuple((path, path.stat().st_mtime_ns) for path in sorted(compose.CONF.rglob("*.yaml")))

    def composed(config, overrides, return_hydra_config):
        if ConfigStore.instance().repo.get("position"):  # schemes of other files
            return hydra.compose(config, overrides, return_hydra_config)
        if (asked := (os.getcwd(), *files(), *overrides)) not in known:  # Hydra writes down where it is
            known[asked] = hydra.compose(config, overrides, return_hydra_config)
        return known[asked]  # which nobody changes

    @functools.cache
    def told(conf, files):
        return texts(conf)

    with patch.object(door, "compose", composed), patch.object(door, "texts", lambda conf: told(conf, files())):
        yield


@pytest.fixture(scope="session", autouse=True)
def compared_once():
    """The same held-out text is looked up in the same training text once in a process, in 0.1 s."""
    known = {}

    def verbatim(stream, segments):
        asked = hash(stream.tobytes()), hash(b"\n".join(map(bytes, segments))), len(segments)
        if asked not in known:
            known[asked] = overlap.verbatim(stream, segments)
        return known[asked]

    with patch.object(documents, "verbatim", verbatim):
        yield


@pytest.fixture(scope="session", autouse=True)
def read_once():
    """The standard library is read once in a process, in 0.1 s."""
    here, read = Path(sysconfig.get_path("stdlib")), text.stdlib_documents
    kept = functools.cache(read)

    def documents_of(root):
        train, valid = kept(root) if root == here else read(root)
        return dict(train), dict(valid)

    with patch.object(text, "stdlib_documents", documents_of):
        yield


@pytest.fixture(autouse=True)
def seeded():
    seed_generators(0)


@pytest.fixture(params=FILES + VARIANTS + slow(*MORE))
def case(request):
    """Every file of conf/position, and some of them with other arguments: a choice and Hydra overrides."""
    return request.param


@pytest.fixture(params=KINDS + slow(*(file for file in FILES if file not in KINDS), *VARIANTS, *MORE))
def kind(request):
    """The same, of which one of a kind is quick: the quick suite must not grow with every scheme."""
    return request.param


@pytest.fixture(params=[True, False], ids=["causal", "encoder"])
def causal(request):
    return request.param


@pytest.fixture
def svg_alone(monkeypatch):
    """For tests of what stands in a report: its figures in one of their formats."""
    monkeypatch.setattr(drawing, "FORMATS", {"svg": drawing.FORMATS["svg"]})


@pytest.fixture
def undrawn(monkeypatch):
    """For tests of what stands in tables: figures are made, but neither laid out nor written."""
    monkeypatch.setattr(drawing, "FORMATS", {})
    for module, name in ((drawing, "settle"), (labels, "settle"), (labels, "lay_out")):
        monkeypatch.setattr(module, name, lambda figure: None)


@pytest.fixture
def small(monkeypatch):
    """Several chunks, and both sides of the longest dense input, at lengths that a test can afford."""
    monkeypatch.setattr(attention, "CHUNK", 8)
    monkeypatch.setattr(attention, "DENSE_MAX", 16)
    monkeypatch.setattr(relative, "BLOCK", 8)
    monkeypatch.setattr(relative, "NEIGHBOURS", 2)
    monkeypatch.setattr(decay, "BLOCK", 8)
    monkeypatch.setattr(relative, "WHOLE", 16)


@functools.cache
def composed(case):
    choice, *overrides = case.split()
    return compose_grid(["experiment=smoke", "seed=0", f"position={choice}", *overrides])[0]


@pytest.fixture(scope="session")
def scheme_of():
    """(case, causal, sizes) -> the scheme, with tables that are not zero."""

    def build(case, causal, n_heads=4, head_dim=8, train_len=16):
        config = composed(case)
        config = replace(
            config,
            model=replace(config.model, d_model=n_heads * head_dim, n_layers=2, n_heads=n_heads),
            train=replace(config.train, train_len=train_len),
            eval=replace(config.eval, protocols=["nonoverlap"], lengths=[train_len], n_targets=1),
        )
        try:
            scheme = build_scheme(config, causal)
        except UserError as error:
            if not re.search("for (causal models|encoders) alone", str(error)):
                raise
            pytest.skip(str(error))
        for parameter in scheme.parameters():
            if not parameter.any():  # zeros would hide whatever is done with them
                torch.nn.init.normal_(parameter)
        return scheme

    return build


@pytest.fixture(scope="session")
def reference_of():
    """(case, scheme) -> the formula, with the scheme's arguments and tables, or one for each layer."""

    return lambda case, scheme: formula(composed(case).position, scheme)


@pytest.fixture(scope="session")
def encoder_of():
    """scheme -> a small encoder, its other weights the same for every scheme."""

    def build(scheme, vocab_size=11):
        geometry = scheme.geometry
        sizes = geometry.d_model, geometry.n_layers, geometry.n_heads
        config = ModelConfig(*sizes, d_ff=32, dropout=0.0, output=Output.untied)
        seed_generators(0)
        return Encoder(config, scheme, vocab_size, vocab_size)

    return build


@pytest.fixture(scope="session")
def swept(tmp_path_factory) -> Path:
    """The results of a sweep that nothing happened to, and its stdout; one for all processes that run tests."""
    place = tmp_path_factory.getbasetemp()
    results = (place.parent if "PYTEST_XDIST_WORKER" in os.environ else place) / "swept"
    with FileLock(results.with_suffix(".lock")):
        if not (results / "stdout.txt").exists():
            done = sweeps.run(results)
            assert (done.returncode, done.stderr) == (0, "")
            (results / "stdout.txt").write_text(done.stdout)
    return results


def save_weights(run, encoder):
    """As its training does at the end."""
    of = json.dumps(run.identity, sort_keys=True)
    save_checkpoint(run.folder.weights, {"model": encoder.state_dict()}, History(1.0, [], 1), torch.device("cpu"), of)
