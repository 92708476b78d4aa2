"""Checks of arguments that are easily confused; each mistake raises one sentence before anything compiles."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from warpjax.numerics import named_leaves
from warpjax.types import Aux, LossFn, MetaParams, Params, PyTree, Task, UpdateRule

RESERVED = ("loss", "finite", "skipped", "step", "split", "seconds")  # names of metrics beside those in aux
LOSS = ("params", "shared", "batch")
APPLY = ("params", "shared", "x")


def check_takes(name: str, function: Any, parameters: tuple[str, ...]) -> None:
  """Raises a ValueError unless the argument is a function of these parameters, in this order.

  Args:
    name: Name of the argument.
    function: The argument.
    parameters: Names, for the message; `function` may call them otherwise.
  """
  wanted = f"{name} must be a function ({', '.join(parameters)})"
  if not callable(function):
    hint = "; the function in it is its .apply" if hasattr(function, "apply") else ""
    raise ValueError(f"{wanted}; got {short(function)}{hint}")
  if hasattr(getattr(function, "__self__", function), "init_with_output"):  # a linen module, or its bound apply
    raise ValueError(f"{wanted}; got that of a flax module; pass networks.from_linen(module).apply")
  try:
    # For a class, the signature of __init__: flax's metaclass hides it.
    signature = inspect.signature(
      functools.partial(function.__init__, function) if inspect.isclass(function) else function
    )
  except (TypeError, ValueError):  # not every builtin has one
    return
  if not _binds(signature, *parameters):
    name = getattr(function, "__name__", type(function).__name__)
    shape = f"{name}({', '.join(signature.parameters)})"
    hint = " Parameters that tasks share, () for none, are its second argument." if parameters in (LOSS, APPLY) else ""
    if _binds(signature, **dict.fromkeys(parameters)):  # keyword-only
      called = name if inspect.isclass(function) else "f"
      by_name = f"lambda {', '.join(parameters)}: {called}({', '.join(f'{each}={each}' for each in parameters)})"
      hint = f" Pass {by_name}{'' if inspect.isclass(function) else ', with f this function'}."
    raise ValueError(f"{wanted}; got {shape}, which cannot be called so.{hint}")


def _binds(signature: inspect.Signature, *arguments: Any, **named: Any) -> bool:
  try:
    signature.bind(*arguments, **named)
  except TypeError:
    return False
  return True


def with_aux(loss_fn: LossFn, name: str = "loss_fn") -> LossFn:
  """The loss with aux, `{}` if it only returns a scalar.

  Args:
    loss_fn: `(params, shared, batch) -> (scalar, aux)`, or `-> scalar`.
    name: For messages.

  Returns:
    `(params, shared, batch) -> (scalar, aux)`; traced, it raises a ValueError for a loss that is no real scalar, or an
    aux that is no dict.

  Example:
    >>> with_aux(lambda params, shared, batch: (params - batch) ** 2)(jnp.array(3.0), (), 1.0)
    (Array(4., dtype=float32, weak_type=True), {})
  """

  def whole(params: Params, shared: PyTree, batch: PyTree) -> tuple[jax.Array, Aux]:
    result: Any = loss_fn(params, shared, batch)
    loss, aux = result if isinstance(result, tuple | list) and len(result) == 2 else (result, {})
    if not isinstance(aux, Mapping):
      raise ValueError(f"{name} must return a scalar, or (scalar, aux) with a dict as aux; got aux {short(aux)}")
    if isinstance(loss, tuple | list | dict) or loss is None or jnp.shape(loss) or not _is_real(loss):
      raise ValueError(
        f"{name} must return a real scalar, the mean over the batch, or (scalar, aux); got {short(loss)}"
      )
    _check_aux(aux, name)
    return loss, dict(aux)

  return whole


def _check_aux(aux: Mapping, name: str) -> None:
  for key, value in aux.items():
    if key in RESERVED or str(key).startswith(("grad_norm/", "param_norm/")):
      raise ValueError(f"the aux of {name} must not use the name {key!r}, which the metrics have; rename it")
    try:
      jax.tree.map(jnp.result_type, value)
    except TypeError:
      raise ValueError(f"the aux of {name} must hold numbers; got {short(value)} as {key!r}") from None
    if not isinstance(key, str):
      raise ValueError(f"the aux of {name} must have names as keys; got {short(key)}; pass {str(key)!r}")


def check_meta_params(meta_params: Any) -> None:
  """Raises a ValueError if the argument is not a `MetaParams`."""
  if isinstance(meta_params, MetaParams):
    return
  if isinstance(meta_params, Task):
    raise ValueError("meta_params must be a MetaParams; got a Task: meta_params comes first, then the task")
  how = "state.meta_params" if hasattr(meta_params, "meta_params") else "MetaParams(initial, shared, rule)"
  raise ValueError(f"meta_params must be a MetaParams; got {short(meta_params)}; pass {how}")


def check_task(task: Any) -> None:
  """Raises a ValueError if the argument is not a `Task`."""
  if isinstance(task, Task):
    return
  check_one_batch(task)
  how = "Task(*it)" if isinstance(task, tuple | list) and len(task) == 2 else "Task(support=..., query=...)"
  hint = ": the task comes after meta_params" if isinstance(task, MetaParams) else f"; pass {how}"
  raise ValueError(f"a task must be a Task; got {short(task)}{hint}")


def check_one_batch(tasks: Any) -> None:
  """Raises a ValueError for a list of tasks in the place of one `Task` with an axis of tasks."""
  if not isinstance(tasks, list) or not any(isinstance(each, Task) for each in tasks):
    return
  shapes = [[np.shape(leaf) for leaf in jax.tree.leaves(each)] for each in tasks]
  if all(each == shapes[0] for each in shapes):
    how = "pass jax.tree.map(lambda *leaves: jnp.stack(leaves), *tasks)"
  elif all([shape[1:] for shape in each] == [shape[1:] for shape in shapes[0]] for each in shapes):
    how = "pass padding.pad_tasks(tasks), as their sizes differ"
  else:
    how = "their shapes differ in more than the number of examples"
  raise ValueError(f"tasks must be one Task of leaves [num_tasks, ...]; got a list of them; {how}")


def check_rule_params(rule: UpdateRule, meta_params: MetaParams) -> None:
  """Raises a ValueError unless `MetaParams.rule` holds the rule's parameters, and no others.

  Paths are compared instead of structures, because tuples restored without a template are lists. A shape may differ
  from that of the rule's `init` if it is a scalar's, or broadcasts to it with as many axes: a missing first axis could
  be that of the steps.
  """
  made = jax.eval_shape(lambda: rule.init(jax.random.key(0), meta_params.initial))
  wanted, given = ({path: jnp.shape(leaf) for path, leaf in named_leaves(tree)} for tree in (made, meta_params.rule))
  if given and not wanted:
    path = next(iter(given))
    raise ValueError(
      f"MetaParams.rule must be empty for the rule {rule.name!r}, which has no parameters; got {_shown(given, path)}, "
      "of another rule; pass meta_params._replace(rule=()) to adapt by this one"
    )
  differing = [path for path in wanted if path not in given or not _broadcasts(given[path], wanted[path])]
  differing += [path for path in given if path not in wanted]
  if differing:
    path = differing[0]
    got = f"got {_shown(given, path)} where it has {_shown(wanted, path)}" if given else "got none"
    raise ValueError(
      f"MetaParams.rule must hold the parameters of the rule {rule.name!r}; {got}; pass "
      "MetaParams(initial, shared, rule=rule.init(key, initial)), or the meta_params of training.init"
    )


def _shown(shapes: dict[str, tuple[int, ...]], path: str) -> str:
  return f"{path or 'an array'} {list(shapes[path])}" if path in shapes else f"no {path or 'array'}"


def _broadcasts(shape: tuple[int, ...], over: tuple[int, ...]) -> bool:
  return not shape or (
    len(shape) == len(over) and all(size in (1, most) for size, most in zip(shape, over, strict=True))
  )


def check_sampler(sampler: Any, name: str = "sampler") -> None:
  """Raises a ValueError if the argument is not a function of a key."""
  wanted = f"{name} must be a function (key) -> Task, traced by JAX"
  if isinstance(sampler, Task):
    raise ValueError(f"{wanted}; got a Task: pass stored tasks to the step itself, step(state, tasks)")
  if isinstance(sampler, Iterator):
    raise ValueError(f"{wanted}; got {short(sampler)}; streams.steps trains over an iterable, and evaluate takes one")
  if inspect.isgeneratorfunction(getattr(sampler, "func", sampler)):
    raise ValueError(f"{wanted}; got a generator function; return one Task in the place of `yield`")
  check_takes(name, sampler, ("key",))


def check_step(step: Any) -> None:
  """Raises a ValueError if the argument is not a meta-step, but for example a meta-gradient."""
  try:
    check_takes("step", step, ("state", "tasks"))
  except ValueError as error:
    raise ValueError(f"{str(error).rstrip('.')}; training.meta_step(meta_grad, optimizer) makes one") from None


def check_state(state: Any) -> None:
  """Raises a ValueError if the argument is not a training state."""
  if isinstance(state, MetaParams | Task) or not hasattr(state, "meta_params"):
    raise ValueError(
      f"state must be a TrainState, as training.init makes it; got {short(state)}; call step(state, tasks)"
    )


def check_optimizer(optimizer: Any) -> None:
  """Raises a ValueError if the argument is not an optax optimizer."""
  if callable(getattr(optimizer, "init", None)) and callable(getattr(optimizer, "update", None)):
    return
  hint = (
    "; a rule is for the inner loop, here pass optax.adam(1e-3) or the like"
    if isinstance(optimizer, UpdateRule)
    else ""
  )
  raise ValueError(f"optimizer must be an optax.GradientTransformation; got {short(optimizer)}{hint}")


def check_targets(y: Any) -> None:
  """Raises a ValueError for targets that are scalars: one task, whose examples are read as tasks."""
  if np.isscalar(y) or getattr(y, "ndim", 1) == 0:
    raise ValueError(f"y must be [batch, ...]; got a scalar{NO_AXIS}")


def check_labels(labels: Any, logits: Any) -> None:
  """Raises a ValueError for labels that are not integers `[batch]`, or whose known values are not classes.

  Args:
    labels: Labels of the batch; the values of traced ones are not known.
    logits: `[batch, classes]`.
  """
  if not hasattr(labels, "dtype"):
    raise ValueError(f"x and y must be arrays; got {short(labels)} as y; pass jnp.asarray(y)")
  classes, wanted = jnp.shape(logits)[-1:], jnp.shape(logits)[:-1]
  got = f"got {labels.dtype}{list(labels.shape)} for logits {list(jnp.shape(logits))}"
  if not wanted:
    raise ValueError(f"apply must return logits [batch, classes]; {got}")
  if labels.shape == (*wanted, *classes):
    raise ValueError(f"y must be integers [batch], one class for each example; {got}: one-hot? pass jnp.argmax(y, -1)")
  if labels.shape != wanted:
    raise ValueError(f"y must be integers of the shape {list(wanted)}, one for each example; {got}")
  if not jnp.issubdtype(labels.dtype, jnp.integer):
    raise ValueError(f"y must be integers [batch], one class for each example; {got}; pass y.astype(jnp.int32)")
  if isinstance(labels, jax.core.Tracer) or not labels.size or not getattr(labels, "is_fully_addressable", True):
    return
  values = np.asarray(labels)  # NumPy's functions of a JAX array are JAX's, which a trace around them would trace
  low, high = int(values.min()), int(values.max())
  if low < 0 or high >= classes[0]:
    raise ValueError(f"y must be classes 0 to {classes[0] - 1}, of which apply returns logits; got {low} to {high}")


def check_batch_axis(apply: Callable[..., Any], params: Params, shared: PyTree, x: Any, y: Any) -> None:
  """Raises a ValueError where x is one example to apply: one task, whose examples are read as tasks.

  It is certain if apply takes no other length, maps a batch of such x to a batch of such y, and x has another number of
  examples than y, or one. Other functions of a fixed length, such as an apply with a grid, are accepted.
  """
  if getattr(x, "ndim", 0) != 1 or x.shape[0] == y.shape[0] != 1:
    return

  def shape_of(*shape: int) -> tuple[int, ...] | None:
    try:
      return jax.eval_shape(lambda x: apply(params, shared, x), jax.ShapeDtypeStruct(shape, x.dtype)).shape
    except Exception:  # networks raise different errors for a wrong shape
      return None

  if shape_of(x.shape[0] + 1) is None and shape_of(2, *x.shape) == (2, *y.shape):
    raise ValueError(f"x must be [batch, ...]; got {list(x.shape)}, which apply reads as one example{NO_AXIS}")


def check_floating(x: Any) -> None:
  """Raises a ValueError for images of bytes, whose numbers are 255 times as large as a network expects."""
  if x.dtype == jnp.uint8:
    raise ValueError("x must be floating-point, got uint8; tasks.few_shot.to_unit(x) makes it [0, 1].")


NO_AXIS = (
  "; does the batch of tasks lack its first axis, [num_tasks, examples, ...]? "
  "One task gets it by jax.tree.map(lambda leaf: leaf[None], task)"
)


def _is_real(value: Any) -> bool:
  return jnp.issubdtype(jnp.result_type(value), jnp.floating)


def short(value: Any) -> str:
  """A plain value itself, dtype and shape of an array, the type of anything else."""
  if hasattr(value, "dtype") and hasattr(value, "shape"):
    return f"an array {value.dtype}{list(value.shape)}"
  if value is None or isinstance(value, bool | int | float | str):
    return repr(value)
  article = "an" if type(value).__name__[0] in "AEIOUaeiou" else "a"
  return f"{article} {type(value).__name__}"
