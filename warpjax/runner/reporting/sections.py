"""The sections and texts of RESULTS.md and of README's tables."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple


class Section(NamedTuple):
  """Rows of a recipe that belong together: those whose names match the pattern whole."""

  title: str
  recipe: str
  pattern: str
  text: str


ONE_SEED = "One seed, the interval over test tasks."
ALPHABETS = (
  "All runs have the same split of the alphabets. The paper's interval is the standard deviation over runs with "
  "different splits. Accuracy is measured under running statistics, and for MAML under those of the batch, as in the "
  "released code. With one seed the interval is over the 10 test alphabets, each adapted to three times; with five "
  "seeds, over seeds."
)
OF_ALPHABETS = {
  "1 alphabet": r".*_1_cpu",
  **{f"{n} alphabets": rf".*_{n}_cpu" for n in (3, 5)},
  "10 alphabets": r".*(?<!_ladder)(?<!_\d)(?<!_\d\d)_cpu",
  **{f"{n} alphabets": rf".*_{n}_cpu" for n in (15, 20)},
  "25 alphabets": r".*_25_cpu|(?!.*_cpu).*",
}
FEW_SHOT = {
  "5 ways, 1 shot": (r"(?!.*(20way|5shot|640shot)).*", ONE_SEED),
  "5 ways, 5 shots": (r"(?!.*20way).*_5shot.*", ONE_SEED),
  "20 ways, 1 shot": (r"(?!.*5shot).*_20way.*", f"{ONE_SEED} `small`: over three seeds."),
  "20 ways, 5 shots": (r".*_20way_5shot.*", ONE_SEED),
  "10 ways, 640 shots": (r".*640shot.*", ONE_SEED),
}
IMAGES = {
  "mini-ImageNet": "mini_imagenet",
  "tiered-ImageNet": "tiered_imagenet",
  "CIFAR-FS": "cifar_fs",
  "FC100": "fc100",
}


def _few_shot(title: str, recipe: str) -> Iterator[Section]:
  for size, (pattern, text) in FEW_SHOT.items():
    yield Section(f"{title}, {size}", recipe, pattern, text)


SECTIONS = (
  *_few_shot("Omniglot", "omniglot"),
  *(Section(f"Multi-shot Omniglot, {n}", "multi_shot_omniglot", rows, ALPHABETS) for n, rows in OF_ALPHABETS.items()),
  Section(
    "Multi-shot Omniglot, 25 alphabets, the ablation ladder",
    "multi_shot_omniglot",
    r".*_ladder_cpu",
    f"From no warp-layers to two layers of them, at a quarter of the meta-steps. {ALPHABETS}",
  ),
  Section("Sine regression, 5 shots, mean squared error", "sinusoid", ".*", ONE_SEED),
  Section("The demo, mean squared error", "demo", ".*", ONE_SEED),
  Section("Continual sines, mean squared error", "continual", ".*", ONE_SEED),
  Section("Reptile's studies of inner gradients", "reptile_studies", ".*", f"{ONE_SEED} Without transduction."),
  Section(
    "Point navigation, return",
    "navigation",
    ".*",
    f"{ONE_SEED} `random`: over five seeds. Of `maml` and `random` after 0, 1, 2, 3 and 4 steps.",
  ),
  Section(
    "The maze, reward of an episode",
    "maze",
    ".*",
    "Over the last 1000 of 10,020 episodes of the life, in training; the paper has 60,000. Three seeds, the interval "
    "over seeds.",
  ),
  Section(
    "Learned optimizers, loss after 100 steps", "l2l", ".*", "1000 held-out functions, with the interval over them."
  ),
  Section(
    "Bilevel: data hyper-cleaning on Fashion-MNIST, and a learned step size on MNIST-1D",
    "bilevel",
    ".*",
    "Accuracy on test images after training with the learned parameters. There is one test task, and so no interval.",
  ),
  Section("Surfaces, warped descent against plain descent", "surfaces", ".*", "1000 random starts."),
  Section(
    "Test-time training, bits per byte of the last of 16 chunks",
    "ttt",
    ".*",
    "Three seeds, the interval over seeds. `python -m experiments.ttt` compares the rows on each chunk.",
  ),
  *(section for title, recipe in IMAGES.items() for section in _few_shot(title, recipe)),
)
BENCHMARKS = ("accuracy", "bilevel", "memory", "policies", "scaling", "peers")
HIGHLIGHTS = (
  ("sinusoid", "maml"),
  ("sinusoid", "meta_sgd"),
  ("omniglot", "maml_cpu"),
  ("omniglot", "meta_sgd_20way_cpu"),
  ("omniglot", "reptile_cpu"),
  ("omniglot", "imaml_cpu"),
  ("multi_shot_omniglot", "warp_leap_offline_25_cpu"),
  ("navigation", "maml_one_step"),
)
"""The rows of README's table."""

WHY = """
- **It composes.** What adapts, how it adapts and how the meta-gradient is obtained are pure functions. A method is one
  file.
- **Meta-gradients are exact and lean.** {steps} inner steps of a Conv-4 take {ours} MiB of temporaries, where plain
  reverse mode takes {plain}. They equal the released codes' to rounding.
- **It is fast.** A meta-step of MAML is {low:.1f} to {high:.1f} times as fast as PyTorch by hand ({machine}).
- **It checks your own learner**: finite differences, zero gradients, leaks between support and query, bytes.
- **Runs survive.** They resume bit for bit after a kill. Each result has intervals, a protocol card and a record.
"""
"""README's reasons, with figures from the records."""

HEAD = """# Results

The published and the measured numbers. `warpjax report` writes this file from the records in `results/`. Each row
has a record with its command, machine, protocol and other runs. `warpjax train --config=configs/RECIPE --workdir=DIR`
runs a recipe. A budget is a number of meta-steps by the tasks in each, for the measured row and for the row of full
size. The full size is the paper's if the paper states it; Meta-SGD's and WarpGrad's papers do not state the tasks in a
meta-step of their few-shot rows. `_cpu` recipes also have other step sizes and schedules. The gap is measured minus
published; for errors, a gap below 0 is better.

Published intervals are 95% over 600 tasks for MAML, FOMAML and iMAML, over three seeds for Reptile, and a standard
deviation over runs for WarpGrad; Meta-SGD does not say. Measured intervals are 95%, and each section says over what.
Batch norm sees the query examples of a few-shot task together, as in the papers, except in rows without transduction.
Times are on one core of an Intel Xeon unless the row names another machine. No row was run on an accelerator.
"""
SMOKE_HEAD = """## Smoke size

Rows with less than a fifth of their paper's training tasks. They show that a recipe learns. They have no gap to the
paper, since it would compare budgets and not methods.
"""
