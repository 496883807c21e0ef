def pose(geometry, inner, max_len):
    """With a gap or without, positions mean what the scheme says of them."""
    return inner
