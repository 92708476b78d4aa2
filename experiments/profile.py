"""Where the time of a meta-step goes, by layer and operation."""

from warpjax.runner.commands.profile import command

if __name__ == "__main__":
  command()
