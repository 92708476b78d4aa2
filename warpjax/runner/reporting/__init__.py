"""The reports of a run: progress, metrics, warnings, the protocol card and records."""
