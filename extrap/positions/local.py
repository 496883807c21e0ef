"""Local attention: a window around any other scheme."""

from torch import Tensor

from extrap.positions.base import Branch, Geometry, MaskMod, PositionScheme, are_consecutive
from extrap.positions.wrappers import Wrapper


class Local(Wrapper):
    """Keeps abs(i - j) < window and leaves the rest to the inner scheme (Beltagy et al. 2020, arXiv:2004.05150).

    window = w keeps exactly w keys, the token itself included, when causal, and 2w - 1 in an encoder. Conventions
    differ elsewhere: ModernBERT's "128" is 64 to the left and 64 to the right. Through n layers a token still
    receives from n * (w - 1) away. Raises ValueError for a window below 1.
    """

    def __init__(self, geometry: Geometry, inner: PositionScheme, window: int = 64) -> None:
        super().__init__(inner)
        if window < 1:
            raise ValueError(f"a local window holds at least the token itself: expected window >= 1, found {window}")
        self.window = window

    def near(self, pos: Tensor) -> MaskMod:
        """Which pairs lie within the window, by their positions; where distances are drawn, by theirs."""
        if getattr(pos, "are_distances", False):
            return lambda b, h, q_idx, kv_idx: pos[(q_idx - kv_idx).abs()] < self.window
        return lambda b, h, q_idx, kv_idx: (pos[q_idx] - pos[kv_idx]).abs() < self.window

    def change(self, branch: Branch, pos: Tensor) -> Branch:
        near, inner = self.near(pos), branch.mask_mod
        both: MaskMod = near if inner is None else lambda b, h, i, j: near(b, h, i, j) & inner(b, h, i, j)
        # positions strictly increase, so a window of positions is at least as narrow in indices
        window = self.window if branch.window is None else min(self.window, branch.window)
        return branch._replace(mask_mod=both, window=window, relative=branch.relative and are_consecutive(pos))
