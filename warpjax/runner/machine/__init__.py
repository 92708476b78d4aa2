"""The machine that a run is on: its hosts, signals, lowering of convolutions, and stored measurements."""
