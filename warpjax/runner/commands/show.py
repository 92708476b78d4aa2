"""Lists the methods of every recipe, with their papers and the published and measured numbers.

warpjax list --experiment=omniglot --method=maml --measured
warpjax list --config=my_method.py
"""

from __future__ import annotations

from absl import flags

from warpjax.runner import cli
from warpjax.runner.cli import FLAGS
from warpjax.runner.config import listing


def main() -> None:
  """Prints the list."""
  sources = [*FLAGS.config, *FLAGS.experiment]
  print(listing.text(sources, paper=FLAGS.paper, method=FLAGS.method, measured=FLAGS.measured))


def command() -> None:
  """Defines the flags and runs."""
  cli.define(places=False)
  flags.DEFINE_multi_string("config", [], "A recipe file of your own, such as my_method.py; repeatable.")
  flags.DEFINE_multi_string("experiment", [], "The name of a recipe, such as omniglot; repeatable.")
  flags.DEFINE_string("paper", "", "Rows whose paper contains this, such as Finn or 1703.03400.")
  flags.DEFINE_string("method", "", "Rows whose method contains this, such as meta_sgd.")
  flags.DEFINE_bool("measured", False, "Only measured rows.")
  cli.run(main)
