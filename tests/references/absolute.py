import math

from references.base import Reference


def learned(geometry, table):
    """Devlin et al. 2019: x_t + table[t]."""
    return Reference(add=lambda t: table[t])


def sinusoidal(geometry, base):
    """Vaswani et al. 2017, section 3.5: PE(t, 2k) = sin(t / base^(2k/D)), PE(t, 2k+1) = cos(t / base^(2k/D))."""

    def add(t):
        vector = []
        for k in range(geometry.d_model // 2):
            angle = t / base ** (2 * k / geometry.d_model)
            vector += [math.sin(angle), math.cos(angle)]
        return vector

    return Reference(add=add)
