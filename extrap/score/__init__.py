"""Perplexity: which tokens are scored with which context, and the references that models are compared with."""
