"""A page on what a position scheme is: `make check-scheme`.

    python -m extrap.sweep.check path/to/mine.py:Mine                      # of any file, arguments in brackets behind it
    python -m extrap.sweep.check rope position.base=500.0                  # of the project, options as in a sweep
    python -m extrap.sweep.check ... --reference path/to/file.py:function

The reference is a function of the author's, reference(scheme, q, k, x, causal) -> scores (H, n, n) before causality masks
them and softmax weighs them, of the queries and keys (H, n, K) and the input (n, D) of a layer, in float64: by the formula,
not by the scheme's code. It names those of these arguments that it wants. Exit code 1 where something is wrong, 2 where
there is nothing to check.
"""

import argparse
import inspect
import sys
import textwrap
from collections import Counter
from typing import Any

from extrap.config.compose import compose_grid, with_schemes
from extrap.config.outside import function
from extrap.config.specs import build
from extrap.errors import UserError
from extrap.positions.base import Geometry, PositionScheme
from extrap.sweep.door import through
from extrap.testing.cost import costs
from extrap.testing.findings import GIVEN, SIZES, Finding, findings


def page(label: str, found: list[Finding]) -> str:
    """The findings of one scheme, and how many are wrong."""
    sizes = ", ".join(f"({train_len}, {head_dim})" for train_len, head_dim, _ in SIZES)
    lines = [
        f"{label}: training length L and head dim K of {sizes}; causal and bidirectional; hidden states are about 1",
        "",
        *(f"{verdict:7}{about:23}{told}" for verdict, about, told in found),
        "",
    ]
    counts = Counter(finding.verdict for finding in found)
    told = f"{counts['WRONG']} of {counts['WRONG'] + counts['PASS']} are WRONG" if counts["WRONG"] else "nothing is wrong"
    return "\n".join(textwrap.fill(line, 125, subsequent_indent=" " * 30) for line in [*lines, f"{label}: {told}"])


def main() -> int:
    parser = argparse.ArgumentParser(description="What a position scheme is.")
    parser.add_argument("scheme")
    parser.add_argument("--reference")
    parser.add_argument("overrides", nargs="*")
    arguments = parser.parse_intermixed_args()
    reference = function(arguments.reference) if arguments.reference else None
    if reference and (unknown := [name for name in inspect.signature(reference).parameters if name not in GIVEN]):
        raise UserError(f"{arguments.reference}: expected a function of some of {', '.join(GIVEN)}; found {unknown[0]}")
    overrides = ["experiment=smoke", "seed=0", f"scheme={arguments.scheme}", *arguments.overrides]
    n_wrong = 0
    for config in compose_grid(with_schemes(overrides, beside=False)):

        def made_for(geometry: Geometry, spec: dict[str, Any] = config.position) -> PositionScheme:
            made: PositionScheme = build(spec, "position", "extrap.positions", PositionScheme, geometry=geometry)
            return made

        found = [*findings(made_for, reference)]
        wrong = [finding for finding in found if finding.verdict == "WRONG"]
        print(page(config.scheme, found if wrong else [*found, *costs(made_for)]), end="\n\n\n", flush=True)
        n_wrong += len(wrong)
    return int(n_wrong > 0)


if __name__ == "__main__":
    sys.exit(through(main))
