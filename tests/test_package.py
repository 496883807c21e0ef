"""extrap installed by pip and used without its checkout."""

import os
import shutil
import subprocess
import sys
import zipfile

import pytest
from sweeps import ROOT, TINY

PARTS = ("extrap", "conf", "pyproject.toml", "setup.py", "README.md", "LICENSE")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built of a copy: setuptools leaves things beside what it builds."""
    place = tmp_path_factory.mktemp("wheel")
    for part in PARTS:
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, place / "checkout" / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / part, place / "checkout")
    line = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(place),
        str(place / "checkout"),
    ]
    done = subprocess.run(line, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    [file] = place.glob("extrap-*.whl")
    return file


@pytest.mark.slow
def test_a_wheel_holds_all_modules_and_configs_and_nothing_else(wheel):
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    expected = {str(path.relative_to(ROOT)) for path in (ROOT / "extrap").rglob("*.py")}
    expected |= {f"extrap/{path.relative_to(ROOT)}" for path in (ROOT / "conf").rglob("*.yaml")}
    page = ROOT / "extrap" / "report" / "page"
    shown = [path for suffix in ("js", "css", "html") for path in page.glob(f"*.{suffix}")]
    shown += [page / "vendor" / "plot.min.js", page / "vendor" / "LICENSES.txt"]
    expected |= {str(path.relative_to(ROOT)) for path in shown}
    assert names == expected | {"extrap/report/figures.mplstyle"}


@pytest.mark.slow
def test_what_is_installed_compares_a_scheme_of_a_folder_of_ones_own(wheel, tmp_path):
    site, own = tmp_path / "site", tmp_path / "own"
    zipfile.ZipFile(wheel).extractall(site)
    own.mkdir()
    (own / "mine.py").write_text(
        "from extrap.positions.base import PositionScheme\n\n\nclass Mine(PositionScheme):\n    relative = True\n\n"
        "    def score_mod(self, pos):\n        return lambda s, b, h, i, j: s - 0.1 * (pos[i] - pos[j]).abs().sqrt()\n"
    )
    few = ["train.max_steps=20", "position=rope,alibi", "scheme=mine.py"]

    def run(*arguments: str) -> subprocess.CompletedProcess:
        environment = os.environ | {"PYTHONPATH": str(site)}
        line = [sys.executable, *arguments]
        return subprocess.run(line, capture_output=True, text=True, cwd=own, timeout=300, env=environment)

    assert run("-c", "import extrap; print(extrap.__file__)").stdout.strip() == str(site / "extrap" / "__init__.py")
    done = run("-m", "extrap", *TINY, *few)
    assert (done.returncode, done.stderr) == (0, "")
    report = own / "results" / "smoke"
    for name in ("table.csv", "table.md", "perplexity.csv", "perplexity.svg", "rows.csv"):
        text = (report / name).read_text()
        assert all(scheme in text for scheme in ("rope", "alibi", "mine")), name
    assert not (own / "__pycache__").exists()
    (own / "mine.py").unlink()
    assert "3 done" in run("-m", "extrap.sweep.progress").stdout
    from_rows = (
        "from pathlib import Path; from extrap.report.report import gather; gather(Path('results'), 'smoke', 'again')"
    )
    before = (report / "table.csv").read_bytes()
    assert run("-c", from_rows).returncode == 0, "a report needs no scheme"
    assert (report / "table.csv").read_bytes() == before
