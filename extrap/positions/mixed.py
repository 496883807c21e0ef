"""Layers of two kinds in turn, most often local and global ones."""

from extrap.positions.base import Geometry, PositionScheme


class Mixed(PositionScheme):
    """Every `period`-th layer has the scheme `wide`, the others the scheme `near`; the last of each period, or the first.

    RNoPE-SWA and Cohere's Command R7B: near a window of RoPE, wide no positions at all, last. ModernBERT: wide RoPE of a
    larger base in the layers 0, 3, 6, ..: first. Their windows are far smaller parts of their contexts than 64 of 128.
    What differs by layer is what happens in attention: neither scheme may change the input vectors or the positions. Of
    each there is one for all its layers; whatever has parameters for every layer stands around the mixed scheme.
    Source: Yang et al. 2025 (arXiv:2501.18795), section 4; Warner et al. 2024 (arXiv:2412.13663), section 2.1.
    Raises ValueError for a model of too few layers to have both kinds, and for schemes of input vectors, of drawn positions
    or of layers that differ.
    """

    def __init__(
        self, geometry: Geometry, near: PositionScheme, wide: PositionScheme, period: int = 2, first: bool = False
    ) -> None:
        super().__init__(geometry)
        if period < 2:
            raise ValueError(f"layers of two kinds: expected period >= 2, found {period}")
        if geometry.n_layers < (2 if first else period):
            raise ValueError(f"expected layers of both kinds, found period={period} in a model of {geometry.n_layers}")
        for scheme in (near, wide):
            if scheme.max_len is not None or not scheme.relative or scheme.random_in_training:
                raise ValueError(
                    f"layers differ in attention alone: expected a scheme of distances, found {type(scheme).__name__}"
                )
            if scheme.layers(geometry.n_layers) != [scheme] * geometry.n_layers:
                raise ValueError(
                    f"layers of a kind share a scheme: expected one without parameters of its own for every layer, found "
                    f"{type(scheme).__name__}; norms, sinks and the like go around mixed"
                )
        self.near, self.wide, self.period, self.first = near, wide, period, first
        self.relative = True
        self.direction_aware = near.direction_aware or wide.direction_aware
        self.causal_only = near.causal_only or wide.causal_only

    def layers(self, n_layers: int) -> list[PositionScheme]:
        at = 0 if self.first else self.period - 1
        return [self.wide if index % self.period == at else self.near for index in range(n_layers)]
