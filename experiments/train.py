"""Meta-trains and evaluates one config."""

from warpjax.runner.commands.train import command

if __name__ == "__main__":
  command()
