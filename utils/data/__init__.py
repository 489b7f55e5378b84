"""Data: pictures and masks, where they come from, the scenes they show, and the prepared data set.

Uses the ground floor alone.
"""
