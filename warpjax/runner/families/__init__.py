"""Task families: data, losses, networks and checks of each kind of data."""
