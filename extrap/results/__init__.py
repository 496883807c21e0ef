"""Run folders and the rows in them. Imports no torch."""
