"""The results that pages tell of."""

import io
import subprocess
import tarfile
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]


def tracked_results() -> Path:
    """Those of the last commit, where a sweep has put rows of its own into their place and no page has been written anew.

    Whoever makes tracked results again changes what pages say of them, too, and has those of the work tree.
    """

    def git(*arguments: str) -> bytes:
        return subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True).stdout

    changed = git("diff", "--name-only", "HEAD", "--", "results/*/rows.csv", "*README.md").decode().splitlines()
    if not changed or any(name.endswith("README.md") for name in changed):
        return ROOT / "results"
    place = Path(KEPT.name)
    with tarfile.open(fileobj=io.BytesIO(git("archive", "HEAD", "results"))) as archive:
        archive.extractall(place, filter="data")
    return place / "results"


KEPT = tempfile.TemporaryDirectory(prefix="tracked-")
RESULTS = tracked_results()
