"""What the benchmark measures: the accuracy of meta-gradients, and what they cost."""
