"""Measuring: cases at published sizes, other ways to compute them, the machine's limits, and result files.

``fastpose bench`` and the checkout's ``pytest --benchmark-only`` measure with these modules; no other room needs them.
"""
