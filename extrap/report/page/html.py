"""The page: one file of HTML, from what it shows; the same bytes from the same rows. Imports no torch."""

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from string import Template
from types import MappingProxyType
from typing import Any

from extrap.report.page.data import experiment, t_quantiles
from extrap.report.page.palette import marker_path, style_sheet

HERE = Path(__file__).parent
SCRIPTS = ("vendor/plot.min.js", "state.js", "tables.js", "numbers.js", "charts.js", "sections.js")  # in this order
LAST = "page.js"  # after the sections of all
FOOTER = (
    "Drawn with Observable Plot and D3, ISC License, © Observable, Inc. and Mike Bostock; all else in the bundle and all "
    "licences: extrap/report/page/vendor/LICENSES.txt. One file, nothing is fetched, nothing is stored."
)


def page_of(folder: Path, called: str) -> str:
    """The page of one report."""
    return page([experiment(folder) | {"name": called}])


def page(
    experiments: Sequence[Any],
    more: Mapping[str, Any] = MappingProxyType({}),
    scripts: Sequence[Path] = (),
    colors: Set[str] = frozenset(),
    markers: Set[str] = frozenset(),
) -> str:
    """HTML of what `experiment` tells of reports, and of `more`, which sections of other scripts show, in further colours
    and markers."""
    groups = [part for told in experiments for part in told["groups"]]
    series = [one for part in groups for one in part["series"]]
    markers = markers | {one["marker"] for one in series if one["marker"]}
    data = {
        "t": t_quantiles(max(2, *(len(part["seeds"]) for part in groups))),
        "markers": {marker: marker_path(marker) for marker in sorted(markers)}, "experiments": list(experiments),
    } | {**more}  # fmt: skip
    sources = [*(HERE / name for name in SCRIPTS), *scripts, HERE / LAST]
    script = "\n".join(path.read_text(encoding="utf-8") for path in sources)
    style = (HERE / "page.css").read_text(encoding="utf-8") + style_sheet(colors | {one["color"] for one in series})
    policy = (
        f"default-src 'none'; script-src {digest(script)}; style-src {digest(style)}; base-uri 'none'; form-action 'none'"
    )
    return Template((HERE / "page.html").read_text(encoding="utf-8")).substitute(
        policy=policy, style=style, script=script, data=in_script(data), footer=FOOTER
    )


def digest(text: str) -> str:
    """As a policy names what is inline and may run."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def in_script(data: Any) -> str:
    """JSON that ends no script that it stands in."""
    return json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
