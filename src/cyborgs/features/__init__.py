"""Photos through a network: maps, clusters, neighbours, what is kept of them."""
