"""The measurements of the benchmark: the error of meta-gradients, and their cost."""
