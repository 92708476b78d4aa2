"""optax's adaptive optimizers, safe to differentiate through. Each raises a ValueError unless `learning_rate` is
a positive number or a schedule.

Each divides by the root of an average of squared gradients. Without a number under the root, optax's default for Adam
and its variants, the derivative at a zero gradient is NaN, and every dead unit has a zero gradient.
"""

from __future__ import annotations

import optax

from warpjax.checks import check_learning_rate, is_number
from warpjax.rules.combinators import Mask
from warpjax.rules.stateless import no_parameters
from warpjax.types import Rate, Scalar, UpdateRule

# The derivative of 1 / sqrt(eps) is of the size of eps ** -1.5, which single precision holds down to 1e-25.
_SAFE = 1e-20


def adam(
  learning_rate: Rate, b1: Scalar = 0.9, b2: Scalar = 0.999, eps: Scalar = 1e-8, eps_root: Scalar = 1e-8
) -> UpdateRule:
  """Adam, safe to differentiate through: `m / (sqrt(v + eps_root) + eps)`.

  With `eps_root = 0` the derivative at a zero gradient is NaN (the square root's), so the default is not zero;
  it caps the step of coordinates whose root mean square gradient is below 1e-4. Reptile uses `b1=0, eps_root=0`,
  which is safe there since nothing is unrolled.

  Args:
    learning_rate: A positive number, or an optax schedule over inner steps.
    b1: Decay of the first moment.
    b2: Decay of the second moment.
    eps: Added outside the root.
    eps_root: Added inside the root.

  Returns:
    An `UpdateRule` with rule parameters `()`.

  Raises:
    ValueError: when the learning rate is not a positive number or a schedule.

  Example:
    >>> adam(1e-3, b1=0.0).name
    'adam'

  Reference:
    Kingma and Ba 2015, arXiv 1412.6980.
  """
  check_learning_rate(learning_rate)
  return _rule("adam", optax.adam(learning_rate, b1, b2, eps, eps_root), eps_root)


def nadam(
  learning_rate: Rate, b1: Scalar = 0.9, b2: Scalar = 0.999, eps: Scalar = 1e-8, eps_root: Scalar = 1e-8
) -> UpdateRule:
  """Adam with Nesterov's momentum; arguments, result and errors as for `adam`.

  Example:
    >>> nadam(1e-3).name
    'nadam'

  Reference:
    Dozat 2016, "Incorporating Nesterov momentum into Adam".
  """
  check_learning_rate(learning_rate)
  return _rule("nadam", optax.nadam(learning_rate, b1, b2, eps, eps_root), eps_root)


def amsgrad(
  learning_rate: Rate, b1: Scalar = 0.9, b2: Scalar = 0.999, eps: Scalar = 1e-8, eps_root: Scalar = 1e-8
) -> UpdateRule:
  """Adam whose second moment never falls; arguments, result and errors as for `adam`.

  Example:
    >>> amsgrad(1e-3).name
    'amsgrad'

  Reference:
    Reddi, Kale, Kumar 2018, arXiv 1904.09237, algorithm 2.
  """
  check_learning_rate(learning_rate)
  return _rule("amsgrad", optax.amsgrad(learning_rate, b1, b2, eps, eps_root), eps_root)


def adamw(
  learning_rate: Rate,
  b1: Scalar = 0.9,
  b2: Scalar = 0.999,
  eps: Scalar = 1e-8,
  eps_root: Scalar = 1e-8,
  weight_decay: Scalar = 1e-4,
  mask: Mask | None = None,
) -> UpdateRule:
  """Adam's step, and `-learning_rate * weight_decay * theta`; the first five arguments are as for `adam`.

  Args:
    learning_rate: As for `adam`.
    b1: As for `adam`.
    b2: As for `adam`.
    eps: As for `adam`.
    eps_root: As for `adam`.
    weight_decay: Factor of the decay.
    mask: The parameters that decay: a tree of booleans or a function from parameters to one; None for all.

  Returns:
    An `UpdateRule` with rule parameters `()`.

  Raises:
    ValueError: when the learning rate is not a positive number or a schedule.

  Example:
    >>> adamw(1e-3, weight_decay=1e-2).name
    'adamw'

  Reference:
    Loshchilov and Hutter 2019, arXiv 1711.05101.
  """
  check_learning_rate(learning_rate)
  decayed = optax.adamw(learning_rate, b1, b2, eps, eps_root, weight_decay=weight_decay, mask=mask)
  return _rule("adamw", decayed, eps_root)


def rmsprop(
  learning_rate: Rate,
  decay: Scalar = 0.9,
  eps: Scalar = 1e-8,
  momentum: Scalar | None = None,
  initial_scale: float = 0.0,
) -> UpdateRule:
  """`g / sqrt(v + eps)`, v the moving average of `g^2`.

  Args:
    learning_rate: A positive number, or an optax schedule over inner steps.
    decay: Decay of the average.
    eps: Added inside the root, where it makes the derivative finite.
    momentum: Decay of the momentum buffer, or None.
    initial_scale: The average at the start; at 1, the first steps are small.

  Returns:
    An `UpdateRule` with rule parameters `()`.

  Raises:
    ValueError: when the learning rate is not a positive number or a schedule.

  Example:
    >>> rmsprop(1e-3).name
    'rmsprop'

  Reference:
    Tieleman and Hinton 2012, lecture 6.5 of "Neural networks for machine learning".
  """
  check_learning_rate(learning_rate)
  return _rule("rmsprop", optax.rmsprop(learning_rate, decay, eps, initial_scale, momentum=momentum), eps)


def adagrad(learning_rate: Rate, initial_accumulator: float = 0.1, eps: Scalar = 1e-7) -> UpdateRule:
  """`g / sqrt(s + eps)`, s the sum of all `g^2` so far.

  Args:
    learning_rate: A positive number, or an optax schedule over inner steps.
    initial_accumulator: The initial value of s.
    eps: Added inside the root, where it makes the derivative finite.

  Returns:
    An `UpdateRule` with rule parameters `()`.

  Raises:
    ValueError: when the learning rate is not a positive number or a schedule.

  Example:
    >>> adagrad(1e-2).name
    'adagrad'

  Reference:
    Duchi, Hazan, Singer 2011, "Adaptive subgradient methods".
  """
  check_learning_rate(learning_rate)
  return _rule("adagrad", optax.adagrad(learning_rate, initial_accumulator, eps), eps)


def _rule(name: str, transformation: optax.GradientTransformation, under_root: Scalar) -> UpdateRule:
  """A rule whose derivative is finite if `under_root` is at least `_SAFE`; otherwise an estimator tries it first."""
  safe = True if is_number(under_root) and under_root >= _SAFE else None
  transform = lambda rule_params: transformation
  return UpdateRule(no_parameters, transform, name=name, finite_at_zero=safe)
