"""What trained models do beside their perplexity: from the weights of finished runs to sums and counts, without training."""
