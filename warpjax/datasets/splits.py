"""Class splits by name: sorted before anything is drawn, seeded, disjoint, and hashed.

A split only depends on the names and the seed, and not on the order in which a file system lists them. Report its
`digest` with every score: numbers from different splits are not comparable.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from importlib import resources
from typing import NamedTuple

import numpy as np

# The 20 alphabets of the evaluation set, 659 characters; the other 30, 964 characters, are the background set.
EVALUATION_ALPHABETS = (
  "Angelic",
  "Atemayar_Qelisayer",
  "Atlantean",
  "Aurek-Besh",
  "Avesta",
  "Ge_ez",
  "Glagolitic",
  "Gurmukhi",
  "Kannada",
  "Keble",
  "Malayalam",
  "Manipuri",
  "Mongolian",
  "Old_Church_Slavonic_(Cyrillic)",
  "Oriya",
  "Sylheti",
  "Syriac_(Serto)",
  "Tengwar",
  "Tibetan",
  "ULOG",
)


class Split(NamedTuple):
  """Names of classes, or of alphabets, in three parts; each part is sorted.

  Attributes:
    train: Names to train on.
    val: Names to choose models by.
    test: Names to report.
  """

  train: tuple[str, ...]
  val: tuple[str, ...]
  test: tuple[str, ...]

  @property
  def all(self) -> tuple[str, ...]:
    """All names, part after part."""
    return self.train + self.val + self.test

  @property
  def digest(self) -> str:
    """12 hexadecimal digits of SHA-256 over the sorted names of each part."""
    lines = [f"{part}:{name}" for part, names in self._asdict().items() for name in sorted(names)]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:12]


def make_split(train: Iterable[str], val: Iterable[str], test: Iterable[str]) -> Split:
  """A `Split` of these names, sorted.

  Raises:
    ValueError: when a name occurs twice, in one part or in two.
  """
  split = Split(tuple(sorted(train)), tuple(sorted(val)), tuple(sorted(test)))
  repeated = sorted(name for name, count in Counter(split.train + split.val + split.test).items() if count > 1)
  if repeated:
    raise ValueError(
      f"train, val and test must be disjoint; {len(repeated)} names occur twice, such as {repeated[0]!r}"
    )
  return split


def published(name: str) -> Split:
  """A data set's own class split, from the lists in this package.

  Args:
    name: `"mini_imagenet"` (Ravi and Larochelle 2017: 64, 16, 20), `"tiered_imagenet"` (Ren et al. 2018, arXiv
      1803.00676: 351, 97, 160), `"cifar_fs"` (Bertinetto et al. 2019, arXiv 1805.08136: 64, 16, 20) or `"fc100"`
      (Oreshkin et al. 2018, arXiv 1805.10123: 60, 20, 20, by superclass).

  Returns:
    A `Split` of class names.

  Raises:
    ValueError: for another name.

  Example:
    >>> [len(part) for part in published("tiered_imagenet")]
    [351, 97, 160]
  """
  folder = resources.files("warpjax.datasets") / "class_splits"
  names = sorted(file.name.removesuffix(".txt") for file in folder.iterdir() if file.name.endswith(".txt"))
  if name not in names:
    raise ValueError(f"name must be one of {', '.join(names)}; got {name!r}")
  lines = [line.split() for line in (folder / f"{name}.txt").read_text(encoding="utf-8").splitlines()]
  return make_split(*([label for part, label in lines if part == wanted] for wanted in Split._fields))


def indices(names: Sequence[str], part: Iterable[str]) -> np.ndarray:
  """Positions in `names` of the names in `part`, in `part`'s order; select a split's images by it.

  Raises:
    ValueError: when a name of `part` is not in `names`.
  """
  position = {name: i for i, name in enumerate(names)}
  missing = [name for name in part if name not in position]
  if missing:
    raise ValueError(f"part names {len(missing)} classes that are not in names, such as {missing[0]!r}")
  return np.array([position[name] for name in part], np.int64)


def random_characters(names: Iterable[str], *, num_train: int = 1200, num_val: int = 0, seed: int = 0) -> Split:
  """Classes at random over all alphabets, as in MAML, Reptile and iMAML.

  Args:
    names: All classes.
    num_train: Classes to train on: 1200, or 1100 with 100 for validation. The test classes are the same in both.
    num_val: Classes for validation.
    seed: Seed of the permutation.

  Returns:
    A `Split`; the remaining classes, 423 of Omniglot, are the test part.

  Raises:
    ValueError: when no class is left for the test, or a name occurs twice.

  Example:
    >>> split = random_characters([f"c{i}" for i in range(10)], num_train=6, num_val=1)
    >>> len(split.train), len(split.val), len(split.test), split.digest
    (6, 1, 3, '...')

  Reference:
    Finn, Abbeel, Levine 2017, arXiv 1703.03400, section 5.2.
  """
  order = _shuffled(names, seed)
  if num_train < 1 or num_val < 0 or num_train + num_val >= len(order):
    raise ValueError(f"num_train + num_val must leave some of the {len(order)} classes; got {num_train} + {num_val}")
  return make_split(order[:num_train], order[num_train : num_train + num_val], order[num_train + num_val :])


def background_evaluation(names: Iterable[str], *, num_val_alphabets: int = 0, seed: int = 0) -> Split:
  """Omniglot's own split by alphabet: 964 background characters to train on, 659 evaluation characters to test.

  Args:
    names: Classes as `"Alphabet/character"`.
    num_val_alphabets: Background alphabets, drawn at random, kept for validation.
    seed: Seed of that draw.

  Returns:
    A `Split` of class names.

  Raises:
    ValueError: when no background alphabet is left to train on.

  Reference:
    Lake, Salakhutdinov, Tenenbaum 2015, Science 350(6266).
  """
  names = list(names)
  background = _shuffled({alphabet_of(name) for name in names} - set(EVALUATION_ALPHABETS), seed)
  if not 0 <= num_val_alphabets < len(background):
    raise ValueError(f"num_val_alphabets must be 0 to {len(background) - 1}; got {num_val_alphabets}")
  val, train = background[:num_val_alphabets], background[num_val_alphabets:]
  of = lambda alphabets: [name for name in names if alphabet_of(name) in alphabets]
  return make_split(of(set(train)), of(set(val)), of(set(EVALUATION_ALPHABETS)))


def multi_shot_alphabets(
  names: Iterable[str], *, num_pretrain: int, num_test: int = 10, min_characters: int = 20, seed: int = 0
) -> Split:
  """Whole alphabets as tasks, background and evaluation sets together.

  Args:
    names: Classes as `"Alphabet/character"`.
    num_pretrain: Alphabets to meta-train on, the first of the seeded shuffle.
    num_test: The next ones, to report.
    min_characters: Alphabets with fewer characters are left out; 46 of 50 have 20.
    seed: Seed of the shuffle.

  Returns:
    A `Split` of alphabet names; the remainder is for validation.

  Raises:
    ValueError: if there are fewer alphabets, or a count is below 1.

  Reference:
    Flennerhag et al. 2020, arXiv 1909.00025, section 4.2.
  """
  sizes = Counter(alphabet_of(name) for name in names)
  order = _shuffled((name for name, size in sizes.items() if size >= min_characters), seed)
  if num_pretrain < 1 or num_test < 1 or num_pretrain + num_test > len(order):
    raise ValueError(
      f"num_pretrain + num_test must be 2 to {len(order)}, the alphabets with at least {min_characters} characters;"
      f" got {num_pretrain} + {num_test}"
    )
  end = num_pretrain + num_test
  return make_split(order[:num_pretrain], order[end:], order[num_pretrain:end])


def alphabet_of(name: str) -> str:
  """`"Greek/character01"` -> `"Greek"`."""
  return name.split("/", 1)[0]


def _shuffled(names: Iterable[str], seed: int) -> list[str]:
  ordered = sorted(names)
  return [ordered[i] for i in np.random.default_rng(seed).permutation(len(ordered))]
