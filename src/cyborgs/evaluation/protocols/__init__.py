"""One file a protocol; each takes a backbone and never a method (docs/evaluation.md)."""
