"""Prepares a data set on the disk, for reading without a network."""

from warpjax.runner.commands.prepare_data import command

if __name__ == "__main__":
  command()
