"""Many devices: the task axis sharded over a mesh."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from warpjax import processor
from warpjax.checks import check_count
from warpjax.numerics import is_typed_key
from warpjax.training.step import Dispatch, Metrics, Step, TrainState, check_averaging_over
from warpjax.types import PyTree

DEVICES = "devices"


def use_cores(cores: int | None = None) -> int:
  """Makes a device of each core of a CPU, for `over_devices`. It must be called before JAX runs anything.

  A device runs one operation at a time, so that the other devices use the other cores. This is faster if a task keeps a
  core busy, as with networks for images.

  Args:
    cores: How many devices; `None` for the cores that this process may use.

  Returns:
    The number of devices of a CPU.

  Raises:
    ValueError: if JAX has already started with another number of CPU devices, or `cores` is below 1.

  Example:
    >>> use_cores(len(jax.devices("cpu")))  # as many as there are, which is allowed later too
    1
  """
  count = processor.cores() if cores is None else cores
  check_count("cores", count)
  try:
    jax.config.update("jax_num_cpu_devices", count)
  except RuntimeError:
    if (started := len(jax.devices("cpu"))) != count:
      reason = f"use_cores must be called before JAX runs anything; it has {started} of {count} CPU devices"
      raise ValueError(reason) from None
  return count


def device_mesh(num_devices: int | None = None) -> Mesh:
  """A one-dimensional mesh, its axis named "devices".

  Args:
    num_devices: The number of devices, the same of each process; None for all of them.

  Returns:
    A mesh for `over_devices`.

  Raises:
    ValueError: if there are fewer devices, or the processes cannot have the same number of them.

  Example:
    >>> mesh = device_mesh(1)
    >>> mesh.axis_names, mesh.size
    (('devices',), 1)
  """
  devices, hosts = jax.devices(), jax.process_count()
  count = len(devices) if num_devices is None else num_devices
  if not 1 <= count <= len(devices):
    raise ValueError(f"num_devices must be between 1 and {len(devices)}; got {num_devices!r}")
  if count % hosts:
    raise ValueError(f"num_devices must be a multiple of the {hosts} processes; got {num_devices!r}")
  by_host = [[device for device in devices if device.process_index == host] for host in range(hosts)]
  devices = [device for local in by_host for device in local[: count // hosts]]
  return Mesh(devices, (DEVICES,), axis_types=(AxisType.Auto,))


def over_devices(
  step: Step | Dispatch | Callable[..., tuple[TrainState, Metrics]], mesh: Mesh, *, takes_tasks: bool = True
) -> jax.stages.Wrapped:
  """A meta-step whose tasks are spread over the mesh, everything else replicated.

  Args:
    step: `meta_step(..., axis_name="devices")`, or `many_steps(..., axis_name="devices")`.
    mesh: From `device_mesh`.
    takes_tasks: True for `(state, tasks) -> ...`, False for `(state) -> ...`, which `many_steps(...)` always is.

  Returns:
    The jitted step over the mesh. Further arguments, such as a sampler with its data, are replicated on every device;
    only a step that is a plain function takes them.

  Raises:
    ValueError: when the step averages over another axis, or none; when called with a number of tasks that is no
      multiple of the number of devices.

  Example:
    >>> import jax.numpy as jnp, optax, warpjax as wj
    >>> loss = lambda w, shared, batch: (0.5 * (w - batch) ** 2, {})
    >>> inner, optimizer = wj.InnerLoop(loss, wj.rules.sgd(0.5), num_steps=1), optax.sgd(1.0)
    >>> state = wj.training.init(jax.random.key(0), inner.rule, jnp.array(0.0), (), optimizer)
    >>> step = wj.training.meta_step(wj.meta_gradients.unrolled(inner), optimizer, axis_name="devices")
    >>> state, metrics = over_devices(step, device_mesh(1))(state, wj.Task(*2 * [jnp.array([4.0, 8.0])]))
    >>> float(state.meta_params.initial)
    1.5
  """
  check_averaging_over(mesh.axis_names[0], step)
  split, whole = PartitionSpec(mesh.axis_names[0]), PartitionSpec()
  fields: Any = (whole, whole, whole, whole, split)
  whole_state = TrainState(*fields)
  first: Any = (whole_state, split) if takes_tasks and not isinstance(step, Dispatch) else (whole_state,)

  @jax.jit
  def run(state: TrainState, *others: Any) -> Any:
    for leaf in jax.tree.leaves((others[: len(first) - 1], state.carry)):
      if leaf.shape[0] % mesh.size:
        raise ValueError(f"the number of tasks must be a multiple of the {mesh.size} devices; got {leaf.shape[0]}")
    specs: Any = {"in_specs": (*first, *(whole for _ in others[len(first) - 1 :])), "out_specs": (whole_state, whole)}
    # The default check_vma=True sums every inner gradient over the devices; the step averages by itself.
    return jax.shard_map(step, mesh=mesh, check_vma=False, **specs)(state, *others)

  return run


def on_every_host(tree: PyTree, mesh: Mesh) -> PyTree:
  """Arrays that each process holds, and arrays spread over the mesh, as arrays that every device has whole.

  A program over the mesh would copy what only one device has to all of them, in every call.

  Args:
    tree: The same values on each process, or arrays over the mesh.
    mesh: From `device_mesh`.

  Returns:
    The same values, which the devices of one process's CPU share; with one device, the tree itself.
  """
  if mesh.size == 1:
    return tree
  whole = NamedSharding(mesh, PartitionSpec())

  def place(leaf: Any) -> jax.Array:
    if isinstance(leaf, jax.Array) and leaf.sharding.is_equivalent_to(whole, leaf.ndim):
      return leaf
    if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
      return jax.jit(_identity, out_shardings=whole)(leaf)
    if is_typed_key(leaf):
      return jax.random.wrap_key_data(place(jax.random.key_data(leaf)), impl=jax.random.key_impl(leaf))
    values = np.asarray(leaf)
    return jax.make_array_from_callback(values.shape, whole, lambda index: values[index])

  return jax.tree.map(place, tree)


def on_this_host(tree: PyTree) -> PyTree:
  """Replicated arrays as arrays of only this process; with one process, the tree itself."""
  if jax.process_count() == 1:
    return tree

  def take(leaf: jax.Array) -> jax.Array:
    if is_typed_key(leaf):
      return jax.random.wrap_key_data(take(jax.random.key_data(leaf)), impl=jax.random.key_impl(leaf))
    return jax.numpy.asarray(np.asarray(leaf))

  return jax.tree.map(take, tree)


def _identity(leaf: jax.Array) -> jax.Array:
  return leaf
