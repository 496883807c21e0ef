def randomized(geometry, inner, max_len, draw):
    """Drawn or not, positions mean what the scheme says of them."""
    return inner
