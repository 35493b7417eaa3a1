"""A method of the tests alone: six crops of two sizes, one of another photo, boxes and a saliency map."""
