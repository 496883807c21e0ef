"""extrap: which position encoding lets a Transformer trained on short sequences work on long ones?"""

__version__ = "0.1.0"
