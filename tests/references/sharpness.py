import math


def logn(geometry, inner):
    """Su 2021: log n in the base of the training length."""
    return inner._replace(sharpness=lambda n, h: math.log(n, geometry.train_len))


def ssmax(geometry, inner, rates):
    """Nakanishi 2025: n^(s z) in the place of e^z."""
    return [inner._replace(sharpness=lambda n, h, s=s: s[h] * math.log(n)) for s in rates]
