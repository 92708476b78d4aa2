"""The largest number of inner steps that fits into memory, for each way to differentiate and each memory policy."""

from warpjax.runner.commands.fits import command

if __name__ == "__main__":
  command()
