"""The life of a run: recipe, folder, processes, photos, crash."""
