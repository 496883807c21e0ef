"""The registry of published claims. Imports no torch."""

from experiments.claims.later import LATER
from experiments.claims.press import PRESS

CLAIMS = (*PRESS, *LATER)

# id -> what is claimed, where, and what is missing to decide it
NOT_YET = {
    "K1": ("beyond 2 L: KERPLE log ≤ power ≤ ALiBi", "Chi et al. 2022, table 3", "the power kernel"),
    "S1": ("position interpolation without tuning is worse than doing nothing", "kexue.fm 9708", "position interpolation"),
    "S2": (
        "NTK beats PI, YaRN beats NTK, ReRoPE is at least as good as YaRN",
        "kexue.fm 9708, 9859",
        "PI, NTK, YaRN, ReRoPE",
    ),
    "S3": ("ReRoPE is best at a window of L/4 to L/2 and collapses at L", "kexue.fm 9708", "ReRoPE"),
    "E1": ("log-n scaling improves a masked LM at 2 L", "kexue.fm 8823", "log-n scaling"),
}
