"""Lists what there is to run: every recipe's methods, with their papers and the numbers published and measured."""

from __future__ import annotations

from collections.abc import Sequence

from warpjax.runner import cli, listing


def main(argv: Sequence[str]) -> int:
  """Prints the list."""
  del argv
  print(listing.text())
  return 0


def command() -> None:
  """Defines the flags and runs."""
  cli.define(places=False)
  cli.run(main)
