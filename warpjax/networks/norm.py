"""Normalisation layers by name: over the batch, or over each example alone."""

from __future__ import annotations

from typing import Any

import flax.linen as nn

KINDS = ("batch", "group", "layer")


def norm_layer(
  kind: str, *, use_running_average: bool, epsilon: float, use_scale: bool, groups: int = 8, **named: Any
) -> nn.Module:
  """A normalisation layer for `[batch, height, width, channels]`.

  Args:
    kind: "batch"; "group", over each example's space and groups of channels; "layer", over its space and all channels.
    use_running_average: For batch norm, whether it uses given statistics.
    epsilon: Added to the variance.
    use_scale: Whether there is a scale besides the bias.
    groups: Groups of channels for "group".
    **named: `name`, `dtype`, `param_dtype`.

  Returns:
    The layer.

  Raises:
    ValueError: for an unknown kind.
  """
  if kind not in KINDS:
    raise ValueError(f"norm must be one of {KINDS}, got {kind!r}.")
  if kind == "batch":
    return nn.BatchNorm(use_running_average, momentum=0.9, epsilon=epsilon, use_scale=use_scale, **named)
  return nn.GroupNorm(1 if kind == "layer" else groups, epsilon=epsilon, use_scale=use_scale, **named)
