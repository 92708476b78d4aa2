from __future__ import annotations

import random

import numpy as np
import pytest

from warpjax.datasets import splits

ALPHABETS = {"Angelic": 20, "Tibetan": 42, "Greek": 24, "Latin": 26, "Hebrew": 22, "Bengali": 46, "Short": 14}
NAMES = [f"{alphabet}/character{i:02d}" for alphabet, size in ALPHABETS.items() for i in range(size)]
SHUFFLED = random.Random(0).sample(NAMES, len(NAMES))
SPLITTERS = {
  "random": lambda names, seed: splits.random_characters(names, num_train=100, num_val=20, seed=seed),
  "background": lambda names, seed: splits.background_evaluation(names, num_val_alphabets=2, seed=seed),
  "multi_shot": lambda names, seed: splits.multi_shot_alphabets(names, num_pretrain=2, num_test=3, seed=seed),
}


@pytest.mark.parametrize("splitter", SPLITTERS.values(), ids=SPLITTERS)
def test_a_split_depends_on_names_and_seed_and_not_on_their_order(splitter):
  split = splitter(NAMES, 0)
  assert splitter(SHUFFLED, 0) == split
  assert splitter(NAMES, 1) != split and splitter(NAMES, 1).digest != split.digest
  assert all(list(part) == sorted(part) for part in split)


@pytest.mark.parametrize("splitter", SPLITTERS.values(), ids=SPLITTERS)
def test_the_parts_are_disjoint_and_whole(splitter):
  split = splitter(NAMES, 3)
  parts = [set(part) for part in split]
  assert sum(map(len, parts)) == len(set.union(*parts))
  everything = {name for name, size in ALPHABETS.items() if size >= 20} if "/" not in split.train[0] else set(NAMES)
  assert set.union(*parts) == everything


def test_random_characters_keep_their_test_part_when_some_are_kept_for_validation():
  without = splits.random_characters(NAMES, num_train=120)
  beside = splits.random_characters(NAMES, num_train=100, num_val=20)
  assert without.test == beside.test and set(without.train) == set(beside.train + beside.val)
  assert (len(beside.train), len(beside.val), len(beside.test)) == (100, 20, len(NAMES) - 120)


def test_background_and_evaluation_go_by_alphabet():
  split = splits.background_evaluation(NAMES)
  assert {splits.alphabet_of(name) for name in split.test} == {"Angelic", "Tibetan"}
  assert {splits.alphabet_of(name) for name in split.train} == {"Greek", "Latin", "Hebrew", "Bengali", "Short"}
  held = splits.background_evaluation(NAMES, num_val_alphabets=2)
  assert held.test == split.test and len({splits.alphabet_of(name) for name in held.val}) == 2


def test_multi_shot_leaves_small_alphabets_out():
  split = splits.multi_shot_alphabets(NAMES, num_pretrain=1, num_test=2)
  assert [len(part) for part in split] == [1, 3, 2]
  assert "Short" not in sum(split, ())


def test_more_training_alphabets_extend_the_fewer():
  fewer, more = (splits.multi_shot_alphabets(NAMES, num_pretrain=n, num_test=1, seed=4) for n in (1, 4))
  assert set(fewer.train) < set(more.train)


def test_the_digest_is_of_the_parts_and_not_of_their_union():
  parts = (["a", "b"], ["c"], ["d"]), (["a"], ["b", "c"], ["d"]), (["a", "b"], ["d"], ["c"])
  assert len({splits.make_split(*part).digest for part in parts}) == 3
  # printf 'train:a\ntrain:b\nval:c\ntest:d' | sha256sum
  assert splits.make_split(["b", "a"], ["c"], ["d"]).digest == "69491d765270"


# Every result on a whole set carries one of these; another digest means that published classes were changed.
DIGESTS = {
  "mini_imagenet": ("064230bee7ec", (64, 16, 20)),
  "tiered_imagenet": ("078cd9d35122", (351, 97, 160)),
  "cifar_fs": ("8a752e948fd4", (64, 16, 20)),
  "fc100": ("042768741169", (60, 20, 20)),
}


@pytest.mark.parametrize("name", DIGESTS)
def test_the_published_splits_stay_what_they_are(name):
  split = splits.published(name)
  assert (split.digest, tuple(map(len, split))) == DIGESTS[name]


def test_indices_find_names_wherever_they_are():
  rows = splits.indices(SHUFFLED, NAMES[5:9])
  assert [SHUFFLED[i] for i in rows] == NAMES[5:9]
  assert splits.indices(NAMES, []).dtype == np.int64


@pytest.mark.parametrize(
  ("make", "message"),
  [
    (lambda: splits.make_split(["a"], ["b"], ["a"]), "must be disjoint; 1 names occur twice, such as 'a'"),
    (lambda: splits.make_split(["a", "a"], [], []), "must be disjoint"),
    (lambda: splits.random_characters([*NAMES, NAMES[0]], num_train=10), "must be disjoint"),
    (lambda: splits.random_characters(NAMES), r"must leave some of the 194 classes; got 1200 \+ 0"),
    (lambda: splits.random_characters(NAMES, num_train=0), r"must leave some of the 194 classes; got 0 \+ 0"),
    (lambda: splits.background_evaluation(NAMES, num_val_alphabets=5), "num_val_alphabets must be 0 to 4; got 5"),
    (lambda: splits.multi_shot_alphabets(NAMES, num_pretrain=5, num_test=2), r"2 to 6, .* 20 characters; got 5 \+ 2"),
    (lambda: splits.indices(NAMES, ["Greek/none"]), "1 classes that are not in names, such as 'Greek/none'"),
  ],
)
def test_bad_arguments(make, message):
  with pytest.raises(ValueError, match=message):
    make()
