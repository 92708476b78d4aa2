"""Installs the `warpjax` library; tool settings are in pyproject.toml."""

import pathlib

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

RECIPES = sorted(pathlib.Path("configs").glob("*.py"))

# tensorflow-datasets needs the other two and declares neither.
DATA = ["tensorflow-datasets>=4.9.9", "importlib_resources>=6.0", "pillow>=10.0"]
RL = ["gymnax>=1.0"]  # bounds JAX from above, so that `test-core` leaves it out
TENSORBOARD = ["tensorboardX>=2.6"]
MNIST1D = ["mnist1d>=0.0.2"]
NOTEBOOKS = ["ipykernel>=6.29", "nbclient>=0.10", "nbformat>=5.10"]
PEERS = ["torch>=2.4", "torchopt>=0.7.3", "higher>=0.2.1"]
DOCS = [
  "sphinx>=8.0",
  "docutils>=0.20",
  "myst-nb>=1.1",
  "furo>=2024.8.6",
  "latex2mathml>=3.77",
  "sphinx-copybutton>=0.5.2",
]
TEST_CORE = [
  *DATA,
  *NOTEBOOKS,
  *TENSORBOARD,
  *MNIST1D,
  "hypothesis>=6.100",
  "mypy>=1.15",
  "pytest>=8.3",
  "pytest-timeout>=2.3",
  "pytest-xdist>=3.6",
  "ruff>=0.12",
]


class BuildWithRecipes(build_py):
  """Ships configs/ as warpjax/recipes/, where recipes are found by name outside of a checkout."""

  def run(self):
    super().run()
    if not self.editable_mode:
      folder = pathlib.Path(self.build_lib, "warpjax", "recipes")
      self.mkpath(str(folder))
      for path in RECIPES:
        self.copy_file(str(path), str(folder / path.name))

  def get_source_files(self):
    return [*super().get_source_files(), *map(str, RECIPES)]


setup(
  name="warpjax",
  version="0.1.0",
  description="Gradient-based meta-learning in JAX: what adapts, how it adapts, how the meta-gradient is obtained.",
  long_description=pathlib.Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
  long_description_content_type="text/markdown",
  license="Apache-2.0",
  packages=find_packages(include=["warpjax", "warpjax.*"]),
  package_data={"warpjax": ["py.typed", "datasets/class_splits/*.txt", "networks/cpp/*"]},
  cmdclass={"build_py": BuildWithRecipes},
  entry_points={"console_scripts": ["warpjax = warpjax.runner.__main__:main"]},
  python_requires=">=3.11",
  install_requires=[
    "absl-py>=2.1",
    "chex>=0.1.90",
    "flax>=0.12",
    "jax>=0.10",
    "jaxlib>=0.10",
    "matplotlib>=3.8",
    "numpy>=2.0",
    "optax>=0.2.6",
    "orbax-checkpoint>=0.12,<1",
    "scipy>=1.13",
    "tqdm>=4.66",
  ],
  extras_require={
    "data": DATA,
    "rl": RL,
    "tensorboard": TENSORBOARD,
    "mnist1d": MNIST1D,
    "test-core": TEST_CORE,
    "test": [*TEST_CORE, *RL],
    "docs": DOCS,
    "notebooks": NOTEBOOKS,
    "peers": PEERS,
  },
)
