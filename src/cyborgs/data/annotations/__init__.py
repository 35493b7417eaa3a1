"""People's annotations of photos: a reader for each layout, all giving the same."""
