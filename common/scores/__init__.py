"""Scores of images: what they are, how they are computed, and which values are accepted."""
