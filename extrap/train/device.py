"""What this machine has, and what it does well."""

import contextlib
import ctypes
import os
import re
import resource
import sys
from pathlib import Path

import torch

from extrap.config.choices import Device, Precision
from extrap.errors import UserError
from extrap.train import distributed

STATUS, FORGET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3  # of malloc.h


def pick_device(wanted: Device) -> torch.device:
    """Raises UserError where there is none of that kind."""
    if wanted is Device.cuda and not torch.cuda.is_available():
        raise UserError("runtime.device=cuda: no CUDA device was found here; take runtime.device=cpu or auto")
    name = wanted.value if wanted is not Device.auto else "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and (n := distributed.n_processes_here()) > max(1, torch.cuda.device_count()):
        raise UserError(
            f"torchrun --nproc-per-node={n}: expected at most one process a CUDA device, found {torch.cuda.device_count()} "
            "devices; lower it, or take runtime.device=cpu"
        )
    return torch.device(name)


def pick_precision(wanted: Precision, device: torch.device) -> Precision:
    """bf16 where it is faster: on a GPU with units for it, and on a processor whose units multiply tiles (AMX).

    With vector instructions alone (avx512_bf16) a training step takes 1.3 times as long as in fp32; emulated, much longer.
    """
    if wanted is not Precision.auto:
        return wanted
    if device.type == "cuda":
        has_units = torch.cuda.get_device_capability(device) >= (8, 0)
    else:
        has_units = bool(torch.cpu.get_capabilities().get("amx_bf16"))
    return Precision.bf16 if has_units else Precision.fp32


def arithmetic(device: torch.device) -> dict[str, str | int]:
    """What the last bits of sums hang on: they are taken in another order with other vector units, threads or kernels."""
    cuda = device.type == "cuda"
    return {
        "torch": str(torch.__version__),  # a class of its own, which no checkpoint may hold
        "device": torch.cuda.get_device_name(device) if cuda else torch.cpu.get_capabilities().get("cpu_name", "cpu"),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
    }


def physical_memory() -> int:
    """Bytes."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def peak_memory(device: torch.device) -> int:
    """Bytes: the most that this process has held since forget_peak, on a GPU or resident in memory.

    Where the system cannot forget a peak (macOS), it is that of the whole life of the process.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    found = re.search(r"VmHWM:\s*(\d+)", STATUS.read_text()) if STATUS.exists() else None
    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss
    return 1024 * int(found[1]) if found else unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def forget_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    with contextlib.suppress(OSError):  # no Linux, or a container that forbids it
        FORGET.write_text("5")  # proc(5): resets the peak resident set size


def full_precision() -> None:
    """float32 on a GPU as on a processor: PyTorch lets convolutions there, and an environment variable matrix products too,
    round what they multiply to ten bits (TF32)."""
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False


def keep_freed_memory() -> None:
    """Lets this process reuse the memory of large tensors instead of handing it back and fetching it page by page.

    The C library of Linux does the latter by default; a training step on small batches takes a sixth longer for it.
    """
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", lambda option, value: None)  # not every C library has it
        for option, size in ((M_TRIM_THRESHOLD, 2**31 - 1), (M_TOP_PAD, 2**26), (M_MMAP_THRESHOLD, 2**25)):
            mallopt(option, size)
