"""What rows say: perplexity over seeds, comparisons, verdicts. Imports no torch."""
