"""Photos, clusters, CRF and truth side by side (Figure 4)."""
