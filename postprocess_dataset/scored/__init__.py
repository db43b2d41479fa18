"""Scores of a finished data set, and the subset that an expression over them takes."""
