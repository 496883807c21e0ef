"""Which tokens of a sequence something is asked of."""

from torch import Tensor

Places = Tensor | range | None  # (B, R) of each sequence, or a run of neighbours in all of them; None: everywhere


def taken(x: Tensor, at: Places) -> Tensor:
    """Of (B, ..., T, D) what stands at these places: (B, ..., R, D)."""
    if at is None:
        return x
    if isinstance(at, range):
        return x[..., at.start : at.stop, :]
    index = at.view(len(at), *(1,) * (x.dim() - 3), -1, 1)
    return x.gather(-2, index.expand(*x.shape[:-2], -1, x.shape[-1]))
