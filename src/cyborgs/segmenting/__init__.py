"""Masks of a folder of photos, by clusters or by any source, written as they come."""
