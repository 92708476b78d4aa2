"""The groups of the API's pages: data alone."""

from __future__ import annotations

from typing import NamedTuple


class Group(NamedTuple):
  """Modules that a reader looks for together.

  Attributes:
    title: The heading of its page.
    text: What it has, in a sentence.
    modules: Names of modules below `warpjax`; a package stands for all of its public modules.
  """

  title: str
  text: str
  modules: tuple[str, ...]


GROUPS = {
  "core": Group(
    "Core",
    "The types, the inner loop, and the losses that it takes.",
    ("types", "adaptation", "losses", "padding", "partition"),
  ),
  "update_rules": Group("Rules", "How parameters adapt: the U of the inner loop.", ("rules",)),
  "estimators": Group(
    "Estimators",
    "How the meta-gradient is obtained, with the linear solves and the memory policies that estimators take.",
    ("meta_gradients", "linear_solve", "memory"),
  ),
  "task_samplers": Group(
    "Tasks and data sets", "Samplers of tasks, and the data sets that they draw from.", ("tasks", "datasets")
  ),
  "networks": Group("Networks", "Adapters of flax modules, layers, and the networks of the papers.", ("networks",)),
  "meta_training": Group("Training", "Meta-steps, and what composes, spreads, replays and saves them.", ("training",)),
  "evaluating": Group("Evaluation", "The metric after each inner step, on test tasks.", ("evaluation",)),
  "diagnosing": Group("Diagnostics", "Checks of a learner, the cost of a step, and geometry.", ("diagnostics",)),
  "reinforcement": Group("Reinforcement learning", "Environments, policies, episodes and losses on them.", ("rl",)),
  "running": Group("Runner", "Launches recipes from Python, as the command `warpjax` does.", ("runner",)),
  "internals": Group(
    "Internals",
    "Modules that the others are built from. They may change without notice; a method of your own seldom needs them.",
    (),
  ),
}
