"""What a run says: progress, metrics, warnings, the protocol card and records."""
