"""What this machine has, and what it does well."""

import torch

from extrap.config import Device, Precision
from extrap.errors import UserError


def pick_device(wanted: Device) -> torch.device:
    """Raises UserError where there is none of that kind."""
    if wanted is Device.cuda and not torch.cuda.is_available():
        raise UserError("runtime.device=cuda: no CUDA device was found here; take runtime.device=cpu or auto")
    name = wanted.value if wanted is not Device.auto else "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def pick_precision(wanted: Precision, device: torch.device) -> Precision:
    """bf16 where the machine has units for it; elsewhere it would be emulated and slower than fp32."""
    if wanted is not Precision.auto:
        return wanted
    if device.type == "cuda":
        has_units = torch.cuda.get_device_capability(device) >= (8, 0)
    else:
        capabilities = torch.cpu.get_capabilities()
        has_units = bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
    return Precision.bf16 if has_units else Precision.fp32
