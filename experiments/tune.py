"""Measures how a meta-step is best computed on this machine: tasks side by side, and how convolutions are lowered."""

from warpjax.runner.commands.tune import command

if __name__ == "__main__":
  command()
