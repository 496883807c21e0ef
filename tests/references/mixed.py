def mixed(geometry, near, wide, period, first):
    """Layers counted from 1: the last of every `period` are wide, or the first."""
    return [wide if layer % period == (1 if first else 0) else near for layer in range(1, geometry.n_layers + 1)]
