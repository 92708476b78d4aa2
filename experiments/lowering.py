"""Times both lowerings of convolutions on this device; see `warpjax.runner.machine.lowering`."""

from warpjax.runner.machine.lowering import command

if __name__ == "__main__":
  command()
