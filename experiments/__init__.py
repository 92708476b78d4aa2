"""Experiments: a config in, a workdir with a result out."""
