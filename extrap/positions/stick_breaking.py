"""Stick-breaking attention."""

from torch import Tensor
from torch.nn import functional as F

from extrap.positions.base import MaskMod, PositionScheme, Weights


class StickBreaking(PositionScheme):
    """weight_ij = sigmoid(z_ij) times the product over j < u < i of 1 - sigmoid(z_iu), j < i, z = q . k / sqrt(K).

    In place of a softmax and of positions: from itself backwards a token hands each key a share of what is left. It sees
    itself not at all, and the rest goes to nothing, so that the first token gives 0: the released code can do either.
    Source: Tan et al. 2025 (arXiv:2410.17980), section 2, and its released code.
    """

    relative = True
    causal_only = True

    def mask_mod(self, pos: Tensor) -> MaskMod:
        return lambda b, h, i, j: pos[j] < pos[i]

    def weights(self) -> Weights:
        def weigh(z: Tensor) -> Tensor:
            kept = F.logsigmoid(-z)  # 0 where a query may not attend
            nearer = kept.flip(-1).cumsum(dim=-1).flip(-1) - kept
            return (F.logsigmoid(z) + nearer).exp()

        return weigh
