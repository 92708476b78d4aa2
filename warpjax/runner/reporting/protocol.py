"""The protocol card: the conditions of a measured number, part of every result."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from warpjax.runner.experiment import Experiment


def card(experiment: Experiment, num_tasks: int) -> dict[str, Any]:
  """The conditions of a result on `num_tasks` test tasks; None for a setting that the experiment does not have."""
  settings, evaluation, run = experiment.settings, experiment.evaluation, experiment.run
  data, inner, optimizer = settings["data"], settings["inner"], settings["optimizer"]
  description = experiment.data.description
  return {
    "data": data["name"],
    "split_sha256": description.get("split_sha256"),
    "partial": description.get("missing") if description.get("partial") else False,
    "data_notes": "; ".join(description.get("notes", ())) or None,
    "ways": data.get("ways"),
    "shots": data.get("shots"),
    "queries": data.get("queries"),
    **of_training(data),
    "augmentation": data.get("augmentation") or None,
    "inner_steps_train": experiment.inner.num_steps,
    "inner_steps_test": evaluation.num_steps,
    "inner_rule": inner["rule"],
    "inner_learning_rate": inner.get("learning_rate"),
    "inner_prox_train": experiment.inner.prox or None,
    "inner_prox_test": experiment.test_inner.prox or None,
    "inner_optimizer_state": evaluation.optimizer_state,
    "learning_rate_on": "the mean loss over the batch",
    "network_dtype": settings["network"].get("dtype"),
    "norm_stats": experiment.norm_stats,
    "transductive": experiment.norm_stats == "transductive",
    "train_norm_stats": experiment.norm_stats if experiment.norm_stats == "none" else run.train_norm_stats,
    "meta_steps": run.num_meta_steps,
    "tasks_per_step": run.tasks_per_step,
    "outer_optimizer": f"{optimizer['name']}, {optimizer.get('learning_rate')}",
    "test_tasks": num_tasks,
    "test_seed": evaluation.seed,
    "selection": "validation" if evaluation.val_tasks else "last checkpoint",
    "val_tasks": evaluation.val_tasks,
    "ensemble": evaluation.ensemble or False,
    "seeds": [run.seed],
  }


def of_training(data: Mapping[str, Any]) -> dict[str, Any]:
  """The sizes of a training task, from the table `data` of the training config."""
  return {f"train_{name}": data.get(f"train_{name}") or data.get(name) for name in ("shots", "queries", "query")}


def text(result: Mapping[str, Any]) -> str:
  """The card of a result as lines, beginning with its number."""
  of = "seeds" if "over_seeds" in result else "tasks"
  lines = [("result", f"{result['metric']} {_number(result['mean'])} +/- {_number(result['ci95'])} (95% over {of})")]
  if result.get("num_diverged"):
    total = " of all seeds" if of == "seeds" else ""
    lines.append(("diverged", f"{result['num_diverged']} test tasks{total}, left out"))
  for name in ("transductive", "support", "support_plus_one", "running"):
    if isinstance(result.get(name), Mapping):
      lines.append((f"under {name}", f"{_number(result[name]['mean'])} +/- {_number(result[name]['ci95'])}"))
  if published := result.get("published"):
    lines.append(("published", f"{published['number']} +/- {published['interval']} ({published['source']})"))
  lines += [(name, value) for name, value in result.get("protocol", {}).items() if value is not None and value != []]
  width = max(len(name) for name, _ in lines)
  return "\n".join(f"{name.replace('_', ' '):{width}}  {value}" for name, value in lines)


def _number(value: float | None) -> str:
  return "undefined" if value is None else f"{value:.4f}"
