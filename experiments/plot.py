"""Compares workdirs: training curves and adaptation curves in a picture, and a table of them."""

from warpjax.runner.commands.plot import command

if __name__ == "__main__":
  command()
