"""The peers in JAX: warpjax as README writes it and by its faster paths, flax's convolution, JAX by hand, a product."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import NamedSharding, PartitionSpec

import warpjax as wj
from experiments.peers import cases, plain_jax
from experiments.peers.cases import Case
from warpjax import losses, meta_gradients, networks, rules, training
from warpjax.meta_gradients import along_trajectory, blockwise, leap, unrolled, warp
from warpjax.networks import conv
from warpjax.training import optimizers, parallel, replay
from warpjax.types import Batch, InnerLoop, LossFn, MetaParams, Params, PyTree, Task


class Path(NamedTuple):
  """How warpjax computes: over a device of each core or not, and by which products of convolutions."""

  over_cores: bool = False
  products: conv.Products = "float32"


PATHS = {
  "warpjax": Path(),
  "warpjax_cores": Path(over_cores=True),
  "warpjax_bfloat16": Path(products="bfloat16"),
  "warpjax_cores_bfloat16": Path(over_cores=True, products="bfloat16"),
}
NAMES = (*PATHS, "warp_maml", "reverse", "flax", "jax", "matmul")
# Large enough that a GPU works for milliseconds.
MATMUL_SIZES = {"cpu": 2048, "gpu": 16384}


class JaxPeer:
  """A meta-step that is ready to be timed; `facts` says what it computes and costs."""

  def __init__(self, name: str, case: Case):
    wanted = case._replace(warp=case.warp or name == "warp_maml")
    inner, path = inner_loop(name, wanted), PATHS.get(name, Path())
    num_devices = jax.device_count() if path.over_cores else 1
    axis = parallel.DEVICES if path.over_cores else None
    step, optimizer = meta_step(name, wanted, inner, axis)
    self.tasks, state = tasks(wanted), training.init(jax.random.key(0), inner.rule, *blocks(wanted)[:2], optimizer)
    if path.over_cores:
      mesh = parallel.device_mesh(num_devices)
      step = parallel.over_devices(step, mesh)
      state = jax.device_put(state, NamedSharding(mesh, PartitionSpec()))
      self.tasks = jax.device_put(self.tasks, NamedSharding(mesh, PartitionSpec(parallel.DEVICES)))
    traced = (step if path.over_cores else jax.jit(step)).trace(state, self.tasks)
    program = traced.lower().compile()
    known = wj.cost.cost_of(traced, program)
    # A program that is compiled ahead takes longer to call, which is much of the time of the smallest network.
    self.step = jax.jit(step) if case.network == "mlp" else program
    self.state, metrics = self.step(state, self.tasks)
    self.facts = {
      "numbers": {} if name == "warp_maml" else _numbers(metrics),
      "flops": known.flops * num_devices,
      "temp_bytes": known.temp_bytes * num_devices,
      "version": jax.__version__,
      "device": jax.devices()[0].device_kind,
      "num_devices": num_devices,
    }

  def __call__(self) -> None:
    """One meta-step, to its end."""
    self.state, _ = jax.block_until_ready(self.step(self.state, self.tasks))


def _numbers(metrics: dict[str, jax.Array]) -> dict[str, float]:
  return {key: float(value) for key, value in metrics.items() if key == "loss" or key.startswith("grad_norm/")}


class Matmul:
  """A matrix product, the yardstick of the machine."""

  def __init__(self, case: Case):
    dtype = jnp.bfloat16 if case.precision == "bfloat16" else jnp.float32
    size = MATMUL_SIZES.get(jax.default_backend(), 8192)
    self.x = jax.random.normal(jax.random.key(0), (size, size), dtype)
    self.product = jax.jit(functools.partial(jnp.dot, preferred_element_type=jnp.float32))
    self.facts = {"flops": 2.0 * size**3, "version": jax.__version__}

  def __call__(self) -> None:
    """One product."""
    jax.block_until_ready(self.product(self.x, self.x))


def network(name: str, case: Case) -> networks.Network:
  """The case's network; flax's has its own convolution."""
  if case.network == "mlp":
    return networks.from_linen(networks.MLP(cases.HIDDEN))
  products = "bfloat16" if case.precision == "bfloat16" else PATHS.get(name, Path()).products
  convolution: Any = functools.partial(conv.conv_general_dilated, lowering=case.lowering, products=products)
  fields = {
    "conv_general_dilated": jax.lax.conv_general_dilated if name == "flax" else convolution,
    "warp": networks.WarpSpec() if case.warp else None,
    **cases.ARCHITECTURES[case.network].fields(),
  }
  return networks.from_linen(networks.Conv4(case.ways, case.width, **fields))


def blocks(case: Case) -> MetaParams:
  """The initial parameters of the case by block."""
  layers = jax.tree.map(jnp.asarray, cases.parameters(case))
  initial = {name: leaves for name, leaves in layers.items() if not name.startswith("warp_")}
  shared = {name: {"conv3x3_0": leaves} for name, leaves in layers.items() if name.startswith("warp_")}
  return MetaParams(initial, shared or ())


def tasks(case: Case) -> Task:
  """The tasks of the case, leaves `[num_tasks, ...]`."""
  arrays = jax.tree.map(jnp.asarray, cases.tasks(case))
  return Task(*((arrays[f"{part}_x"], arrays[f"{part}_y"]) for part in ("support", "query")))


def inner_loop(name: str, case: Case) -> InnerLoop:
  """SGD on the support set, or on its minibatch of each step."""
  loop = InnerLoop(_loss(name, case), rules.sgd(case.learning_rate), case.num_steps)
  return loop if case.method == "maml" else loop._replace(batch_fn=_batch_of_step)


def _batch_of_step(key: jax.Array, support: PyTree, step: jax.Array, params: Params, shared: PyTree) -> Batch:
  del key, params, shared
  return jax.tree.map(lambda leaf: leaf[step], support)


def _loss(name: str, case: Case) -> LossFn:
  make_loss = losses.regression if case.network == "mlp" else losses.classification
  return make_loss(network(name, case).apply)


def meta_step(
  name: str, case: Case, inner: InnerLoop, axis_name: str | None
) -> tuple[Any, optax.GradientTransformation]:
  """The case's meta-step and its outer optimizer."""
  if case.method == "warp":
    path, sgd = leap(loss=False), optax.sgd(cases.OUTER_SGD[case.method])
    optimizer = optimizers.per_block(initial=sgd, shared=sgd)
    options: dict[str, Any] = {"objective": case.objective, "initial": path, "axis_name": axis_name}
    return replay.meta_step(inner, optimizer, **options), optimizer
  # flax's convolution has all tasks under one `jax.vmap`.
  options = {"axis_name": axis_name, "task_chunk": case.num_tasks if name == "flax" else None}
  sgd, adam = optax.sgd(cases.OUTER_SGD["leap"]), optax.adam(cases.OUTER_LEARNING_RATE)
  optimizer = sgd if case.method == "leap" else adam
  return training.meta_step(_meta_gradient(name, case, inner), optimizer, **options), optimizer


