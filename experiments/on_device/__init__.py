"""What `experiments.accelerator` runs on a machine with a GPU: parts in processes of their own, under time limits."""
