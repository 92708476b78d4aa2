"""Checks the learner of a config: its meta-gradient, its tasks, what its query loss mixes."""

from warpjax.runner.commands.check import command

if __name__ == "__main__":
  command()
