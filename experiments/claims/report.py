"""Everything in results/claims/, from the tables of all experiments. Imports no torch."""

from pathlib import Path

from experiments.claims.figure import board
from experiments.claims.page import page
from experiments.claims.published import load_published
from experiments.claims.verdicts import shown, verdicts
from extrap.files import write_atomic
from extrap.report.drawing import save_figure
from extrap.results.rows import save_table


def write_claims(results: Path) -> list[Path]:
    """The page, the board with the verdicts that it shows, and every part of them; returns what was written."""
    published = load_published()
    table = verdicts(results, published)
    folder = results / "claims"
    folder.mkdir(exist_ok=True)
    save_table(folder / "parts.csv", table)
    write_atomic(folder / "claims.md", page(table, published))
    return [folder / "claims.md", folder / "parts.csv", *save_figure(board(table), shown(table), folder / "claims")]
