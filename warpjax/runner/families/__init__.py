"""What each kind of data brings to an experiment."""
