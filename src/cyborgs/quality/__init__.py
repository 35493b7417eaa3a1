"""Masks measured against people's annotations, and shown beside them."""
