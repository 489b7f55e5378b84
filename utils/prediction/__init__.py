"""Prediction: kept networks, predictors made of them, and own pictures and films segmented.

Uses data and the ground floor.
"""
