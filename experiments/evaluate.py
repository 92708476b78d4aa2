"""Evaluates a workdir again: more test tasks, or under other settings of the test."""

from warpjax.runner.commands.evaluate import command

if __name__ == "__main__":
  command()
