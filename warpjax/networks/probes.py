"""Probes a user's module by tracing it: nothing is computed or compiled."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap

from warpjax.numerics import is_typed_key, named_leaves
from warpjax.types import PyTree

_MODES = ("train", "training", "is_training", "use_running_average", "deterministic")


class Calls(NamedTuple):
  """How a module is called, in both of its modes.

  Attributes:
    adapter: The adapter's name, for messages.
    module: The module's class.
    kwargs: Its arguments other than x.
    run: `(kwargs, keyed, stats, key data) -> outputs`. If not `keyed`, the module is called as a network with
      `takes_key` calls it for an x without a key; its outputs may depend on the key data all the same.
    stats: The statistics that the module keeps, arrays or their shapes.
  """

  adapter: str
  module: type
  kwargs: Mapping[str, Any]
  run: Callable[[Mapping[str, Any], bool, PyTree, jax.Array], PyTree]
  stats: PyTree


def depends_on(function: Callable[[PyTree], PyTree], values: PyTree) -> bool:
  """Whether outputs of `function` depend on `values`: under `vmap`, exactly those outputs are batched.

  Args:
    function: A function of a pytree like `values`; it is traced once.
    values: Arrays or their shapes.

  Returns:
    True if any output does.

  Example:
    >>> depends_on(lambda x: (x + 1, 2.0), jnp.ones(3)), depends_on(lambda x: jnp.zeros(x.shape), jnp.ones(3))
    (True, False)
  """
  seen: list[bool] = []

  @custom_vmap
  def probe(outputs: PyTree) -> PyTree:
    return outputs

  @probe.def_vmap
  def rule(size: int, batched: list[PyTree], outputs: PyTree) -> tuple[PyTree, PyTree]:
    del size
    seen.append(any(jax.tree.leaves(batched)))
    return outputs, batched[0]

  two = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((2, *leaf.shape), leaf.dtype), values)
  jax.eval_shape(jax.vmap(lambda each: probe(function(each))), two)
  return any(seen)


def check_calls(calls: Calls, takes_key: bool) -> None:
  """Raises a ValueError with the arguments to pass if a module does not behave as its adapter assumes.

  Errors are outputs that depend on statistics which nothing keeps, draws without a key, a key that nothing reads
  because of the module's mode, and draws that continue without a key.
  """
  try:
    _check(calls, takes_key)
  except NameError:  # flax's batch norm over a mesh axis that is not bound
    return


def _check(calls: Calls, takes_key: bool) -> None:
  draws = lambda kwargs: _reads_key(calls, kwargs, True)
  stale = lambda kwargs: _reads_stats(calls, kwargs, calls.stats)
  name = calls.module.__name__
  if stale(calls.kwargs):
    fix = _other_mode(calls, lambda kwargs: not stale(kwargs))
    how = _by_hand(calls)
    if fix is not None:
      how = f"Pass {_spell(calls, fix, takes_key or draws(fix))}, so that it uses the statistics of its batch"
    raise ValueError(
      f"the outputs of {name} depend on statistics that it keeps at {_read_paths(calls)}, such as a batch norm's "
      f"running averages. A Network keeps none, so they would have their first values (mean 0, variance 1). {how}. For "
      "statistics of your own see Network.apply_with_stats."
    )
  if not takes_key and draws(calls.kwargs):
    raise ValueError(
      f"{name} draws random numbers, as dropout does: pass {_spell(calls, calls.kwargs, True)}, and give its batches "
      "keys by tasks.augment.keyed and keyed_query. For an x without a key it drops nothing."
    )
  if takes_key and not draws(calls.kwargs) and (fix := _other_mode(calls, draws)):
    raise ValueError(f"takes_key=True, but {name} draws nothing as it is called: pass {_spell(calls, fix, True)}.")
  if takes_key and _reads_key(calls, calls.kwargs, False):
    raise ValueError(
      f"{name} draws random numbers for an x without a key too, outside of flax's Dropout and attention: let it draw "
      "only if self.has_rng('dropout') (linen), or only if its attribute `deterministic` is False (nnx)."
    )


def _key_data() -> Any:
  """The shape of the data of a key of the default kind."""
  return jax.eval_shape(lambda: jax.random.key_data(jax.random.key(0)))


def zeros(tree: PyTree) -> PyTree:
  """Zeros of the shapes and dtypes of `tree`."""
  return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), tree)


def _reads_key(calls: Calls, kwargs: Mapping[str, Any], keyed: bool) -> bool:
  return depends_on(lambda data: calls.run(kwargs, keyed, zeros(calls.stats), data), _key_data())


def _reads_stats(calls: Calls, kwargs: Mapping[str, Any], some: PyTree) -> bool:
  """Whether outputs depend on `some` of the statistics, a part of them with None for the others."""
  if not jax.tree.leaves(some):
    return False

  def function(values: PyTree) -> PyTree:
    fill = lambda value, leaf: zeros(leaf) if value is None else value
    stats = jax.tree.map(fill, values, calls.stats, is_leaf=lambda leaf: leaf is None)
    return calls.run(kwargs, True, stats, zeros(_key_data()))

  return depends_on(function, some)


def _read_paths(calls: Calls) -> list[str]:
  """Where the statistics are that outputs depend on, such as `['norm_0', 'block/norm']`."""
  names = [path for path, _ in named_leaves(calls.stats)]
  owners = sorted({name.rpartition("/")[0] or name for name in names})
  leaves, treedef = jax.tree.flatten(calls.stats)

  def of(owner: str) -> PyTree:
    part = [leaf if name.startswith(owner) else None for name, leaf in zip(names, leaves, strict=True)]
    return jax.tree.unflatten(treedef, part)

  return [owner for owner in owners if _reads_stats(calls, calls.kwargs, of(owner))]


def _other_mode(calls: Calls, works: Callable[[Mapping[str, Any]], bool]) -> Mapping[str, Any] | None:
  """The arguments with one flag inverted, for which it works; None if there is no such flag."""
  for kwargs in _toggled(calls):
    try:
      if works(kwargs):
        return kwargs
    except Exception:  # a flag that is no mode may break a module in any way
      continue
  return None


def _toggled(calls: Calls) -> Iterator[Mapping[str, Any]]:
  for name, parameter in list(inspect.signature(calls.module.__call__).parameters.items())[2:]:
    value = calls.kwargs.get(name, parameter.default)
    if isinstance(value, bool):
      yield {**calls.kwargs, name: not value}
    elif value is None and name in _MODES:
      yield from ({**calls.kwargs, name: flag} for flag in (True, False))


def _by_hand(calls: Calls) -> str:
  """The advice if no flag of the call helps: the mode may be an attribute, or an argument of another type."""
  module: Any = calls.module
  made, called = (inspect.signature(function).parameters for function in (module.__init__, module.__call__))
  if modes := [mode for mode in _MODES if mode in made]:
    return f"Construct it in training mode, such as {module.__name__}({modes[0]}={'train' in modes[0]})"
  if arguments := [name for name, p in list(called.items())[2:] if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]:
    return f"Pass its mode, if it is one of {', '.join(arguments)}, or use a layer without them"
  return "Use a layer without them"


def _spell(calls: Calls, kwargs: Mapping[str, Any], takes_key: bool) -> str:
  """The call to write, such as `from_linen(module, train=True)`."""
  first = "module" if calls.adapter == "from_linen" else "factory"
  given = {**({"takes_key": True} if takes_key else {}), **kwargs}
  return f"{calls.adapter}({', '.join([first, *(f'{name}={value!r}' for name, value in given.items())])})"


def check_arguments(adapter: str, module: type, kwargs: Mapping[str, Any]) -> None:
  """Raises a ValueError for arguments that the module's `__call__` lacks, and for those that it misses."""
  parameters = list(inspect.signature(module.__call__).parameters.values())[2:]
  named = {p.name: p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}
  if not any(p.kind is p.VAR_KEYWORD for p in parameters) and (unknown := sorted(set(kwargs) - set(named))):
    raise ValueError(
      f"{module.__name__}.__call__ has no argument {', '.join(unknown)}; it has {', '.join(named) or 'x alone'}."
    )
  missing = [name for name, p in named.items() if p.default is p.empty and name not in kwargs]
  if missing:
    raise ValueError(
      f"{module.__name__}.__call__ needs {', '.join(missing)} besides x: pass it to {adapter}, "
      f"such as {adapter}({'module' if adapter == 'from_linen' else 'factory'}, {missing[0]}=True)."
    )


def split_key(x: Any) -> tuple[Any, jax.Array | None]:
  """The inputs, and the key that rides with them as `(inputs, key data)`, or None."""
  if not (isinstance(x, tuple) and len(x) == 2 and _is_key(x[1])):
    return x, None
  return x[0], key_of(x[1])


def key_of(data: jax.Array) -> jax.Array:
  """A random key from its key data, as in a batch; a key is returned unchanged."""
  if is_typed_key(data):
    return data
  # Key data of two words are those of threefry, for every jax_default_prng_impl.
  return jax.random.wrap_key_data(data, impl="threefry2x32" if data.shape[-1] == 2 else None)


def _is_key(leaf: Any) -> bool:
  if not hasattr(leaf, "dtype"):
    return False
  return leaf.ndim == 0 if is_typed_key(leaf) else leaf.dtype == jnp.uint32 and leaf.ndim == 1
