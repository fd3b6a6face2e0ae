"""Gaussian heatmaps: rendering, the fused loss, decoding and flip tests."""
