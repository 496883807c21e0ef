"""The encoder, and the paths on which attention is computed."""
