"""Data sets of labelled examples, whole: training and test examples as arrays."""

from warpjax.datasets.labelled import fashion_mnist, mnist1d

__all__ = ["fashion_mnist", "mnist1d"]
