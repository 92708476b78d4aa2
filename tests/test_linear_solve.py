"""Linear solves against dense algebra."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import toy
from warpjax import linear_solve


def system(dim=6, condition=20.0, seed=0, dtype=float):
  rng = np.random.default_rng(seed)
  basis, _ = np.linalg.qr(rng.standard_normal((dim, dim)))
  matrix = (basis * np.geomspace(1.0, 1 / condition, dim)) @ basis.T
  return jnp.asarray((matrix + matrix.T) / 2, dtype), jnp.asarray(rng.standard_normal(dim), dtype)


@pytest.mark.usefixtures("strict")
@pytest.mark.parametrize("damping", [0.0, 0.3])
def test_cg_solves_in_as_many_steps_as_there_are_unknowns(damping):
  matrix, b = system()
  x, info = linear_solve.cg(6, damping=damping)(lambda v: matrix @ v, b)
  np.testing.assert_allclose(x, jnp.linalg.solve(matrix + damping * jnp.eye(6), b), rtol=1e-8)
  assert info["iterations"] == 6 and info["residual"] < 1e-9


@pytest.mark.usefixtures("strict")
def test_cg_minimises_over_the_krylov_space():
  matrix, b = system()
  krylov = jnp.stack([jnp.linalg.matrix_power(matrix, k) @ b for k in range(3)], axis=1)
  best = krylov @ jnp.linalg.solve(krylov.T @ matrix @ krylov, krylov.T @ b)
  x, info = linear_solve.cg(3)(lambda v: matrix @ v, b)
  np.testing.assert_allclose(x, best, rtol=1e-8)
  np.testing.assert_allclose(info["residual"], jnp.linalg.norm(b - matrix @ x) / jnp.linalg.norm(b), rtol=1e-8)


@pytest.mark.usefixtures("strict")
def test_cg_on_a_pytree_is_cg_on_its_vector():
  matrix, b = system()
  split = lambda v: {"a": v[:2], "b": (v[2:].reshape(2, 2),)}
  join = lambda tree: jnp.concatenate([tree["a"], tree["b"][0].reshape(-1)])
  x, info = linear_solve.cg(3)(lambda tree: split(matrix @ join(tree)), split(b))
  flat, flat_info = linear_solve.cg(3)(lambda v: matrix @ v, b)
  toy.assert_close((x, info), (split(flat), flat_info))


@pytest.mark.usefixtures("strict")
def test_cg_stops_at_the_tolerance():
  matrix, b = system(dim=20, condition=100.0)
  residuals = []
  for tol in (1e-1, 1e-3, 1e-6):
    x, info = linear_solve.cg(200, tol=tol)(lambda v: matrix @ v, b)
    residuals.append(float(jnp.linalg.norm(b - matrix @ x) / jnp.linalg.norm(b)))
    assert residuals[-1] <= tol
    before, _ = linear_solve.cg(int(info["iterations"]) - 1)(lambda v: matrix @ v, b)
    assert jnp.linalg.norm(b - matrix @ before) / jnp.linalg.norm(b) > tol
  assert len(set(residuals)) == 3


def test_cg_is_finite_however_long_it_runs():
  # In single precision the recursive residual would shrink until 0 / 0;.
  matrices, targets = zip(*(system(3, 5.0, seed, jnp.float32) for seed in range(100)), strict=True)
  solve = jax.jit(jax.vmap(lambda matrix, b: linear_solve.cg(100)(lambda v: matrix @ v, b)))
  x, info = solve(jnp.stack(matrices), jnp.stack(targets))
  exact = np.linalg.solve(np.stack(matrices), np.stack(targets)[..., None])[..., 0]
  np.testing.assert_allclose(x, exact, rtol=1e-4, atol=1e-4)
  assert info["iterations"].max() < 20


@pytest.mark.usefixtures("strict")
def test_cg_under_vmap_stops_each_system_by_itself():
  # One iteration for each eigenvalue that differs, well above rounding on any machine.
  spectra = ((1.0,) * 6, (1.0, 1.0, 0.5, 0.5, 0.2, 0.2), (1.0, 0.8, 0.6, 0.4, 0.3, 0.2))
  systems = [(jnp.diag(jnp.asarray(values)), system(seed=seed)[1]) for seed, values in enumerate(spectra)]
  matrices, targets = (jnp.stack(leaves) for leaves in zip(*systems, strict=True))
  solve = lambda matrix, b: linear_solve.cg(50, tol=1e-8)(lambda v: matrix @ v, b)
  together = jax.vmap(solve)(matrices, targets)
  assert together[1]["iterations"].tolist() == [1, 3, 6]
  alone = [solve(matrix, b) for matrix, b in systems]
  toy.assert_close(together, jax.tree.map(lambda *leaves: jnp.stack(leaves), *alone), rtol=1e-7)


def test_of_zero_is_zero():
  for solve in (linear_solve.cg(3), linear_solve.neumann(3), linear_solve.nystrom(2), linear_solve.identity()):
    x, info = toy.jit(lambda b, solve=solve: solve(lambda v: 2 * v, b))(jnp.zeros(2))
    toy.assert_zero(x)
    assert info["residual"] == 0
  assert toy.jit(lambda b: linear_solve.cg(3)(lambda v: 2 * v, b)[1])(jnp.zeros(2))["iterations"] == 0


@pytest.mark.usefixtures("strict")
@pytest.mark.parametrize("damping", [0.0, 0.2])
def test_neumann_is_its_partial_sum(damping):
  matrix, b = system()
  x, info = linear_solve.neumann(4, step_size=0.5, damping=damping)(lambda v: matrix @ v, b)
  damped = matrix + damping * jnp.eye(6)
  factor = jnp.eye(6) - 0.5 * damped
  terms = [0.5 * jnp.linalg.matrix_power(factor, j) @ b for j in range(5)]
  np.testing.assert_allclose(x, sum(terms), rtol=1e-10)
  last_but_one = b - damped @ sum(terms[:-1])
  np.testing.assert_allclose(info["residual"], jnp.linalg.norm(last_but_one) / jnp.linalg.norm(b), rtol=1e-10)
  assert info["iterations"] == 4


@pytest.mark.usefixtures("strict")
def test_neumann_converges_to_the_solution():
  matrix, b = system(condition=5.0)
  x, _ = linear_solve.neumann(300)(lambda v: matrix @ v, b)
  np.testing.assert_allclose(x, jnp.linalg.solve(matrix, b), rtol=1e-8)


@pytest.mark.usefixtures("strict")
@pytest.mark.parametrize("sketch", ["gaussian", pytest.param("columns", marks=pytest.mark.slow)])
def test_nystrom_is_exact_where_its_rank_is_enough(sketch):
  matrix, b = system()
  low = matrix[:, :3] @ matrix[:3]  # rank 3 and not symmetric
  low = low @ low.T
  for curvature, rank in ((low, 5), (matrix, 6)):
    solve = linear_solve.nystrom(rank, shift=0.5, damping=0.2, sketch=sketch)
    x, info = toy.jit(lambda matrix, b, solve=solve: solve(lambda v: 0.5 * v + matrix @ v, b))(curvature, b)
    np.testing.assert_allclose(x, jnp.linalg.solve(curvature + 0.7 * jnp.eye(6), b), rtol=1e-8)
    assert info["residual"] < 1e-10 and info["iterations"] == rank


@pytest.mark.usefixtures("strict")
def test_nystrom_of_columns_is_its_dense_formula():
  matrix, b = system()
  chosen = np.asarray(jax.random.choice(jax.random.key(4), 6, (2,), replace=False))
  solve = linear_solve.nystrom(2, shift=0.5, sketch="columns", seed=4)
  x, info = toy.jit(lambda b: solve(lambda v: 0.5 * v + matrix @ v, b))(b)
  matrix, b = np.asarray(matrix), np.asarray(b)
  columns, core = matrix[:, chosen], matrix[chosen][:, chosen]
  approximate = columns @ np.linalg.inv(core) @ columns.T + 0.5 * np.eye(6)
  np.testing.assert_allclose(x, np.linalg.solve(approximate, b), rtol=1e-8)
  residual = np.linalg.norm(b - (matrix + 0.5 * np.eye(6)) @ x) / np.linalg.norm(b)
  np.testing.assert_allclose(info["residual"], residual, rtol=1e-8)


@pytest.mark.usefixtures("strict")
def test_nystrom_on_a_pytree_is_that_on_its_vector():
  matrix, b = system()
  split = lambda v: {"a": v[:2], "b": (v[2:].reshape(2, 2),)}
  join = lambda tree: jnp.concatenate([tree["a"], tree["b"][0].reshape(-1)])
  solve = linear_solve.nystrom(3)
  x, info = toy.jit(lambda b: solve(lambda tree: split(join(tree) + matrix @ join(tree)), split(b)))(b)
  flat, flat_info = toy.jit(lambda b: solve(lambda v: v + matrix @ v, b))(b)
  toy.assert_close((x, info), (split(flat), flat_info))


@pytest.mark.usefixtures("strict")
def test_the_identity_makes_no_product_with_the_matrix():
  _, b = system()
  solve = linear_solve.identity(0.5)
  x, info = toy.jit(lambda b: solve(None, {"a": b, "b": (b,)}))(b)
  toy.assert_close(x, {"a": 0.5 * b, "b": (0.5 * b,)})
  assert info["residual"] == 1 and info["iterations"] == 0


@pytest.mark.usefixtures("strict")
@pytest.mark.parametrize("solve", [linear_solve.cg(2), linear_solve.neumann(2), linear_solve.nystrom(6)])
def test_a_solve_that_is_started_at_the_solution_stays_there_and_elsewhere_its_residual_is_that_of_b(solve):
  matrix, b = system()
  exact, product = jnp.linalg.solve(matrix, b), lambda v: matrix @ v
  stays, info = linear_solve.started(solve, exact)(product, b)
  np.testing.assert_allclose(stays, exact, rtol=1e-9)
  assert info["residual"] < 1e-10
  near = exact + 0.1
  step, own = solve(product, b - matrix @ near)
  found, info = linear_solve.started(solve, near)(product, b)
  np.testing.assert_allclose(found, near + step, rtol=1e-9)
  share = jnp.linalg.norm(b - matrix @ near) / jnp.linalg.norm(b)
  np.testing.assert_allclose(info["residual"], own["residual"] * share, rtol=1e-9, atol=1e-12)
  assert info["iterations"] == own["iterations"]


@pytest.mark.usefixtures("strict")
def test_a_step_of_identity_from_there_is_a_step_of_gradient_descent():
  matrix, b = system()
  x = jnp.zeros(6)
  for _ in range(3):
    x, _ = linear_solve.started(linear_solve.identity(0.5), x)(lambda v: matrix @ v, b)
  series, _ = linear_solve.neumann(2, step_size=0.5)(lambda v: matrix @ v, b)
  np.testing.assert_allclose(x, series, rtol=1e-10)


def test_an_identity_of_nothing_is_refused():
  for scale in (0.0, -1.0, float("inf"), "1"):
    with pytest.raises(ValueError, match=f"scale must be .*; got {scale!r}"):
      linear_solve.identity(scale)


def test_nystrom_refuses():
  with pytest.raises(ValueError, match="rank must be an integer of at least 1; got 0"):
    linear_solve.nystrom(0)
  with pytest.raises(ValueError, match="shift must be above 0; got 0"):
    linear_solve.nystrom(1, shift=0.0)
  with pytest.raises(ValueError, match="sketch must be one of 'gaussian', 'columns'; got 'rows'"):
    linear_solve.nystrom(1, sketch="rows")
  with pytest.raises(ValueError, match="rank must be at most the number of unknowns, 2; got 3"):
    linear_solve.nystrom(3)(lambda v: v, jnp.ones(2))


@pytest.mark.parametrize("make", [linear_solve.cg, linear_solve.neumann])
def test_bad_input(make):
  for steps in (0, 1.5, True, "5"):
    with pytest.raises(ValueError, match=f"num_steps must be an integer of at least 1; got {steps!r}"):
      make(steps)
  with pytest.raises(ValueError, match="damping must be finite and at least 0; got -1"):
    make(3, damping=-1.0)
  with pytest.raises(ValueError, match=r"(tol|step_size) must be finite and at least 0; got inf"):
    make(3, **{"tol" if make is linear_solve.cg else "step_size": float("inf")})
  with pytest.raises(ValueError, match="damping must be finite and at least 0; got 'small'"):
    make(3, damping="small")


def test_a_neumann_series_of_step_size_zero_is_refused():
  with pytest.raises(ValueError, match="step_size must be above 0; got 0"):
    linear_solve.neumann(3, step_size=0.0)


def test_cg_stops_where_the_matrix_turns_out_not_to_be_positive():
  """x stays finite: zero at a first direction that does not curve upwards, and what it was at a later one."""
  for matrix, expected in ((jnp.zeros(2), [0.0, 0.0]), (jnp.array([1.0, -1.0]), [0.0, 0.0])):
    x, info = linear_solve.cg(5)(lambda v, m=matrix: m * v, jnp.ones(2))
    np.testing.assert_array_equal(x, expected)
    assert float(info["residual"]) == 1 and int(info["iterations"]) == 1
  matrix, b = jnp.array([4.0, 1.0, -20.0]), jnp.array([1.0, 1.0, 0.1])
  x, info = linear_solve.cg(5)(lambda v: matrix * v, b)
  step = (b @ b) / (b @ (matrix * b))
  np.testing.assert_allclose(x, step * b, rtol=1e-6)
  np.testing.assert_allclose(info["residual"], jnp.linalg.norm(b - matrix * x) / jnp.linalg.norm(b), rtol=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e20], ids=["nan", "inf", "overflow"])
def test_cg_shows_a_right_hand_side_that_is_not_finite(bad):
  """Zeros would count as a task's meta-gradient, and hide from `finite`."""
  x, info = linear_solve.cg(5)(lambda v: v, {"a": jnp.array([bad, 1.0], jnp.float32), "b": jnp.ones(())})
  assert np.isnan(x["a"]).all() and np.isnan(x["b"]) and np.isnan(info["residual"])


def test_cg_shows_a_matrix_that_is_not_finite():
  assert np.isnan(linear_solve.cg(2)(lambda v: jnp.nan * v, jnp.ones(2))[0]).all()
