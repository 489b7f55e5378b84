"""Reporting: what the scores become: the report, its figures, cases and page.

Uses all other rooms but training.
"""
