"""Scores of images: what they are, and how they are computed."""
