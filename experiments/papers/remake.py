"""Figures of papers, remade from tracked rows: found in experiments/papers, drawn and captioned. Imports no torch."""

import importlib
import inspect
import pkgutil
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType

import pandas as pd
import yaml
from matplotlib.figure import Figure

from experiments import papers
from experiments.claims.evidence import Missing
from experiments.claims.published import load_published
from experiments.papers.chi2022_kernels import load_kernels
from experiments.papers.overlay import OURS, trained
from experiments.speed.timings import load_timings
from extrap.errors import UserError, nearest
from extrap.files import write_atomic
from extrap.report.drawing import save_figure, style
from extrap.report.typesetting import OPTIMIZERS, model_size
from extrap.results.rows import GROUP, RUNS, load_costs, load_rows, load_training, scored


def load_one_setting(path: Path) -> pd.DataFrame:
    """Scored rows that may be averaged over within an objective. Raises UserError for those of several trainings."""
    return _of_one_setting(scored(load_rows(path)), path)


def load_one_training(path: Path) -> pd.DataFrame:
    """Losses by step, likewise."""
    return _of_one_setting(load_training(path), path)


def _of_one_setting(rows: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Raises UserError where rows are of several objectives, texts, settings, ...; a generator is of its discriminator's."""
    trained_for = rows["objective"].str.partition("_")[0]  # electra_generator is a part of electra
    if len(found := rows[GROUP].assign(objective=trained_for).drop_duplicates()) > 1:
        told = " and ".join(" ".join(map(str, of)).strip() for of in found.head(2).itertuples(index=False, name=None))
        raise UserError(
            f"{path} holds {len(found)} settings ({told}, ...), expected rows of one; nothing is averaged over them"
        )
    return rows


LOADERS: dict[str, Callable[[Path], pd.DataFrame]] = {
    "rows.csv": load_one_setting,
    "training.csv": load_one_training,
    "timings.csv": load_timings,
    "kernels.csv": load_kernels,
}
COMMANDS = {"timings.csv": "make bench-all", "kernels.csv": "make kernels"}  # of tables that no sweep writes
# scale -> what the names of an experiment's larger sibling and of its figure end in
SCALES = {"": "", "gpu": "_gpu"}


def paper_figures() -> dict[str, ModuleType]:
    """Every figure by its name."""
    names = sorted(module.name for module in pkgutil.iter_modules(papers.__path__))
    return {name: importlib.import_module(f"{papers.__name__}.{name}") for name in names if re.match(r"[a-z]+\d{4}_", name)}


def chosen(name: str | None) -> dict[str, ModuleType]:
    """The figure of this name, or all. Raises UserError."""
    found = paper_figures()
    if name and name not in found:
        raise UserError(f"FIGURE={name}: no such figure; {nearest(name, list(found))}")
    return {name: found[name]} if name else found


def needed(one: ModuleType, scale: str) -> list[Path]:
    """The tables below results/."""
    return [Path(f"{need.parent}{scale}", need.name) for need in map(Path, one.NEEDS)]


def needed_experiments(name: str | None, scale: str) -> list[str]:
    """The experiments to run, each once; measurements of speed are none."""
    needs = [need for one in chosen(name).values() for need in needed(one, scale)]
    return list(dict.fromkeys(str(need.parent) for need in needs if need.name != "timings.csv"))


def draw_papers(results: Path, name: str | None = None) -> list[str]:
    """Draws every figure whose tables are there; a line for each file, and for each figure that has to wait."""
    published, told = load_published(), []
    for figure_name, one in chosen(name).items():
        for scale in SCALES.values():
            try:
                tables = {need.parent.name: load(results / need, one.HOLDS) for need in needed(one, scale)}
            except Missing as missing:
                if not scale:
                    told.append(f"not drawn yet: {figure_name}: {missing}")
                continue
            path = results / "papers" / f"{figure_name}{scale}"
            path.parent.mkdir(exist_ok=True)
            figure, points = draw(one, tables.values(), published)
            facts = {experiment: facts_of(results / experiment, rows, one.HOLDS) for experiment, rows in tables.items()}
            written = save_figure(figure, points, path)
            write_atomic(path.with_suffix(".md"), caption(one, scale, facts, points))
            told += map(str, [*written, path.with_suffix(".md")])
    return told


def draw(one: ModuleType, tables: Iterable[pd.DataFrame], published: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    """A figure and the points that it shows."""
    with style():
        figure, points = one.figure(pd.concat(tables, ignore_index=True), published)
    return figure, points


def load(path: Path, holds: dict[str, tuple[str, ...]]) -> pd.DataFrame:
    """A table. Raises Missing with the command that makes it, where it is not there or does not hold all of these."""
    command = COMMANDS.get(path.name, f"make sweep EXPERIMENT={path.parent.name}")
    for file in (path, path.with_name("provenance.yaml")):
        if not file.exists():
            raise Missing(f"{file} does not exist; `{command}` writes it")
    rows = LOADERS[path.name](path)
    for column, wanted in holds.items():
        if absent := [value for value in wanted if value not in set(rows[column])]:
            raise Missing(f"{path} holds no {column} {', '.join(absent)}; `{command}` makes it")
    return rows


def facts_of(folder: Path, rows: pd.DataFrame, holds: dict[str, tuple[str, ...]]) -> dict[str, str]:
    """What an experiment trained on, and scored of what a figure holds, in the words of the table of differences.

    Raises UserError where an option varies."""
    told = yaml.safe_load((folder / "provenance.yaml").read_text())
    if "config" not in told:  # measurements of speed
        steps = rows[(rows["case"] == "training") & (rows["name"] == "extrap")].iloc[0]
        return {
            "machine": f"{steps['machine']}, {steps['threads']} threads",
            "a token": "byte",
            "model": f"{steps['params'] / 1e6:.1f} M parameters",
            "training": f"steps of {steps['tokens']:,} tokens in sequences of {steps['n']:,}",
        }
    config = told["config"]
    if vary := config.get("vary"):  # the config is without what varies, whichever of it has rows
        raise UserError(f"{folder} is of a sweep that varies {', '.join(vary)}; expected one in which no option varies")
    model, train, data = (config[part] for part in ("model", "train", "data"))
    tokens = train["max_steps"] * train["batch_size"] * train["train_len"]
    sizes = {*load_costs(folder / RUNS)["parameters"].dropna().astype(int)}
    size = f", {data['train_bytes'] / 1e6:.1f} million bytes" if "train_bytes" in data else ""
    scored = [
        f"{len(part[['document', 'segment']].drop_duplicates())} held-out segments, in windows of up to "
        f"{part['eval_len'].max():,} tokens ({protocol})"
        for protocol, part in rows.groupby("protocol", sort=False) if protocol in holds.get("protocol", ())
    ] if "protocol" in rows else []  # fmt: skip
    return {
        "data": rows["data"].iloc[0] + size,
        "a token": "BPE" if data.get("bpe") else "byte" if size else "symbol",
        "model": f"{model['n_layers']} layers, width {model['d_model']:,}, {model['n_heads']} heads"
        + (f", {model_size(sizes)}" if sizes else ""),
        "training": f"{tokens:,} tokens: {train['max_steps']:,} steps of {train['batch_size']} x {train['train_len']:,}, "
        + OPTIMIZERS[train["optimizer"]],
        "training length": f"{train['train_len']:,}",
        "seeds": str(trained(rows)["seed"].nunique()),
        **({"scored": "; ".join(scored)} if scored else {}),
    }


def caption(one: ModuleType, scale: str, facts: dict[str, dict[str, str]], points: pd.DataFrame) -> str:
    """Markdown: the figure, the docstring of its module without the command, its own table if it has one, what differs."""
    name = one.__name__.rpartition(".")[2] + scale
    title, *paragraphs, command = (inspect.getdoc(one) or "").split("\n\n")
    lines = dict.fromkeys(fact for told in (*facts.values(), one.PAPER) for fact in told)
    columns = {"the paper": one.PAPER, **{f"ours: {experiment}": told for experiment, told in facts.items()}}
    table = pd.DataFrame(columns, index=list(lines)).fillna("–")
    counts = points["source"].value_counts()
    published = ", ".join(f"{n} from {source}" for source, n in counts.drop(OURS, errors="ignore").items()) or "none"
    shown = [one.table(points)] if hasattr(one, "table") else []
    drawn = f"Plotted: {counts.get(OURS, 0)} values of ours; published: {published}. All values: [{name}.csv]({name}.csv)."
    again = f"    {command}" + scale.replace("_", " SCALE=")
    parts = [f"# {title.rstrip('.')}", f"![{title}]({name}.png)", *paragraphs, *shown, table.to_markdown(), drawn, again]
    return "\n\n".join(parts) + "\n"
