"""Sources of tokens: text in documents, and a source whose best possible predictor is known. Imports no torch."""
