"""Figures of papers, remade from our rows with the published numbers beside them: one file a figure.

Adding a figure is adding a file here. Its docstring is its caption: the paper and figure, the expected picture, what is
published, and last the command. It holds

    NEEDS   the tables below results/ that it is drawn from, of one kind (rows.csv, training.csv, kernels.csv or timings.csv)
    HOLDS   by column, what each of these tables must hold at least
    PAPER   what the paper trained on, for the table of differences
    figure  (rows of all NEEDS, published numbers) -> (figure, the points that it shows); called within `style`
    table   of these points, as Markdown, below the figure; need not be there
"""

PRESS2022 = {
    "data": "WikiText-103, 103 million words",
    "a token": "word",
    "model": "16 layers, width 1,024, 8 heads, 247 M parameters",
    "training": "205 epochs",
}

CHI2022 = {
    "data": "GitHub",
    "a token": "subword",
    "model": "12 layers, 12 heads, 162 M parameters",
    "training": "50,000 steps of 32 x 512 tokens",
    "training length": "512",
}
