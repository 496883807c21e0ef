from references.base import Reference, sigmoid


def stickbreaking(geometry):
    """From the last key before the query, which stands last itself, back to the first: each takes its share of the rest."""

    def weigh(scores, h):
        shares, left = [0.0], 1.0
        for z in reversed(scores[:-1]):
            shares.append(sigmoid(z) * left)
            left *= 1 - sigmoid(z)
        return shares[::-1]

    return Reference(weigh=weigh)
