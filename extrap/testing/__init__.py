"""What every position scheme promises: asked before every sweep, and told on the page of `make check-scheme`."""
