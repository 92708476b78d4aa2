"""Omniglot with 5 shots, with 20 ways, and with both: what each paper changes, and its numbers."""

from __future__ import annotations

from collections.abc import Mapping

from warpjax.runner import rows

_FIVE_SHOTS: rows.Table = {"data": {"shots": 5, "queries": 5}}
_TWENTY_WAYS: rows.Table = {"data": {"ways": 20}}

# MAML's step size of 0.1 is on the sum over 20 classes: 2.0 on the mean, the same as its 0.4 is for 5.
_MAML_20: rows.Table = {"tasks_per_step": 16, "inner": {"num_steps": 5}, "eval": {"num_steps": 5}}
_IMAML_20: rows.Table = {"inner": {"num_steps": 25}, "eval": {"num_steps": 25}}
_ONE_QUERY: rows.Table = {"data": {"queries": 1}}
_OF_TWENTY: dict[str, rows.Table] = {
  **dict.fromkeys(("maml", "fomaml", "anil"), _MAML_20),
  "reptile": {
    "num_meta_steps": 200_000,
    "inner": {"learning_rate": 5e-4, "num_steps": 10, "batch_size": 20},
    "eval": {"batch_size": 10},
  },
  "imaml": _IMAML_20,
}
_OF_FIVE: dict[str, rows.Table] = dict.fromkeys(("reptile", "mamlpp"), _ONE_QUERY)

# Accuracy and its interval, 0 where there is none: 5 ways 5 shots, 20 ways 1 shot, 20 ways 5 shots; None for no row.
_PUBLISHED: dict[str, tuple[tuple[float, float] | None, ...]] = {
  "maml": ((0.999, 0.001), (0.958, 0.003), (0.989, 0.002)),
  "fomaml": ((0.992, 0.002), (0.894, 0.005), (0.979, 0.001)),
  "anil": (None, (0.962, 0.005), (0.98, 0.003)),
  "meta_sgd": ((0.9993, 0.0009), (0.9593, 0.0), (0.9897, 0.0)),
  "reptile": ((0.9948, 0.0006), (0.8943, 0.0014), (0.9712, 0.0032)),
  "imaml": ((0.9967, 0.0012), (0.9446, 0.0042), (0.9869, 0.001)),
  "imaml_hf": ((0.9974, 0.0011), (0.9618, 0.0036), (0.9914, 0.001)),
  "mamlpp": ((0.9993, 0.0), None, None),
}
# Of a row that has no number for 5 ways and 1 shot.
_SOURCES = {"anil": "Raghu et al. 2020, arXiv 1909.09157, table 2"}


def variants(methods: Mapping[str, rows.Table]) -> dict[str, rows.Table]:
  """Further rows for each method whose paper has them: `_5shot`, `_20way`, `_20way_5shot`.

  Args:
    methods: The rows for 5 ways and 1 shot, with their `published` source.

  Returns:
    The new rows.

  Example:
    >>> from configs import omniglot
    >>> omniglot.METHODS["imaml_20way"]["inner"]["num_steps"]
    25
  """
  found: dict[str, rows.Table] = {}
  for name, published in _PUBLISHED.items():
    five = rows.lay_over(_FIVE_SHOTS, _OF_FIVE.get(name, {}))
    twenty = rows.lay_over(_TWENTY_WAYS, _OF_TWENTY.get(name, {}))
    changes = {"5shot": five, "20way": twenty, "20way_5shot": rows.lay_over(twenty, five)}
    for (suffix, change), number in zip(changes.items(), published, strict=True):
      if number is not None:
        row = rows.lay_over(methods[name], change)
        source = _SOURCES.get(name) or row["published"]["source"]
        found[f"{name}_{suffix}"] = {**row, "published": {"number": number[0], "interval": number[1], "source": source}}
  return found
