"""Draws the reward of agents in the maze over their lives, and compares their final rewards with the first agent's.

python -m experiments.maze --workdirs=runs/maze/rnn,runs/maze/warp_rnn --output=runs/maze/comparison.png
"""

from __future__ import annotations

import json
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from absl import flags

from warpjax import evaluation
from warpjax.runner import cli, workdir
from warpjax.runner.cli import FLAGS
from warpjax.runner.plots import canvas

LAST = 1000  # episodes at the end of a life that the statement is about, and the meta-steps that reach into them
Curve = tuple[np.ndarray, np.ndarray]
"""Episodes lived, and the mean reward of an episode since the point before."""


def curve(directory: pathlib.Path) -> Curve:
  """The curve of one run.

  Raises:
    ValueError: If there is no run of the maze, or one that has not begun.
  """
  config = workdir.read_json(directory / workdir.CONFIG)
  if config is None or config["data"]["name"] != "maze":
    raise ValueError(f"--workdirs must be runs of configs/maze.py; {directory} is not.")
  rows = [row for row in workdir.read_metrics(directory) if "return" in row]
  if not rows:
    raise ValueError(f"{directory} has not begun; train first.")
  episodes = config["inner"]["num_steps"]
  return np.array([row["step"] * episodes for row in rows]), np.array([row["return"] for row in rows])


def curves(directory: pathlib.Path) -> dict[str, Curve]:
  """The curve of each seed of a workdir, by the name of its directory; of a run of one seed, its own."""
  seeds = sorted(path for path in directory.glob("seed_*") if path.is_dir())
  return {path.name: curve(path) for path in seeds or [directory]}


def ends(lives: Mapping[str, Curve], last: int = LAST) -> dict[str, float]:
  """The mean reward of each seed's last episodes."""
  return {seed: float(np.mean(rewards[episodes > episodes[-1] - last])) for seed, (episodes, rewards) in lives.items()}


def difference(first: Mapping[str, Curve], second: Mapping[str, Curve], last: int = LAST) -> dict[str, Any]:
  """The reward of the second less the first over their last episodes, paired by seed, with its interval."""
  shared = sorted(first.keys() & second.keys())
  if not shared:
    raise ValueError(f"--workdirs must share seeds to be paired; they have {sorted(first)} and {sorted(second)}.")
  one, other = ends(first, last), ends(second, last)
  return _over_seeds({seed: other[seed] - one[seed] for seed in shared}) | {"episodes": last}


def _over_seeds(by_seed: Mapping[str, float]) -> dict[str, Any]:
  values = list(by_seed.values())
  spread = evaluation.ci95_of_few(values) if len(values) > 1 else None
  return {"mean": float(np.mean(values)), "ci95": spread, "seeds": list(by_seed), "by_seed": values}


def band(rewards: np.ndarray) -> Curve:
  """The mean over seeds at each point, and half the width of its 95% interval by Student's t; `[seeds, points]`."""
  return np.mean(rewards, axis=0), np.array([evaluation.ci95_of_few(column) for column in rewards.T])


def draw(lives: Mapping[str, Mapping[str, Curve]], output: pathlib.Path) -> None:
  """Draws the mean over seeds of each workdir; of several, each seed and a band of its 95% interval too."""
  figure, axes = canvas.subplots(figsize=(8, 4.5), layout="constrained")
  for name, by_seed in lives.items():
    length = min(len(episodes) for episodes, _ in by_seed.values())
    rewards = np.stack([values[:length] for _, values in by_seed.values()])
    episodes = next(iter(by_seed.values()))[0][:length]
    mean, ci95 = band(rewards)
    (line,) = axes.plot(episodes, mean, label=f"{name} ({len(rewards)} seeds)")
    if len(rewards) > 1:
      axes.plot(episodes, rewards.T, color=line.get_color(), linewidth=0.5, alpha=0.6)
      axes.fill_between(episodes, mean - ci95, mean + ci95, alpha=0.2, color=line.get_color())
  axes.set(xlabel="episodes lived", ylabel="reward of an episode")
  axes.grid(alpha=0.3)
  axes.legend()
  canvas.save(figure, output)


def main() -> None:
  """Runs the command."""
  lives = {path: curves(pathlib.Path(path)) for path in FLAGS.workdirs}
  draw(lives, pathlib.Path(FLAGS.output))
  base, *others = FLAGS.workdirs
  rewards = {path: _over_seeds(ends(life)) for path, life in lives.items()}
  less = {f"{other} less {base}": difference(lives[base], lives[other]) for other in others}
  print(json.dumps(rewards | less, indent=2))


if __name__ == "__main__":
  cli.define(places=False)
  flags.DEFINE_list("workdirs", None, "Workdirs of configs/maze.py; the first is what the others are compared with.")
  flags.DEFINE_string("output", None, "The PNG to write.")
  flags.mark_flags_as_required(["workdirs", "output"])
  cli.run(main)
