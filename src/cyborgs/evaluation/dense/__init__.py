"""Segmentation networks that are trained with labels: samples, heads, inference, scores."""
