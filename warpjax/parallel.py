"""Many devices: the task axis sharded over a mesh."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, PartitionSpec

from warpjax.training import TrainState, check_averaging_over
from warpjax.types import Task

DEVICES = "devices"


def device_mesh(num_devices: int | None = None) -> Mesh:
  """A one-dimensional mesh, its axis named "devices".

  Args:
    num_devices: The first so many devices; None for all of them.

  Returns:
    A mesh for `over_devices`.

  Raises:
    ValueError: when there are not that many devices.
  """
  devices = jax.devices()
  count = len(devices) if num_devices is None else num_devices
  if not 1 <= count <= len(devices):
    raise ValueError(f"num_devices must be between 1 and {len(devices)}; got {num_devices!r}")
  return Mesh(devices[:count], (DEVICES,), axis_types=(AxisType.Auto,))


def over_devices(step: Callable, mesh: Mesh, *, takes_tasks: bool = True) -> Callable:
  """A meta-step whose tasks are spread over the mesh, everything else replicated.

  Args:
    step: `meta_step(..., axis_name="devices")`, or `many_steps(..., axis_name="devices")`.
    mesh: From `device_mesh`.
    takes_tasks: True for `(state, tasks) -> ...`, False for `(state) -> ...`.

  Returns:
    The jitted step over the mesh.

  Raises:
    ValueError: when the step averages over another axis, or none; when called with a number of tasks that is no
      multiple of the number of devices.
  """
  check_averaging_over(mesh.axis_names[0], step)
  split, whole = PartitionSpec(mesh.axis_names[0]), PartitionSpec()
  specs: Any = (whole, whole, whole, whole, split)
  state = TrainState(*specs)
  in_specs: Any = (state, split) if takes_tasks else (state,)
  # The default check_vma=True sums every inner gradient over the devices; the step averages by itself.
  spread = jax.shard_map(step, mesh=mesh, in_specs=in_specs, out_specs=(state, whole), check_vma=False)

  @jax.jit
  def run(state: TrainState, *tasks: Task) -> Any:
    for leaf in jax.tree.leaves((tasks, state.carry)):
      if leaf.shape[0] % mesh.size:
        raise ValueError(f"the number of tasks must be a multiple of the {mesh.size} devices; got {leaf.shape[0]}")
    return spread(state, *tasks)

  return run
