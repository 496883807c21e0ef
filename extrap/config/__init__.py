"""Overrides to configs: what can be set, composed by Hydra and checked. Imports no torch."""
