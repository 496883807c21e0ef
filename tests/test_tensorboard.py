"""What TensorBoard reads back is what stands in the files of the runs."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from rows import scheme_rows

from experiments.tensorboard import trained, update
from extrap.results.rows import save_rows

ROOT = Path(__file__).parents[1]
HEADER = "step,tokens,lr,loss,grad_norm,seconds\n"


def read(folder: Path) -> dict[str, dict[int, float]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder)).Reload()
    return {tag: {e.step: e.value for e in events.Scalars(tag)} for tag in events.Tags()["scalars"]}


def test_losses_and_perplexities_come_back_also_of_a_run_that_goes_on(tmp_path):
    pytest.importorskip("tensorboard", reason="the extra tensorboard is not installed")
    run = tmp_path / "main" / "rope-seed0"
    run.mkdir(parents=True)
    log = run / "train.csv"
    shown: dict[Path, int] = {}
    log.write_text(HEADER + "10,1000,0.001,3.5,1.0,0.1\n20,2000,0.002,3.0,0.9,0.2\n30,30")  # the last line half written
    update(trained(tmp_path), shown)
    log.write_text(HEADER + "10,1000,0.001,3.5,1.0,0.1\n")  # killed, and cut back to its checkpoint
    update(trained(tmp_path), shown)
    log.write_text(HEADER + "".join(f"{n},{n}00,0.001,{4 - n / 20},1.0,0.1\n" for n in (10, 20, 30)))
    save_rows(run / "eval.csv", scheme_rows("rope", {128: [1.0], 256: [1.5]}))
    update(trained(tmp_path), shown)
    update(trained(tmp_path), shown)
    found = read(tmp_path / "main" / "tensorboard" / "rope-seed0")
    assert found["training/loss"] == {10: 3.5, 20: 3.0, 30: 2.5}
    ppl = found["perplexity/nonoverlap, none"]
    assert ppl.keys() == {128, 256}
    np.testing.assert_allclose([ppl[128], ppl[256]], np.exp([1.0, 1.5]), rtol=1e-6)


def test_without_runs_or_the_extra_one_line_tells():
    line = [sys.executable, "-m", "experiments.tensorboard", "--results", "nowhere"]
    done = subprocess.run(line, capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