def _meta_gradient(name: str, case: Case, inner: InnerLoop) -> Any:
  if case.method == "leap":
    return along_trajectory(inner, leap())
  if name == "warp_maml":
    shared: Any = along_trajectory(inner, warp())
    return blockwise(initial=unrolled(inner), shared=shared)
  if name in ("reverse", "flax"):
    return meta_gradients.unrolled(inner, "reverse", memory="save_all")
  return unrolled(inner)


def order(case: Case) -> tuple[int, ...]:
  """The order in which the first meta-step replays the iterates of a `warp` case's task."""
  state: Any = training.TrainState(MetaParams(()), (), jnp.int32(0), jax.random.key(0))
  return tuple(int(point) for point in replay._draws(state, case.num_steps, 1, None).ravel())


def use_cores(case: Case) -> None:
  """Makes a device of each core, before JAX has run anything.

  Raises:
    ValueError: If there is only one core, or the tasks do not divide over the cores.
  """
  if cases.cores() == 1 or case.num_tasks % cases.cores():
    raise ValueError(f"{case.num_tasks} tasks do not divide over {cases.cores()} cores, or there is only one core")
  jax.config.update("jax_num_cpu_devices", cases.cores())


def make(name: str, case: Case) -> JaxPeer | Matmul | plain_jax.PlainJax:
  """The peer of that name; what needs a device of each core does so before JAX has run anything.

  Raises:
    ValueError: For an unknown name.
  """
  if name not in NAMES:
    raise ValueError(f"peer must be one of {', '.join(NAMES)}; got {name!r}")
  jax.config.update("jax_default_matmul_precision", "highest" if case.precision == "float32" else None)
  if name == "matmul":
    return Matmul(case)
  if name == "jax":
    return plain_jax.PlainJax(case)
  if PATHS.get(name, Path()).over_cores:
    use_cores(case)
  return JaxPeer(name, case)
