"""What is decided from what a machine has."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from extrap.config.choices import Device, Precision
from extrap.errors import UserError
from extrap.train.device import keep_freed_memory, pick_device, pick_precision

CPU = torch.device("cpu")
ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [({}, "fp32"), ({"avx512_bf16": False}, "fp32"), ({"avx512_bf16": True}, "fp32"), ({"amx_bf16": True}, "bf16")],
)
def test_bfloat16_where_a_processor_has_units_that_make_it_faster(capabilities, expected, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert pick_precision(Precision.auto, CPU).value == expected
    for wanted in (Precision.fp32, Precision.bf16):
        assert pick_precision(wanted, CPU) is wanted


def test_a_gpu_is_taken_where_there_is_one_and_missed_where_it_was_asked_for(monkeypatch):
    for there, name in ((True, "cuda"), (False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=there: there)
        assert pick_device(Device.auto).type == name
    with pytest.raises(UserError, match=r"no CUDA device was found here; take runtime\.device=cpu or auto"):
        pick_device(Device.cuda)


PAGE_FAULTS = """
import resource, torch
from extrap.train.device import keep_freed_memory
keep_freed_memory()
for step in range(20):
    if step == 5:  # where blocks come to lie settles in a few steps
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [torch.zeros(5 * 2**20) for _ in range(4)]  # 20 MiB each: 20,480 pages in all
    del blocks
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="what is changed is of Linux")
def test_freed_memory_is_not_fetched_again_page_by_page():
    # in a process of its own, as runs are: it depends on what was there before
    line = [sys.executable, "-c", PAGE_FAULTS]
    page_faults = int(subprocess.run(line, capture_output=True, text=True, cwd=ROOT, check=True).stdout)
    assert page_faults < 20_480  # of 307,200 where every step fetches its pages again


def test_memory_is_left_alone_where_the_system_is_another(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr("ctypes.CDLL", lambda name: pytest.fail("looked for a C library"))
    keep_freed_memory()
