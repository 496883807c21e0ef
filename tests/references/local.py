def local(geometry, inner, window):
    """Keys with |i - j| < window, scored as the inner scheme scores them."""
    return inner._replace(keep=lambda i, j: abs(i - j) < window and inner.keep(i, j))
