"""A report: rows, tables, figures and verdicts of one sweep or of several, written as a whole or not at all."""

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from textwrap import wrap

from extrap.errors import UserError
from extrap.files import locked, write_atomic
from extrap.report.about import scored_text
from extrap.report.answer import WIDTH, answer
from extrap.report.budget import budget_page
from extrap.report.choice import choice_page
from extrap.report.costs import costs_page
from extrap.report.extensions import extensions_page
from extrap.report.figures import draw
from extrap.report.latex import write_latex
from extrap.report.output import output_page
from extrap.report.overview import overview_page
from extrap.report.page.html import page_of
from extrap.report.pairs import pairs_table
from extrap.report.probes import gather_probes, write_probes
from extrap.report.tables import csv_table, markdown_table
from extrap.report.typesetting import model_size
from extrap.results.folders import evaluated
from extrap.results.provenance import Gathered, gathered, join, load_gathered, save_gathered, told_of_some, with_kept
from extrap.results.rows import RUNS, scored
from extrap.results.shown import save_table
from extrap.stats.choice import best_over, one_for_all
from extrap.stats.perplexity import refuse_other_targets
from extrap.stats.statistics import Statistics
from extrap.stats.written import load

# tables and figures that a report makes of its rows, where they hold such
OF_ROWS = re.compile(
    r"(table|pairs|extrapolates|extensions|overview|stability|budget|outputs?|interactions|costs|perplexity|families"
    r"|trade_off|controls|floor|position)(_\w+)?\.(csv|md|tex|png|pdf|svg)"
)
AT_BEST = "+best-"  # between the name of a sweep and the option that each scheme has at its best


def gather(results: Path, name: str, command: str, table: str = "") -> None:
    """Writes results/<name>/ from the evaluated runs and prints the answer; `command` is recorded as what made
    them where no sweep has told what did."""
    folder, runs = results / name, results / "runs" / name
    evaluated(runs)  # or there is no folder to lock
    with alone(folder):
        here = gathered(runs, command)
        if not (here.rows["kind"] == "scheme").any():
            reasons = ", ".join(sorted(set(here.missing["reason"])))
            why = f"({reasons}); a lower train.lr may help" if reasons else "yet; make status shows how far they are"
            raise UserError(f"{runs}: no run has rows {why}")
        found, stay = with_kept(folder, runs, here)
        write_whole(folder, found, table)
        if gather_probes(folder, runs):
            page_again(folder)
    if stay:
        some = f"{', '.join(stay[:4])}{f', ... ({len(stay)} in all)' if len(stay) > 4 else ''}"
        told = f"kept from the earlier report, not made by these runs (provenance.yaml says what made them): {some}"
        print(*wrap(told, WIDTH), sep="\n")


def gather_several(results: Path, names: list[str], table: str = "") -> None:
    """Writes results/<name>+<name>/ from the reports of these names, which stay as they are, and prints the answer."""
    command = f"python -m experiments.report gather {' '.join(names)}"
    found = join([results / name for name in names], command)
    refuse_other_targets(scored(found.rows))
    with alone(folder := results / "+".join(names)):
        write_whole(folder, found, table)


def gather_best(results: Path, name: str, option: str, table: str = "") -> None:
    """Writes results/<name>+best-<option>/ from the report of this name: each scheme at its best value of the option."""
    rows, missing, training, costs, told = load_gathered(results / name)
    vary = told["config"].get("vary", [])
    best = best_over(rows, missing, training, option, vary)
    best = replace(best, one_for_all=one_for_all(rows, missing, option, vary, best))
    command = f"python -m experiments.report gather {name} --best {option}"
    made_by = told_of_some(told, best.rows) | {"command": command}
    if "kept" not in made_by:  # whose parts tell theirs
        made_by["chosen_from"] = told["command"]
    folder = results / f"{name}{AT_BEST}{option.rpartition('.')[2]}"
    with alone(folder):
        write_whole(folder, Gathered(best.rows, best.missing, best.training, costs, made_by), table, best)


