"""What every position scheme promises: asked at the start of every run, and told in the page of `make check-scheme`."""
