"""All that refuses the grid of a sweep, before anything is trained."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from tempfile import TemporaryFile

import torch
from tqdm import tqdm

from extrap.config.choices import Optimizer, Output
from extrap.config.schema import Config
from extrap.data.cloze import MOST_TOKENS
from extrap.data.documents import Documents
from extrap.errors import UserError, nearest, one_line, raised_in
from extrap.extensions.base import extensions_of
from extrap.model.encoder import n_parameters, without_memory
from extrap.objectives import Electra, Mlm, Rtd
from extrap.positions.base import PositionScheme
from extrap.results.folders import from_outside, refuse_mixed
from extrap.results.provenance import refuse_to_lose
from extrap.runs.prepare import Run, build_scheme, geometry, prepare_all
from extrap.score.protocols import PROTOCOLS
from extrap.score.reads import is_out_of_memory
from extrap.testing.case import VOCAB, encoder_with, read
from extrap.testing.promises import check_extensions, check_scheme
from extrap.train import distributed
from extrap.train.device import physical_memory, pick_device


def prepare_grid(configs: list[Config]) -> list[Run]:
    """All runs, each of them checked. Raises UserError for the first thing that is wrong anywhere."""
    _check_names(configs)
    runs = prepare_all(configs)
    _refuse_other_tokens(runs)
    _refuse_unread(runs)
    for run in runs:
        _check(run)
    _check_schemes(runs)
    refuse_mixed(configs[0].folder.parent, {run.config.run: run.identity for run in runs})
    refuse_to_lose(configs[0].results, {(run.config.scheme, run.config.run): run.identity for run in runs})
    _check_disk(runs)
    for folder in (configs[0].results, configs[0].folder.parent):  # the system's own error tells where it cannot be written
        folder.mkdir(parents=True, exist_ok=True)
        TemporaryFile(dir=folder).close()
    return runs


def _refuse_other_tokens(runs: list[Run]) -> None:
    """One report, one vocabulary of text: a loss per token, or per masked token, says nothing beside one of other tokens.

    Nor do bits per byte as long as segments are cut by tokens: they would be of other bytes.
    """
    texts = [run for run in runs if isinstance(run.source, Documents)]
    found = {run.identity["data"].get("tokenizer_sha256"): run.config.data.get("bpe", 0) for run in texts}
    if len(found) > 1:
        told = ", ".join(map(str, found.values()))
        raise UserError(
            f"data.bpe: expected one vocabulary in a sweep, found {len(found)} (data.bpe={told}; other text makes another): "
            "losses per token are not comparable across them, and other bytes are scored; give each another name=..."
        )


def _decays(run: Run) -> bool:
    """Muon decays nothing; of what it leaves to AdamW, an untied output and maps between two networks are decayed."""
    untied = run.config.model.output is Output.untied
    return run.config.train.optimizer is not Optimizer.muon or untied or isinstance(run.objective, Electra)


READ_BY: dict[str, tuple[str, Callable[[Run], bool]]] = {  # options that not every run reads
    "train.mask_rate": ("objective=mlm", lambda run: isinstance(run.objective, Mlm)),
    "train.muon_ratio": ("train.optimizer=muon", lambda run: run.config.train.optimizer is Optimizer.muon),
    "train.weight_decay": ("train.optimizer=adamw or model.output=untied", _decays),
}


def _refuse_unread(runs: list[Run]) -> None:
    """Settings that differ in nothing but their names would be compared."""
    for option, (reader, reads) in READ_BY.items():
        unread = [run for run in runs if option in run.config.vary and not reads(run)]
        if len({getattr(run.config.train, option.removeprefix("train.")) for run in unread}) > 1:
            who = f"{len(unread)} of {len(runs)} runs do not read it, as {unread[0].config.run}"
            raise UserError(f"{option}: {who}; expected {reader}, or one value for these")


def _different(runs: list[Run]) -> list[Run]:
    """One of all that agree in everything a scheme is made from, and in what it is asked beyond the training length."""
    seen = dict[str, Run]()
    for run in runs:
        config = run.config
        sizes = geometry(config, run.objective.causal)
        seen[repr((config.position, sizes, max(config.eval.lengths), config.eval.extensions))] = run
    return list(seen.values())


def _check_names(configs: list[Config]) -> None:
    seen: dict[str, Config] = {}
    for config in configs:
        if config.results != configs[0].results:
            raise UserError(
                "a sweep has one report: expected one name and runtime.results_dir for all its runs, found "
                f"{configs[0].results} and {config.results}"
            )
        other = seen.setdefault(config.run, config)
        if other is not config:
            raise UserError(
                f"two runs of this sweep would share the run folder {config.folder}: nothing that rows would show tells "
                "them apart; give each value once, or a sweep of its own, with another name=..."
            )


def _check(run: Run) -> None:
    config, objective = run.config, run.objective
    for protocol in config.eval.protocols:
        if protocol not in PROTOCOLS:
            raise UserError(f"eval.protocols: no protocol {protocol}; {nearest(protocol, PROTOCOLS)}")
    if "pseudo" in config.eval.protocols and not isinstance(objective, Mlm):
        raise UserError("eval.protocols: pseudo masks tokens one at a time; expected objective=mlm, found another")
    if isinstance(objective, Rtd) and run.source.vocab_size > MOST_TOKENS:
        raise UserError(
            f"data.bpe: expected at most {MOST_TOKENS:,} tokens with objective=rtd or electra, which count what stands "
            f"between each two, found {run.source.vocab_size:,}"
        )
    if config.model.output is not Output.untied and isinstance(objective, Rtd):
        raise UserError(
            "model.output: expected model.output=untied with objective=rtd or electra, which predict no tokens, "
            f"found {config.model.output.value}"
        )
    longest, train_len = max(config.eval.lengths), config.train.train_len
    if "position" in config.eval.protocols and not objective.causal and longest < 2 * train_len:
        raise UserError(
            "eval.multiples, eval.lengths: the protocol position counts tokens from the nearer end of the longest input; to "
            f"reach the training length expected at least 2 * train.train_len={2 * train_len} tokens among them, "
            f"found {config.eval.lengths}"
        )
    extensions_of(config.eval.extensions)  # which refuse what they cannot be
    if "same_targets" in config.eval.protocols:
        windows = PROTOCOLS["same_targets"](config.eval, train_len, objective.causal)[longest]
        n_targets = sum(window.score_stop - window.score_start for window in windows)
        if (n_scored := objective.scored_share * n_targets * config.eval.n_segments) < 10:
            raise UserError(
                f"eval.n_targets: {n_targets} targets in each of {config.eval.n_segments} segments come to about "
                f"{n_scored:.0f} scored tokens, expected at least 10: raise eval.n_targets or eval.n_segments"
            )
    if config.train.batch_size < distributed.n_processes():
        raise UserError(
            f"train.batch_size: expected at least one sequence a process, found {config.train.batch_size} for "
            f"{distributed.n_processes()} processes; start fewer"
        )
    _check_memory(run)
    run.folder.refuse_other_config(run.identity)
    run.folder.refuse_damage()


def _check_schemes(runs: list[Run]) -> None:
    """Each scheme once, unless all its runs are over."""
    torch.set_num_threads(runs[0].config.runtime.threads)  # tensors are small: with more threads, these wait for each other
    to_check = _different(_with_generators([run for run in runs if not run.folder.is_finished]))
    for run in tqdm(to_check, desc="checking schemes", disable=None, leave=False):
        config, causal = run.config, run.objective.causal
        check_scheme(partial(build_scheme, config, causal), max(config.eval.lengths))
        if from_outside(run.identity):  # the project's own are tested
            _check_longest(build_scheme(config, causal), max(config.eval.lengths))
        if max(config.eval.lengths) > config.train.train_len:
            check_extensions(build_scheme(config, causal), extensions_of(config.eval.extensions))


@torch.no_grad()
def _check_longest(scheme: PositionScheme, longest: int) -> None:
    """Raises UserError for a scheme that fails on the longest input, which is scored when all runs are trained.

    No number is a result, and want of memory is told then.
    """
    n = min(longest, scheme.max_len or longest)
    with torch.random.fork_rng(devices=[]):
        encoder = encoder_with(scheme, scheme.geometry.n_layers)
        try:
            read(encoder, torch.randint(VOCAB, (1, n)))
        except Exception as error:  # whatever somebody's code raises
            if not is_out_of_memory(error):
                raise UserError(
                    f"position: {type(scheme).__name__} fails on {n:,} tokens, the longest input that is scored: "
                    f"{raised_in(type(scheme), error)}; a scheme that ends states its max_len"
                ) from error


def _with_generators(runs: list[Run]) -> list[Run]:
    """And of each with a generator another with that in place of its encoder."""
    found = []
    for run in runs:
        if isinstance(run.objective, Electra):
            small = replace(run.config, model=run.objective.generator(run.config.model))
            found.append(run._replace(config=small))
    return runs + found


def refuse_idle(runs: list[Run]) -> None:
    """Raises UserError for an extension that does nothing for any scheme of the sweep."""
    asked, useful = dict[str, None](), set()
    for config, _, objective, *_ in _different(runs):
        scheme = build_scheme(config, objective.causal)
        for label, extension in extensions_of(config.eval.extensions).items():
            asked[label] = None
            useful |= {label} if extension(scheme, max(config.eval.lengths)) else set()
    if idle := [label for label in asked if label not in useful]:
        named = " or ".join(dict.fromkeys(run.config.scheme for run in runs))
        raise UserError(
            f"eval.extensions: {idle[0]} does not apply to {named}, or changes nothing; leave it out, or add a scheme "
            "that it is for"
        )


def _check_memory(run: Run) -> None:
    """Only what plainly cannot fit is refused: weights and tokens, without all that is computed from them."""
    config, n_params = run.config, _n_params(run)
    on_gpu = pick_device(config.runtime.device).type != "cpu"  # where gradients and the two moments of AdamW are then
    batch, held_out = config.train.batch_size * config.train.train_len, config.eval.n_segments * max(config.eval.lengths)
    memory = physical_memory()
    for option, what, size in (
        ("model", f"{n_params:,} parameters", n_params * (4 if on_gpu else 16)),
        ("train.batch_size", f"batches of {batch:,} tokens", 8 * batch),
        ("eval.n_segments", f"{held_out:,} held-out tokens", 8 * held_out),
    ):
        if size > memory:
            raise UserError(
                f"{option}: {what} take {size / 2**30:,.0f} GiB and more, this machine has {memory / 2**30:,.0f} GiB"
            )


def _n_params(run: Run) -> int:
    """Without the memory for them. Raises UserError for what the scheme refuses."""
    config, _, objective, *_ = run
    try:
        with without_memory():
            scheme = build_scheme(config, objective.causal)
    except UserError as error:
        if not isinstance(error.__cause__, RuntimeError):
            raise
        scheme = build_scheme(config, objective.causal)  # it may look at numbers while it is built
    try:
        return n_parameters(config.model, scheme, *run.n_tokens)
    except RuntimeError as error:  # torch's own of a matrix with more numbers than it can count
        raise UserError(one_line(f"model: {error}")) from error


def _check_disk(runs: list[Run]) -> None:
    """Weights of all runs to come, and of one at least a checkpoint while it replaces the one before."""
    sizes = [4 * _n_params(run) for run in runs if not run.folder.is_finished]
    needed = sum(sizes) + 6 * max(sizes, default=0)
    place = next(folder for folder in runs[0].config.folder.parents if folder.exists())
    disk = shutil.disk_usage(place)
    if disk.free < needed and disk.total:  # what has no size is no disk
        raise UserError(
            f"runtime.results_dir: weights and checkpoints take {needed / 2**20:,.0f} MiB, {place} has "
            f"{disk.free / 2**20:,.0f} MiB free; make room or choose another place"
        )
