"""Fetches a named corpus into corpora/, once: `make corpus`. Sweeps read it from there and never ask a network.

python -m extrap.sweep.corpus wikitext-2
"""

import argparse
import sys

from extrap.data.corpora import CORPORA, FOLDER
from extrap.data.fetching import fetch
from extrap.sweep.door import through


def main() -> int:
    parser = argparse.ArgumentParser(description="Fetches a named corpus.", epilog=f"There are {', '.join(CORPORA)}.")
    parser.add_argument("name")
    name = parser.parse_args().name
    fetch(name, FOLDER / name)
    print(f"{FOLDER / name} is there: make sweep ARGS='data=corpus data.name={name} name=...'")
    return 0


if __name__ == "__main__":
    sys.exit(through(main))
