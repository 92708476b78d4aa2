"""What a run is made of: recipes, their settings, and the functions that their names stand for."""
