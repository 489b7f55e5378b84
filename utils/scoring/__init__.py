"""Scoring: the pictures that are scored, and the scores of pixels, polyps, borders, probabilities.

Uses prediction, data and the ground floor.
"""
