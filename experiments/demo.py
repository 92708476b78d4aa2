"""Meta-trains four methods on sine waves, prints one table and draws what was learned."""

from warpjax.runner.commands.demo import command

if __name__ == "__main__":
  command()
