"""All runs of an experiment, and its report."""
