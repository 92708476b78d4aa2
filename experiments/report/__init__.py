"""RESULTS.md, and the tables of README and of the docs, from the records."""
