"""Times both lowerings of convolutions on this device; see `warpjax.runner.lowering`."""

from warpjax.runner.lowering import command

if __name__ == "__main__":
  command()
