"""Writes the record of a finished run, `results/RECIPE/ROW.json`."""

from warpjax.runner.commands.record import command

if __name__ == "__main__":
  command()
