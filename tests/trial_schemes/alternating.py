"""Local and global layers in turn."""

from extrap.positions.base import PositionScheme


class Alternating(PositionScheme):
    """Every `period`-th layer has the scheme `wide`, the others the scheme `near`, as in Cohere's Command R7B.

    Only what happens in attention differs by layer: neither scheme may change the input vectors.
    """

    def __init__(self, geometry, near, wide, period=2):
        super().__init__(geometry)
        self.near, self.wide, self.period = near, wide, period
        self.relative = near.relative and wide.relative
        self.direction_aware = near.direction_aware or wide.direction_aware

    def layers(self, n_layers):
        return [self.near if (index + 1) % self.period else self.wide for index in range(n_layers)]
