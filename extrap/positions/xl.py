"""The relative positions of Transformer-XL and XLNet."""

import torch
from torch import Tensor, nn

from extrap.positions.base import Geometry, PositionScheme, Rotation, wide
from extrap.positions.rope import powers

BASE = 10_000.0


class TransformerXL(PositionScheme):
    """[(q_i + u) . k_j + (q_i + v) . W_h r_t] / sqrt(K), t = i - j, r_t (D,) the sines, then the cosines, of t.

    Every layer has u and v, (H, K) from N(0, 0.02^2), and W, (H, K, D), which starts like the encoder's linear maps: in the
    original, too, it starts like all others. In an encoder t is negative ahead: what XLNet does. u and v of every layer are
    those of XLNet and of the original's code in TensorFlow; its code in PyTorch shares them.
    Deviations: training has no memory of the segment before, and no distance is capped in evaluation, as in most of their
    scripts for language models (at 400 of up to 703 for WikiText-103); `rerope` among the extensions caps it.
    Source: Dai et al. 2019 (arXiv:1901.02860), section 3.3; Yang et al. 2019 (arXiv:1906.08237), and their released codes.
    Raises ValueError for an odd d_model.
    """

    relative = True

    def __init__(self, geometry: Geometry) -> None:
        super().__init__(geometry)
        if geometry.d_model % 2:
            raise ValueError(f"Transformer-XL pairs sines and cosines and needs an even d_model, found {geometry.d_model}")
        self.sinusoids = nn.ModuleList(Sinusoids(geometry) for _ in range(geometry.n_layers))

    def layers(self, n_layers: int) -> list[PositionScheme]:
        return [*self.sinusoids]  # type: ignore[list-item]


class Sinusoids(PositionScheme):
    """The scheme of a layer. A sinusoid of i - j is a product of those of i and of j,

        a sin(i - j) + b cos(i - j) = (a sin i + b cos i) cos j + (b sin i - a cos i) sin j,

    so that, with a and b the halves of W_h^T (q_i + v), scores are products of longer queries and keys, (B, H, T, K + D):
    no score needs a bias, and any positions serve.
    """

    relative = True

    def __init__(self, geometry: Geometry) -> None:
        super().__init__(geometry)
        n_heads, head_dim, d_model = geometry.n_heads, geometry.head_dim, geometry.d_model
        self.u = nn.Parameter(0.02 * torch.randn(n_heads, head_dim))
        self.v = nn.Parameter(0.02 * torch.randn(n_heads, head_dim))
        self.weight = nn.Parameter(d_model**-0.5 * torch.randn(n_heads, head_dim, d_model))

    def rotation(self, pos: Tensor) -> Rotation:
        angles = pos.double()[:, None] * powers(BASE, self.geometry.d_model, pos.device)
        sin, cos = angles.sin(), angles.cos()

        def longer(q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
            at_least = wide(q)
            (s, c), (u, v, weight) = ([x.to(at_least) for x in of] for of in ((sin, cos), (self.u, self.v, self.weight)))
            a, b = ((q + v[:, None]) @ weight).chunk(2, dim=-1)
            of_key = torch.cat([c, s], dim=-1).expand(*k.shape[:2], -1, -1)
            return torch.cat([q + u[:, None], a * s + b * c, b * s - a * c], dim=-1), torch.cat(
                [k.to(at_least), of_key], dim=-1
            )

        return longer
