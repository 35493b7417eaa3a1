"""What protocols on frozen features share: features computed once, votes, linear classifiers."""
