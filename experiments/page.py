"""The page of all reports, with published claims and the figures of papers. Imports no torch."""

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from experiments.claims.claim import CONFIRMED, OUT_OF_SCOPE, REFUTED, UNDECIDED
from experiments.claims.page import bound, of_papers, with_interval
from experiments.claims.registry import CLAIMS
from experiments.papers.chi2022_kernels import LOWEST
from experiments.papers.overlay import OURS
from extrap.files import write_atomic
from extrap.report.looks import looks_of
from extrap.report.page.data import experiment
from extrap.report.page.html import page
from extrap.report.page.palette import key
from extrap.report.report import AT_BEST
from extrap.report.typesetting import name
from extrap.sweep.door import end_with_parent

SCRIPT = Path(__file__).with_suffix(".js")
FIRST = "main"  # of the experiments on the page
# columns of a paper's figure: the first that is there is drawn along an axis; panels and lines differ in the others
ACROSS, UP = ("x", "step", "n"), ("value", "loss", "bias")
PANELS = ("panel", "objective", "protocol", "alibi_train_len", "data", "over")
LINES = ("train_len", "seed", "head")
DASHED = "5 3"  # what is published
ENDLESS = 1e9  # stands for infinity, which JSON lacks: far beyond any axis
LOG = 3  # a vertical axis that spans more than this factor is one of logarithms


def on_page(results: Path) -> list[Path]:
    """Every folder below results/ that holds rows, that of FIRST before all others; but no sweep beside whose report stands
    one of each scheme at its best value."""
    folders = [path.parent for path in results.glob("*/rows.csv")]
    chosen_from = {folder.name.partition(AT_BEST)[0] for folder in folders if AT_BEST in folder.name}
    shown = (folder for folder in folders if folder.name not in chosen_from)
    return sorted(shown, key=lambda folder: (folder.name != FIRST, folder.name))


def write_page(results: Path, folders: Sequence[Path]) -> list[Path]:
    """results/page.html, of these reports and of what claims/ and papers/ hold beside them; returns its path."""
    with ProcessPoolExecutor(mp_context=get_context("spawn"), initializer=end_with_parent) as pool:
        experiments = list(pool.map(experiment, folders))
    figures = [paper(path) for path in sorted((results / "papers").glob("*.csv"))]
    colors = {line["color"] for figure in figures for line in figure["lines"]}
    more = {
        "papers": figures, "claims": claims(results / "claims"), "verdicts": [CONFIRMED, REFUTED, UNDECIDED, OUT_OF_SCOPE],
    }  # fmt: skip
    markers = {line["marker"] for figure in figures for line in figure["lines"]}
    write_atomic(results / "page.html", page(experiments, more, [SCRIPT], colors, markers))
    return [results / "page.html"]


def claims(folder: Path) -> dict[str, Any]:
    """Of every claim and place the verdict and the part that it hangs on, and where effect and published numbers lie on the
    side of the claim of its threshold."""
    if not (folder / "parts.csv").exists():
        return {"lines": [], "csv": ""}
    table = pd.read_csv(folder / "parts.csv", dtype={"reason": str})
    by_id, lines = {claim.id: claim for claim in CLAIMS}, []
    for line in (row for _, row in table[table["deciding"]].iterrows() if row["id"] in by_id):
        claim, asked = by_id[line["id"]], line["verdict"] != OUT_OF_SCOPE
        told = {"id": claim.id, "title": claim.words["title"], "statement": claim.words["statement"],
                "source": claim.words["source"], "place": line["place"], "verdict": line["verdict"]}  # fmt: skip
        if asked:
            margin = claim.parts[int(line["part"])].margin
            values = {"effect": line["effect"], "published": line["published"]}
            told |= {"quantity": line["quantity"], "bound": bound(line), "effect": with_interval(line),
                     "published": of_papers(line),
                     **{end: plain(np.clip(line[end], -ENDLESS, ENDLESS)) for end in ("near", "far")},
                     "experiment": line["experiment"], "confidence": line["confidence"], "n_seeds": int(line["n_seeds"]),
                     "at": {what: plain(margin(value)) for what, value in values.items() if np.isfinite(value)}}  # fmt: skip
        else:
            told["reason"] = line["reason"]
        lines.append(told)
    return {"lines": lines, "csv": (folder / "claims.csv").read_text(encoding="utf-8")}


def paper(path: Path) -> dict[str, Any]:
    """A figure of a paper: its title, what was expected, and its lines, ours and the published ones."""
    points = pd.read_csv(path)
    heading, _, rest = path.with_suffix(".md").read_text(encoding="utf-8").partition("\n")
    paragraphs = rest.split("\n\n")
    expected = next(i for i, part in enumerate(paragraphs) if part.startswith("Expected"))
    across = next((column for column in ACROSS if column in points), None)
    up = next(column for column in UP if column in points)
    panels, apart = ([column for column in columns if len({*points.get(column, ())}) > 1]
                     for columns in (PANELS, LINES))  # fmt: skip
    panels = [column for column in panels if column != "over" or "scheme" in points]
    papers = {*points["source"]} - {OURS}
    schemes = points["scheme"] if "scheme" in points else points["over"]
    points = points.assign(scheme=schemes, extension=points.get("extension", pd.Series("none", points.index)).fillna("none"))
    own = ["source", "scheme", "extension", *apart]
    looks, lines = looks_of(schemes), []
    for of, part in points.groupby([*panels, *own], sort=False, dropna=False):
        at = dict(zip([*panels, *own], of, strict=True))
        published, called = at["source"] != OURS, "published" if len(papers) == 1 else f"published, {at['source']}"
        label = [name(at["scheme"], at["extension"]), *(f"{column} {at[column]:g}" for column in apart)]
        columns = [
            part[column] if column in part else pd.Series(np.nan, part.index) for column in ("low", "high", "n_seeds")
        ]
        x = part[across] if across else pd.Series(1.0, part.index)
        look = looks[at["scheme"]]
        lines.append({
            "panel": ", ".join(f"{column} {at[column]}" if at[column] == at[column] else "as it is" for column in panels),
            "source": at["source"],
            "name": ", ".join([*label, *([called] if published else [])]), "color": key(look["color"]),
            "marker": look["marker"], "dash": DASHED if published else "", "hollow": published or at["extension"] != "none",
            "points": sorted([[plain(value) for value in one] for one in zip(x, part[up], *columns, strict=True)]),
        })  # fmt: skip
    words = {"expected": _plain(paragraphs[expected]), "drawn": _plain(paragraphs[expected + 1])}
    told = {"name": path.stem, "title": heading.lstrip("# "), **words, "lines": lines}
    positive = (points[up] > 0).all() and points[up].max() > LOG * points[up].min()
    return told | {"across": across, "up": up, "log": bool(positive), "least": LOWEST if up == "bias" else None}


def _plain(markdown: str) -> str:
    """A paragraph on one line; nothing where a table stands in its place."""
    return "" if markdown.startswith("|") else " ".join(markdown.split())


def plain(value: float) -> float | None:
    return None if pd.isna(value) else float(f"{value:.6g}")
