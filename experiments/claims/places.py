"""Where claims are decided: the name of a text -> the experiments whose rows count there, together. Imports no torch."""

CODE, PROSE, FLOOR = "code", "prose", "known floor"
Places = dict[str, tuple[str, ...]]

TEXTS = (CODE, PROSE, FLOOR)  # what the board and the overview show; other places are on the page

CAUSAL: Places = {CODE: ("causal",), PROSE: ("prose",), FLOOR: ("markov",)}
MASKED: Places = {CODE: ("main",), PROSE: ("prose_mlm",), FLOOR: ()}
BOTH: Places = {CODE: ("causal", "main"), PROSE: ("prose", "prose_mlm"), FLOOR: ()}
STRIDE: Places = {CODE: ("stride1",), PROSE: (), FLOOR: ()}
TIED: Places = {CODE: ("causal", "tied"), PROSE: (), FLOOR: ()}
SPEED: Places = {CODE: ("speed",), PROSE: (), FLOOR: ()}

L_64: Places = {f"{CODE}, L = 64": ("causal_64",)}
SHORTER: Places = L_64 | {f"{CODE}, L = 32": ("causal_32",)}
OTHER_L: Places = {f"{CODE}, L = 256": ("causal_256",)} | SHORTER
