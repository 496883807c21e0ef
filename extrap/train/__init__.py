"""Training one encoder, on one processor or several."""
