"""One page to look through sweeps: one file of HTML that needs no network. Imports no torch."""
