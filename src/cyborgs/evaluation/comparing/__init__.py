"""Backbones judged and compared: cells that are kept, paired intervals, tables, pictures."""