def write_whole(folder: Path, of: Gathered, table: str, best: Statistics | None = None) -> None:
    """All files of a report, or none where one of them cannot be made; prints the answer, and what was written."""
    with all_or_nothing(folder) as draft:
        save_gathered(draft, of)
        if best is not None:
            save_table(draft / "choice.csv", best.choice)
            save_table(draft / "one_for_all.csv", best.one_for_all)
        found = replace(load(draft), training=of.training)
        write_report(found, draft, table)
        write_atomic(draft / "page.html", page_of(draft, folder.name))
        written = "  ".join(sorted(path.name for path in draft.iterdir()))
    print(f"\n{answer(found)}\n\nwritten: {folder}")
    print(*wrap(written, WIDTH, initial_indent="  ", subsequent_indent="  "), sep="\n")


def alone(folder: Path) -> AbstractContextManager[None]:
    """While no other process writes this report: a sweep, `make report` and `make figures` may come at once."""
    return locked(folder.parent / "runs" / folder.name / "locks" / "report.lock", seconds=600)


@contextmanager
def all_or_nothing(folder: Path) -> Iterator[Path]:
    """A place to write to: at the end its files replace those of the folder, after an error none of them does.

    What else there is made of rows is removed then: it shows other rows. Of one process at a time (`alone`).
    """
    folder.mkdir(exist_ok=True)
    for left in folder.glob(".draft-*"):  # by a report that was killed
        shutil.rmtree(left)
    with TemporaryDirectory(prefix=".draft-", dir=folder) as name:
        yield (draft := Path(name))
        if in_the_way := [folder / path.name for path in draft.iterdir() if (folder / path.name).is_dir()]:
            raise UserError(f"{in_the_way[0]} is a folder, expected a file or nothing; move it away")
        others = {path.name for path in folder.iterdir() if OF_ROWS.fullmatch(path.name)} - {*os.listdir(draft)}
        # runs.csv first: who is killed after it leaves rows whose runs it lists
        for path in sorted(draft.iterdir(), key=lambda path: (path.name != RUNS, path.name)):
            path.replace(folder / path.name)
        for other in others:
            (folder / other).unlink()


def write_report(found: Statistics, folder: Path, table: str = "") -> None:
    """Tables, pages, figures; `table` says what the narrow table of LaTeX shows (see choose in extrap/report/latex.py)."""
    told = f"\n{scored_text(found.rows, found.held_out)}\n"
    told += f"\nModels of {model_size(found.sizes)}.\n" if found.sizes else ""
    tables = {"table.csv": csv_table(found), "pairs.csv": found.pairs, "extrapolates.csv": found.extrapolates}
    tables |= {"stability.csv": found.stability, "outputs.csv": found.outputs, "interactions.csv": found.interactions}
    for name, lines in tables.items():
        if len(lines):  # a single scheme is compared with nobody
            save_table(folder / name, lines)
    write_atomic(folder / "table.md", markdown_table(found) + told)
    if len(found.pairs) or len(found.extrapolates):
        write_atomic(folder / "pairs.md", pairs_table(found) + told)
    if len(found.extended):
        save_table(folder / "extensions.csv", found.extended)
        write_atomic(folder / "extensions.md", extensions_page(found) + told)
    if found.yardsticks:
        write_atomic(folder / "overview.md", overview_page(found) + told)
    if len(found.choice):
        write_atomic(folder / "choice.md", choice_page(found) + told)
    if len(found.stability):
        write_atomic(folder / "budget.md", budget_page(found) + told)
    if len(found.outputs):
        write_atomic(folder / "output.md", output_page(found) + told)
    if len(found.costs_and_quality):
        write_atomic(folder / "costs.md", costs_page(found))
    write_latex(folder, found, table)
    draw(found, folder)


def report_again(folder: Path) -> list[Path]:
    """All that follows from the rows of a folder, written once more; returns what was."""
    with alone(folder), all_or_nothing(folder) as draft:
        write_report(load(folder), draft)
        written = sorted(path.name for path in draft.iterdir())
    return [*(folder / name for name in written), *write_probes(folder), *page_again(folder)]


def page_again(folder: Path) -> list[Path]:
    """The page of a sweep that was made here, so that it does not show what the rows no longer say; tracked is none."""
    page = folder / "page.html"
    if not page.exists():
        return []
    write_atomic(page, page_of(folder, folder.name))
    return [page]
