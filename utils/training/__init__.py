"""Training: the kernels, the optimizer, the augmentation, the history and the backups.

Uses data and the ground floor, and nothing of prediction.
"""
