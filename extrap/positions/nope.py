"""No position encoding."""

from extrap.positions.base import PositionScheme


class Nope(PositionScheme):
    """No position information at all: score_ij = q_i . k_j / sqrt(K).

    Causal, the mask itself reveals positions; in an encoder the model is permutation-equivariant.
    Source: Haviv et al. 2022 (arXiv:2203.16634), Kazemnejad et al. 2023 (arXiv:2305.19466).
    """

    relative = True
    direction_aware = False
