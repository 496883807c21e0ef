"""The progress bar of a sweep, read from the files of its runs."""

import threading
from typing import Self

from tqdm import tqdm

from extrap.cells import Cell

SECONDS = 1.0  # between looks


class Progress:
    """Counts training steps and finished runs while the workers write; silent where the output is no terminal.

    Evaluation counts as `EVALUATION` of the training of a run.
    """

    EVALUATION = 0.3

    def __init__(self, cells: list[Cell]) -> None:
        self.cells = cells
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self.thread.join()

    def _watch(self) -> None:
        total = len(self.cells)
        already = sum(map(done_share, self.cells))
        layout = "{desc} {percentage:3.0f}% |{bar}| {elapsed} gone, {remaining} left"
        with tqdm(total=total, initial=already, disable=None, bar_format=layout, smoothing=0, leave=False) as bar:
            while True:
                stopped = self.stop.wait(SECONDS)
                finished = sum(cell.is_finished for cell in self.cells)
                bar.set_description_str(f"{finished} of {total} runs", refresh=False)
                bar.update(sum(map(done_share, self.cells)) - bar.n)
                if stopped:
                    return


def done_share(cell: Cell) -> float:
    """0 to 1, how much of a run is done."""
    if cell.is_finished:
        return 1.0
    log = cell.config.folder / "train.csv"
    last = log.read_text().rstrip("\n").rpartition("\n")[2] if log.exists() else ""
    step = last.split(",")[0]
    if not step.isdigit():
        return 0.0
    return min(1.0, int(step) / cell.config.train.max_steps) / (1 + Progress.EVALUATION)
