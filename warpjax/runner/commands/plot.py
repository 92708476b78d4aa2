"""Compares workdirs: a picture of training and adaptation curves, and a table.

warpjax plot --workdirs=runs/maml,runs/meta_sgd --output=runs/comparison.png

warpjax plot --workdirs=runs/leap_15,runs/leap_20 --against=data.alphabets --output=runs/curve.png

`--against` draws the results against that setting of their configs, with a curve for each method. The workdir of a
sweep (`warpjax train --seeds=0,1,2`) is drawn as its mean with a band over its seeds. Of a grid (`warpjax train
--sweep`), name the folders of the points. `--markdown` prints the table in Markdown.
"""

from __future__ import annotations

import pathlib

from absl import flags

from warpjax.runner import cli, workdir
from warpjax.runner.cli import FLAGS
from warpjax.runner.plots import canvas, curves, figures


def main() -> None:
  """Draws the picture and prints the table."""
  directories, output = [pathlib.Path(name) for name in FLAGS.workdirs], canvas.file_of(FLAGS.output)
  results = [workdir.read_json(directory / workdir.RESULT) for directory in directories]
  for directory, result in zip(directories, results, strict=True):
    if result is None:
      raise ValueError(f"--workdirs must be finished runs; {directory} has no {workdir.RESULT}.")
    if "runs" in result:
      points = ", ".join(f"{directory}/{run['name']}" for run in result["runs"])
      raise ValueError(f"--workdirs must be runs; {directory} is a grid. Name the folders of its points: {points}.")
  if len({result["metric"] for result in results}) > 1:
    raise ValueError("--workdirs must share a metric; they have " + ", ".join(r["metric"] for r in results) + ".")
  if FLAGS.against and FLAGS.markdown:
    raise ValueError("--markdown must not be given with --against, whose table is one.")
  if FLAGS.against:
    runs = curves.against(directories, results, FLAGS.against)
    curves.draw(runs, FLAGS.against, output)
    print(curves.table(runs, FLAGS.against), f"Drawn in {output}", sep="\n")
    return
  figures.draw(directories, output, results=results)
  names = figures.labels(directories, [result["method"] for result in results])
  table = (figures.markdown if FLAGS.markdown else figures.table)(results, names=names)
  print(table, "", *figures.paired(directories, results), f"Drawn in {output}", sep="\n")


def command() -> None:
  """Defines the flags and runs."""
  cli.define(places=False)
  flags.DEFINE_list("workdirs", None, "Workdirs, separated by commas.", required=True)
  flags.DEFINE_bool("markdown", False, "Print a Markdown table: measured, published, meta-steps, tasks, seconds.")
  flags.DEFINE_string("against", None, "A setting of the configs, e.g. data.alphabets, to draw the results against.")
  flags.DEFINE_string("output", "comparison.png", "The picture.")
  cli.run(main)
