"""The parts of `experiments.accelerator` on a machine with a GPU, in processes of their own, under time limits."""
