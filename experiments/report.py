"""Rows -> tables and figures. Imports no torch.

python -m experiments.report gather NAME   from the runs of results/runs/NAME, as a sweep does at its end
python -m experiments.report gather A B    results/A+B/: the rows of several reports in one
python -m experiments.report gather NAME --best train.lr   results/NAME+best-lr/: each scheme at its best learning rate
python -m experiments.report draw          everything below results/ again, from its tracked rows
python -m experiments.report claims        results/claims/: what the rows say about published claims
python -m experiments.report page          results/page.html: all of these, to look through in a browser
python -m experiments.report papers [FIGURE]   results/papers/<figure>.{png,pdf,svg,csv,md}, or all of them
python -m experiments.report needs [FIGURE] [--scale gpu]   the experiments that a figure of a paper, or all, are drawn from
"""

import argparse
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

from experiments.claims.report import write_claims
from experiments.page import on_page, write_page
from experiments.papers.remake import SCALES, draw_papers, needed_experiments, paper_figures
from experiments.speed.evidence import write_evidence
from experiments.speed.report import write_scheme_report, write_speed_report
from extrap.errors import UserError
from extrap.files import as_path
from extrap.report.report import gather, gather_best, gather_several, report_again
from extrap.results.provenance import load_provenance
from extrap.sweep.door import end_with_parent, through

# what the measurements of a folder are named -> how its report is written
REPORTS: dict[str, Callable[[Path], list[Path]]] = {
    "rows.csv": report_again,
    "timings.csv": write_speed_report,
    "steps.csv": write_scheme_report,
}


def draw_all(results: Path) -> None:
    """Every report below results/ again, side by side, and the figures of papers that can be drawn from their rows.

    What cannot be drawn is told in a line and stops none of the others; at the end it raises UserError.
    """
    reports: dict[str, Callable[[], Iterable[Path | str]]] = {}
    for name, write in REPORTS.items():
        reports |= {str(path.parent): partial(write, path.parent) for path in sorted(results.glob(f"*/{name}"))}
    if not reports:
        raise UserError(f"{results} holds no */{' and no */'.join(REPORTS)}; `make sweep` and `make bench` write them")
    reports["claims"] = partial(write_claims, results)
    reports |= {name: partial(draw_papers, results, name) for name in paper_figures()}
    failed = []
    with ProcessPoolExecutor(mp_context=get_context("spawn"), initializer=end_with_parent) as pool:
        made: dict[str, Callable[[], Iterable[Path | str]]]
        made = {name: pool.submit(make).result for name, make in reports.items()}
        made["evidence"] = partial(write_evidence, results)  # last: it counts pairs that the others write
        for name, written in made.items():
            try:
                for line in written():
                    print(line, flush=True)
            except UserError as error:
                print(f"{name}: {error}", file=sys.stderr)
                failed.append(name)
    if folders := [folder for folder in on_page(results) if str(folder) not in failed]:
        print(*write_page(results, folders), sep="\n")  # of what the others have written
    if failed:
        raise UserError(f"{len(failed)} of {len(made)} reports could not be made: {', '.join(failed)}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Tables and figures from rows.")
    parser.add_argument("--results", type=as_path, default=Path("results"))
    verbs = parser.add_subparsers(dest="verb", required=True)
    gathering = verbs.add_parser("gather")
    gathering.add_argument("names", metavar="NAME", nargs="+")
    gathering.add_argument("--table", default="", help='"protocol=... lengths=... schemes=..." of table_narrow.tex')
    gathering.add_argument("--best", default="", help="an option that varies (train.lr): each scheme at its best value")
    verbs.add_parser("draw")
    verbs.add_parser("claims")
    verbs.add_parser("page")
    papers, needs = (verbs.add_parser(verb) for verb in ("papers", "needs"))
    for of_figures in (papers, needs):
        of_figures.add_argument("figure", metavar="FIGURE", nargs="?")
    needs.add_argument("--scale", choices=SCALES, default="")
    arguments = parser.parse_args()
    if arguments.verb == "gather":
        first, *others = names = sorted({*"+".join(arguments.names).split("+")})  # no name holds a "+"
        if others and arguments.best:
            raise UserError(f"BEST={arguments.best}: takes one name, found {' '.join(names)}")
        if arguments.best:
            gather_best(arguments.results, first, arguments.best, arguments.table)
        elif others:
            gather_several(arguments.results, names, arguments.table)
        else:
            told = arguments.results / first / "provenance.yaml"
            known = load_provenance(told)["command"] if told.exists() else f"python -m experiments.report gather {first}"
            gather(arguments.results, first, known, arguments.table)
    elif arguments.verb == "claims":
        print(*write_claims(arguments.results), sep="\n")
    elif arguments.verb == "page":
        if not (folders := on_page(arguments.results)):
            raise UserError(f"{arguments.results} holds no */rows.csv; `make sweep` writes them")
        print(*write_page(arguments.results, folders), sep="\n")
    elif arguments.verb == "papers":
        print(*draw_papers(arguments.results, arguments.figure), sep="\n")
    elif arguments.verb == "needs":
        print(*needed_experiments(arguments.figure, SCALES[arguments.scale]), sep="\n")
    else:
        draw_all(arguments.results)


if __name__ == "__main__":
    sys.exit(through(main))
