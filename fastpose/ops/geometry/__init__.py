"""Geometry of poses: the pairwise descriptor."""
