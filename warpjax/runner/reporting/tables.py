"""Tables as text, for a terminal and in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def aligned(lines: Sequence[Sequence[str]]) -> str:
  """Lines of cells, their columns as wide as their widest cell.

  Example:
    >>> print(aligned([["method", "mse"], ["maml", "0.5"]]))
    method  mse
    maml    0.5
  """
  widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
  padded = ((cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)
  return "\n".join("  ".join(cells).rstrip() for cells in padded)


def markdown(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
  """A Markdown table.

  Example:
    >>> print(markdown(["a", "b"], [["1", ""]]))
    | a | b |
    |---|---|
    | 1 | |
  """
  line = lambda row: "|" + "".join(f" {cell} |" if cell else " |" for cell in row)
  return "\n".join([line(columns), "|" + "---|" * len(columns), *map(line, rows)])
