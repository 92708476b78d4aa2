"""The config of a run: recipes, their settings, and the functions that they name."""
