"""`python -m extrap`: runs an experiment (see sweep/sweep.py)."""

import os
import sys

from extrap.sweep.sweep import main, main_of_several

if __name__ == "__main__":
    several = "TORCHELASTIC_RUN_ID" in os.environ and os.environ.get("WORLD_SIZE", "1") != "1"  # torchrun sets both
    sys.exit((main_of_several if several else main)(sys.argv[1:]))
