"""The first mistakes that everyone makes: each gets one sentence, and nothing has compiled by then."""

from __future__ import annotations

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import warpjax as wj
from tests import toy
from warpjax import diagnostics, evaluation, losses, meta_gradients, networks, padding, rules, training
from warpjax.training import replay, streams

KEY = jax.random.key(0)
X, Y = np.linspace(-1, 1, 15, dtype=np.float32).reshape(5, 3), np.array([0, 1, 2, 0, 1])
TASK = wj.Task((X, Y), (X, Y))
NET = networks.from_linen(networks.MLP((4,), 3))
ZEROS = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), jax.eval_shape(NET.init, KEY, X)[0])
PARAMS = wj.MetaParams(ZEROS)
SGD = rules.sgd(0.1)
INNER = wj.InnerLoop(losses.classification(NET.apply), SGD, 1)
ADAM = optax.adam(1e-3)
TASKS = wj.Task(*jax.tree.map(lambda leaf: np.stack([leaf, leaf]), tuple(TASK)))
STATE = training.TrainState(PARAMS, (), jnp.zeros((), jnp.int32), KEY)

_COMPILATIONS: list[str] = []
jax.monitoring.register_event_duration_secs_listener(
  lambda event, duration, **kw: _COMPILATIONS.append(event) if "backend_compile" in event else None
)


def adapt(inner=INNER, meta_params=PARAMS, task=TASK, key=KEY, **kwargs):
  return wj.adapt(inner, meta_params, task, key, **kwargs)


def with_labels(y):
  return wj.Task((X, np.asarray(y)), (X, np.asarray(y)))


def with_loss(loss_fn):
  return adapt(INNER._replace(loss_fn=loss_fn), wj.MetaParams(np.zeros(3, np.float32)))


class KeywordOnly(nnx.Module):
  def __init__(self, *, rngs):
    self.dense = nnx.Linear(3, 3, rngs=rngs)


def step(tasks=TASKS, inner=INNER, state=STATE):
  return jax.eval_shape(training.meta_step(meta_gradients.unrolled(inner), optax.identity()), state, tasks)


def sines(x, y):
  net = networks.from_linen(networks.MLP((4,), 1))
  params = jax.tree.map(lambda leaf: np.zeros(leaf.shape), jax.eval_shape(net.init, KEY, x)[0])
  inner = INNER._replace(loss_fn=losses.regression(net.apply))
  return step(wj.Task((x, y), (x, y)), inner, STATE._replace(meta_params=wj.MetaParams(params)))


def padded_loss(weights):
  return losses.classification(padding.per_example(NET.apply))(ZEROS, (), padding.Padded(X, Y, weights))


def padded_line(*padded):
  loss_fn = losses.regression(padding.per_example(lambda params, shared, x: params * x))
  tasks = wj.Task(*2 * [padding.Padded(*padded)])
  return step(tasks, INNER._replace(loss_fn=loss_fn), STATE._replace(meta_params=wj.MetaParams(np.float32(0.0))))


class Draws(nnx.Module):
  def __init__(self):
    self.dropout = nnx.Dropout(0.5)

  def __call__(self, x, rngs=None):
    return self.dropout(x, rngs=rngs)


def generator():
  while True:
    yield TASK


def generating(key):
  yield TASK


MISTAKES = {
  # the loss
  "loss of two arguments": (
    lambda: with_loss(lambda params, batch: jnp.sum(params)),
    r"InnerLoop.loss_fn must be a function \(params, shared, batch\); got <lambda>\(params, batch\), which cannot",
  ),
  "loss of a module": (
    lambda: with_loss(networks.MLP().apply),
    r"InnerLoop.loss_fn must be a function .*; got that of a flax module",
  ),
  "loss of each example": (
    lambda: with_loss(lambda params, shared, batch: batch[0] @ params),
    r"loss_fn must return a real scalar, the mean over the batch, .* got an array float32\[5\]",
  ),
  "a text in aux": (
    lambda: with_loss(lambda params, shared, batch: (jnp.sum(params), {"name": "sine"})),
    "the aux of InnerLoop.loss_fn must hold numbers; got 'sine' as 'name'",
  ),
  "a number as a name in aux": (
    lambda: with_loss(lambda params, shared, batch: (jnp.sum(params), {1: jnp.sum(params)})),
    "the aux of InnerLoop.loss_fn must have names as keys; got 1; pass '1'",
  ),
  "logits as aux": (
    lambda: with_loss(lambda params, shared, batch: (jnp.sum(params), batch[0] @ params)),
    r"loss_fn must return a scalar, or \(scalar, aux\) with a dict as aux; got aux an array float32\[5\]",
  ),
  "loss of three values": (
    lambda: with_loss(lambda params, shared, batch: (jnp.sum(params), {}, {})),
    "loss_fn must return a real scalar, .* got a tuple",
  ),
  "loss without return": (
    lambda: with_loss(lambda params, shared, batch: None),
    "must return a real scalar.* got None",
  ),
  "batch_fn of a support set": (
    lambda: adapt(INNER._replace(batch_fn=lambda support: support)),
    r"InnerLoop.batch_fn must be a function \(key, support, step, params, shared\); got <lambda>\(support\)",
  ),
  # adapt and its nouns
  "plain parameters": (
    lambda: adapt(meta_params=ZEROS),
    r"meta_params must be a MetaParams; got a dict; pass MetaParams\(initial, shared, rule\)",
  ),
  "the state": (lambda: adapt(meta_params=STATE), "must be a MetaParams; got a TrainState; pass state.meta_params"),
  "a tuple for a task": (lambda: adapt(task=tuple(TASK)), r"must be a Task; got a tuple; pass Task\(\*it\)"),
  "a dict for a task": (
    lambda: adapt(task={"support": TASK.support, "query": TASK.query}),
    r"must be a Task; got a dict; pass Task\(support=..., query=...\)",
  ),
  "a tuple for tasks": (lambda: step(tuple(TASKS)), r"must be a Task; got a tuple; pass Task\(\*it\)"),
  "task and parameters swapped": (
    lambda: adapt(meta_params=TASK, task=PARAMS),
    "meta_params must be a MetaParams; got a Task: meta_params comes first, then the task",
  ),
  "inner loop and parameters swapped": (
    lambda: adapt(inner=PARAMS, meta_params=INNER),
    r"inner must be an InnerLoop\(loss_fn, rule, num_steps\); got MetaParams",
  ),
  "a key that is a seed": (lambda: adapt(key=0), r"key must be a key, such as jax.random.key\(0\); got int"),
  "a seed, jitted": (
    lambda: jax.eval_shape(lambda key: adapt(key=key), 0),
    r"key must be a key, such as jax.random.key\(0\); got an array int32\[\]",
  ),
  "num_steps as an array": (
    lambda: adapt(num_steps=jnp.zeros((), jnp.int32)),
    "num_steps must be a Python integer, known before anything compiles; got Array",
  ),
  "num_steps, jitted": (
    lambda: jax.eval_shape(lambda n: adapt(num_steps=n), 3),
    "num_steps must be a Python integer, known before anything compiles; got ",
  ),
  "forgotten rule parameters": (
    lambda: adapt(INNER._replace(rule=rules.meta_sgd(0.1))),
    r"MetaParams.rule must hold the parameters of the rule 'meta_sgd'; got none; pass .*rule.init\(key, initial\)",
  ),
  "parameters of a rule for another": (
    lambda: adapt(INNER._replace(rule=rules.meta_sgd(0.1)), PARAMS._replace(rule={"learning_rate": np.float32(0.1)})),
    r"the parameters of the rule 'meta_sgd'; got no .* where it has .*; pass MetaParams\(initial, shared, rule=rule",
  ),
  "parameters of a rule for other shapes": (
    lambda: adapt(
      INNER._replace(rule=rules.meta_sgd(0.1)), PARAMS._replace(rule=jax.tree.map(lambda leaf: np.ones(9), ZEROS))
    ),
    r"the parameters of the rule 'meta_sgd'; got dense_0/bias \[9\] where it has dense_0/bias \[4\]; pass",
  ),
  "parameters for a rule that has none": (
    lambda: adapt(INNER, PARAMS._replace(rule=ZEROS)),
    r"MetaParams.rule must be empty for the rule 'sgd', .*; got dense_0/bias \[4\], .* pass .*_replace\(rule=\(\)\)",
  ),
  "parameters of another part of a chain": (
    lambda: adapt(INNER._replace(rule=rules.meta_sgd(0.1)), PARAMS._replace(rule=[(), ZEROS])),
    r"the parameters of the rule 'meta_sgd'; got no dense_0/bias where it has dense_0/bias \[4\]; pass",
  ),
  "forgotten in a chain": (
    lambda: step(inner=INNER._replace(rule=rules.chain(rules.meta_sgd(0.1), SGD))),
    "MetaParams.rule must hold the parameters of the rule",
  ),
  "a module's class whose rngs are keyword-only": (
    lambda: networks.from_nnx(KeywordOnly),
    r"factory must be a function \(rngs\); got KeywordOnly\(rngs\), .* Pass lambda rngs: KeywordOnly\(rngs=rngs\)\.",
  ),
  "logarithms for a rule that takes none": (
    lambda: adapt(
      INNER._replace(rule=rules.learned(optax.sgd, learning_rate=0.1)),
      PARAMS._replace(rule={"log_learning_rate": np.float32(-1)}),
    ),
    r"the parameters of the rule 'learned'; got no learning_rate where it has learning_rate \[\]",
  ),
  "parameters without the axis of the steps": (
    lambda: adapt(INNER._replace(rule=rules.per_step_values(5)), PARAMS._replace(rule=ZEROS)),
    r"the parameters of the rule 'per_step_values'; got dense_0/bias \[4\] where it has dense_0/bias \[4, 4\]",
  ),
  "nesterov without momentum": (
    lambda: rules.sgd(0.1, nesterov=True),
    "nesterov must be False without momentum; got True and None",
  ),
  # losses and queries
  "a name of the metrics in the aux": (
    lambda: with_loss(lambda params, shared, batch: (params.sum(), {"loss": 7.0})),
    r"the aux of InnerLoop.loss_fn must not use the name 'loss', which the metrics have; rename it",
  ),
  "a step by keyword alone": (
    lambda: step(inner=INNER._replace(query_batch_fn=lambda key, task, params, shared, *, step=0: task.query)),
    "query_batch_fn must take step as its fifth argument by position; it takes it by keyword",
  ),
  "a query loss for the online objective": (
    lambda: meta_gradients.unrolled(INNER._replace(query_loss_fn=INNER.loss_fn), online=True),
    "InnerLoop.query_loss_fn must be None with online, whose meta-loss has only the inner losses",
  ),
  "truncated without a derivative": (
    lambda: meta_gradients.unrolled(INNER, "first_order", truncate=1),
    "truncate must be None with 'first_order', which holds all inner gradients constant; got 1",
  ),
  "a start of another inner loop": (
    lambda: meta_gradients.from_start(
      INNER._replace(num_steps=2), meta_gradients.unrolled(INNER), lambda problem: problem.meta_params
    ),
    "grad_fn must be of the same inner loop as from_start; got another num_steps or prox",
  ),
  "an example task without a window": (
    lambda: meta_gradients.evolution_strategies(INNER, 0.1, task=TASK),
    "task must be None without a window, where each call has its own task",
  ),
  "another loop to evaluate beside": (
    lambda: evaluation.evaluator(INNER, others={"longer": INNER._replace(num_steps=9)}),
    r"others\['longer'\] must be inner with another query loss, .*; got another num_steps: evaluate that loop",
  ),
  "a name of the summary": (
    lambda: evaluation.evaluator(INNER, others={"mean": INNER}),
    r"others must not use the name 'mean', which Evaluation.summary\(\) has; rename it",
  ),
  # rules, optimizers, networks
  "an optimizer for a rule": (
    lambda: adapt(INNER._replace(rule=ADAM)),
    r"rule must be an UpdateRule such as rules.sgd",
  ),
  "a rule for an optimizer": (
    lambda: training.init(KEY, SGD, ZEROS, (), SGD),
    r"optimizer must be an optax.GradientTransformation; got an UpdateRule; .* pass optax.adam\(1e-3\)",
  ),
  "a rule for the optimizer of a step": (
    lambda: training.meta_step(meta_gradients.unrolled(INNER), SGD),
    "optimizer must be an optax.GradientTransformation; got an UpdateRule",
  ),
  "a rule for the optimizer of a replay": (
    lambda: replay.meta_step(INNER, SGD),
    "optimizer must be an optax.GradientTransformation; got an UpdateRule",
  ),
  "a step size for an optimizer": (
    lambda: training.meta_step(meta_gradients.unrolled(INNER), 1e-3),
    "optimizer must be an optax.GradientTransformation; got 0.001",
  ),
  "a network for its apply": (
    lambda: losses.classification(NET),
    r"apply must be a function \(params, shared, x\); got a Network; the function in it is its .apply",
  ),
  "a module for an apply": (lambda: losses.regression(nn.Dense(2)), r"pass networks.from_linen\(module\).apply"),
  "a module's apply": (lambda: losses.margins(nn.Dense(2).apply), r"pass networks.from_linen\(module\).apply"),
  "an apply of two arguments": (
    lambda: losses.support_plus_one(lambda params, x: x),
    r"apply must be a function \(params, shared, x\); got <lambda>\(params, x\), .* Parameters that tasks share",
  ),
  "a module for a factory": (lambda: networks.from_linen(NET), "module must be an instance of flax.linen.Module"),
  # samplers
  "a generator": (
    lambda: training.many_steps(lambda s, t: None, generator(), tasks_per_step=1, num_steps=1),
    r"sampler must be a function \(key\) -> Task, traced by JAX; got a generator; streams.steps",
  ),
  "a generator function": (
    lambda: training.sample_tasks(generating, KEY, 2),
    "got a generator function; return one Task in the place of `yield`",
  ),
  "tasks for a sampler": (
    lambda: training.many_steps(lambda s, t: None, TASKS, tasks_per_step=1, num_steps=1),
    r"got a Task: pass stored tasks to the step itself, step\(state, tasks\)",
  ),
  "a sampler without a key": (
    lambda: training.many_steps(lambda s, t: None, lambda: TASK, tasks_per_step=1, num_steps=1),
    r"sampler must be a function \(key\); got <lambda>\(\), which cannot be called so",
  ),
  # the training step
  "an inner loop for a meta-gradient": (
    lambda: training.meta_step(INNER, ADAM),
    r"meta_grad must be a function \(meta_params, task, key\); got an InnerLoop",
  ),
  "an estimator that was not called": (
    lambda: training.meta_step(meta_gradients.unrolled, ADAM),
    r"meta_grad must be a function \(meta_params, task, key\); got unrolled\(inner.*, which cannot be called so\.$",
  ),
  "an optimizer for a meta-gradient": (
    lambda: training.meta_step(ADAM, meta_gradients.unrolled(INNER)),
    "meta_grad must be a function .*; got a GradientTransformation",
  ),
  "a meta-gradient for many steps": (
    lambda: training.many_steps(meta_gradients.unrolled(INNER), lambda key: TASK, tasks_per_step=1, num_steps=1),
    r"step must be a function \(state, tasks\); got .*\(meta_params, task, key\), .*; training.meta_step\(meta_grad",
  ),
  "a meta-gradient for a stream": (
    lambda: streams.steps(meta_gradients.unrolled(INNER), STATE, [TASKS], tasks_per_step=2),
    r"step must be a function \(state, tasks\); got .*; training.meta_step\(meta_grad, optimizer\) makes one",
  ),
  "many steps for a stream": (
    lambda: streams.steps(
      training.many_steps(lambda s, t: None, lambda key: TASK, tasks_per_step=1, num_steps=1),
      STATE,
      [],
      tasks_per_step=1,
    ),
    r"step must be a function \(state, tasks\); got <lambda>\(state\), which cannot",
  ),
  "a meta-gradient to be guarded": (
    lambda: training.skip_nonfinite(
      meta_gradients.along_trajectory(INNER, meta_gradients.reptile(), carry_optimizer=True)
    ),
    r"step must be a function \(state, tasks\); got a CarriedMetaGrad; training.meta_step\(meta_grad, opt",
  ),
  "a meta-gradient to be repeated": (
    lambda: wj.meta_steps.repeated(meta_gradients.unrolled(INNER), 2),
    r"step must be a function \(state, tasks\); got .*; training.meta_step\(meta_grad, optimizer\) makes one",
  ),
  "half a task in a step": (
    lambda: training.many_steps(lambda s, t: None, lambda key: TASK, tasks_per_step=2.0, num_steps=1),
    "tasks_per_step must be an integer of at least 1; got 2.0",
  ),
  "half a task in an evaluation": (
    lambda: wj.evaluation.evaluate(INNER, PARAMS, lambda key: TASK, KEY, num_tasks=3.0),
    "num_tasks must be an integer of at least 1; got 3.0",
  ),
  "half a task in a chunk": (
    lambda: training.meta_step(meta_gradients.unrolled(INNER), ADAM, task_chunk=2.0),
    "task_chunk must be None or an integer of at least 1; got 2.0",
  ),
  "a typed key in a stream": (
    lambda: next(streams.chunks([wj.Task((X, KEY), (X, KEY))], size=1, num_tasks=1)),
    r"sampler, item 0.support\[1\] must not be a typed key; pass jax.random.key_data\(key\)",
  ),
  "parameters for the state": (
    lambda: step(state=PARAMS),
    r"state must be a TrainState, as training.init makes it; got a MetaParams; call step\(state, tasks\)",
  ),
  "state and tasks swapped": (lambda: step(tasks=STATE, state=TASKS), "state must be a TrainState, .* got a Task"),
  "a list of tasks": (lambda: step([TASK, TASK]), "tasks must be one Task .*; got a list of them; pass jax.tree.map"),
  "a list of tasks of unequal size": (
    lambda: step([TASK, TASK._replace(query=jax.tree.map(lambda leaf: leaf[:1], TASK.query))]),
    r"got a list of them; pass padding.pad_tasks\(tasks\), as their sizes differ",
  ),
  "meta-parameters for parameters": (
    lambda: training.init(KEY, SGD, PARAMS, (), ADAM),
    "params must be what adapts; got a MetaParams; pass meta_params.initial",
  ),
  "parameters for a rule": (
    lambda: training.init(KEY, ZEROS, SGD, (), ADAM),
    "rule must be an UpdateRule .* got a dict$",
  ),
  "parameters in a sanity check": (
    lambda: diagnostics.check_learner(INNER, ZEROS, lambda key: TASK, KEY),
    "meta_params must be a MetaParams; got a dict",
  ),
  # networks
  "a seed for a network": (lambda: NET.init(0, X), r"key must be a key, such as jax.random.key\(0\); got int"),
  "a linen module for nnx": (
    lambda: networks.from_nnx(nn.Dense(2)),
    r"factory must be a function \(rngs\) -> nnx.Module; got a linen module, which is for from_linen",
  ),
  "a linen class for nnx": (lambda: networks.from_nnx(nn.Dense), "got a linen module, which is for from_linen"),
  "an nnx module for linen": (
    lambda: networks.from_linen(nnx.eval_shape(lambda: nnx.Linear(2, 2, rngs=nnx.Rngs(0)))),
    r"instance of flax.linen.Module; got a Linear; pass from_nnx\(lambda rngs: ...\)\.",
  ),
  "a linen class": (lambda: networks.from_linen(nn.Dense), "got the class Dense; pass an instance"),
  "an nnx call that takes rngs": (
    lambda: networks.from_nnx(lambda rngs: Draws()).init(KEY, X),
    r"Draws.__call__ takes rngs, which a Network does not pass on: give each layer its own where it is made, such as",
  ),
  "key and inputs swapped": (lambda: NET.init(X, KEY), "key must be a key, .*; got an array float32"),
  "an nnx class that needs more": (
    lambda: networks.from_nnx(nnx.Linear),
    r"factory must be a function \(rngs\); got Linear\(in_features",
  ),
  # shapes and labels
  "lists": (
    lambda: adapt(task=wj.Task((X, Y.tolist()), (X, Y.tolist()))),
    "x and y must be arrays; got a list as y",
  ),
  "one task without its axis": (
    lambda: step(TASK),
    r"y must be \[batch, ...\]; got a scalar; does the batch of tasks lack .* jax.tree.map\(lambda leaf: leaf\[None\]",
  ),
  "one regression task without its axis": (
    lambda: sines(np.ones((5, 1)), np.ones((5, 1))),
    r"x must be \[batch, ...\]; got \[1\], which apply reads as one example; does the batch of tasks lack",
  ),
  "one regression task of scalars": (
    lambda: sines(np.ones((5, 1)), np.ones(5)),
    r"y must be \[batch, ...\]; got a scalar; does the batch of tasks lack",
  ),
  "one padded task without its axis": (
    lambda: step(wj.Task(*2 * [padding.pad(X, Y, 6)]), INNER),
    r"the weights of a padded batch must be an array \[examples\]; got an array float32\[\]; does the batch of tasks",
  ),
  "one padded regression task without its axis": (
    lambda: padded_line(*padding.pad(X[:, :1], X[:, :1], 6)),
    r"the weights of a padded batch must be an array \[examples\]; got an array float32\[\]; does the batch of tasks",
  ),
  "weights of a second axis": (
    lambda: padded_loss(np.ones((5, 1), np.float32)),
    r"the weights of a padded batch must be an array \[examples\]; got an array float32\[5, 1\]",
  ),
  "weights of a second axis, drawn": (
    lambda: jax.eval_shape(lambda w: wj.minibatch(2)(KEY, padding.Padded(X, Y, w), 0, (), ()), np.ones((5, 1))),
    r"the weights of a padded batch must be an array \[examples\]; got an array float32\[5, 1\]",
  ),
  "weights as a list": (lambda: padded_loss([1, 1, 1, 1, 0]), r"must be an array \[examples\]; got a list"),
  "fewer weights than examples": (
    lambda: padded_loss(np.ones(4, np.float32)),
    r"a padded batch must have a weight for each example; got an array float32\[4\] for y \(5,\)",
  ),
  "a dict for a batch": (
    lambda: adapt(task=wj.Task({"x": X, "y": Y}, {"x": X, "y": Y})),
    r"a batch must be a pair \(x, y\), or padding.Padded.*; got a dict; pass \(batch\['x'\], batch\['y'\]\)",
  ),
  "labels out of range": (
    lambda: adapt(task=with_labels([0, 1, 2, 3, 1])),
    "y must be classes 0 to 2, of which apply returns logits; got 0 to 3",
  ),
  "negative labels": (lambda: adapt(task=with_labels([0, 1, -1, 2, 1])), "y must be classes 0 to 2, .*; got -1 to 2"),
  "labels from 1": (lambda: adapt(task=with_labels([1, 2, 3, 1, 2])), "y must be classes 0 to 2, .*; got 1 to 3"),
  "float labels": (
    lambda: adapt(task=with_labels(Y.astype(np.float32))),
    r"y must be integers \[batch\], .*; got float32\[5\] .*; pass y.astype\(jnp.int32\)",
  ),
  "one-hot labels": (
    lambda: adapt(task=with_labels(np.eye(3)[Y])),
    r"y must be integers \[batch\], .*\[5, 3\]: one-hot\? pass jnp.argmax\(y, -1\)",
  ),
  "labels with an axis too many": (
    lambda: adapt(task=with_labels(Y[:, None])),
    r"y must be integers of the shape \[5\], one for each example; got int.*\[5, 1\]",
  ),
  "one image for a batch": (
    lambda: networks.from_linen(networks.Conv4(3, 4)).init(KEY, np.ones((28, 28, 1), np.float32)),
    r"x must be \[batch, height, width, channels\], got shape \(28, 28, 1\)",
  ),
  "bytes for a network": (
    lambda: networks.from_linen(networks.Conv4(3, 4)).init(KEY, np.ones((2, 8, 8, 1), np.uint8)),
    r"x must be floating-point, got uint8; tasks.few_shot.to_unit\(x\) makes it \[0, 1\]",
  ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_first_mistake_gets_one_sentence_before_anything_compiles(name):
  call, message = MISTAKES[name]
  before = len(_COMPILATIONS)
  with pytest.raises(ValueError, match=message) as error:
    call()
  assert len(_COMPILATIONS) == before, "it compiled before it refused"
  assert len(str(error.value)) < 400 and "\n" not in str(error.value)


def bare(params, shared, batch):
  return toy.loss_fn(params, shared, batch)[0]


ESTIMATORS = {
  "unrolled": meta_gradients.unrolled,
  "reverse": lambda inner: meta_gradients.unrolled(inner, "reverse"),
  "multi-step": lambda inner: meta_gradients.unrolled(inner, step_weights=(0.5, 0.5)),
  "leap and warp": lambda inner: meta_gradients.along_trajectory(inner, meta_gradients.leap(), meta_gradients.warp()),
  "implicit": lambda inner: meta_gradients.along_trajectory(
    inner._replace(prox=2.0), meta_gradients.implicit(wj.linear_solve.cg(2))
  ),
  "one step": lambda inner: meta_gradients.along_trajectory(inner, meta_gradients.one_step()),
}


# All take the loss out of the same loop.
SLOW = ("reverse", "multi-step", "implicit", "one step")


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow if n in SLOW else ()) for n in ESTIMATORS])
def test_a_loss_may_return_its_scalar_alone(name):
  results = []
  for loss_fn in (toy.loss_fn, bare):
    estimate = ESTIMATORS[name](toy.loop(num_steps=2, loss_fn=loss_fn))
    (value, _), grads = toy.run(estimate, toy.meta_params(), toy.task())
    results.append((value, grads))
  chex.assert_trees_all_close(*results, rtol=1e-6)


def test_a_scalar_alone_will_do_in_evaluation_sanity_and_offline_replay():
  inner = toy.loop(num_steps=2, loss_fn=bare, query_loss_fn=bare)
  result = wj.evaluation.evaluate(inner, toy.meta_params(), toy.tasks(2), KEY, num_tasks=2, metric="loss")
  expected = wj.evaluation.evaluate(
    toy.loop(num_steps=2), toy.meta_params(), toy.tasks(2), KEY, num_tasks=2, metric="loss"
  )
  np.testing.assert_array_equal(result.per_task, expected.per_task)
  assert diagnostics.data.query_batch(inner, toy.meta_params(), toy.task(), KEY).status == "passed"
  optimizer = wj.optimizers.per_block(initial=optax.sgd(0.1), shared=optax.sgd(0.1))
  point = toy.meta_params()
  state = training.init(KEY, inner.rule, point.initial, point.shared, optimizer)
  for objective in ("full", "released_approx"):
    jax.eval_shape(replay.meta_step(inner, optimizer, objective=objective), state, toy.tasks(2))


@pytest.mark.parametrize("label", [-1, 3])
def test_a_label_that_is_no_class_makes_a_compiled_loss_nan(label):
  loss, aux = jax.jit(losses.classification(lambda p, s, x: x))((), (), (jnp.eye(3), jnp.array([0, 1, label])))
  assert jnp.isnan(loss) and aux["accuracy"] == pytest.approx(2 / 3)


def test_a_task_may_be_one_input_and_one_integer():
  """A batch of tasks `(x [n, ...], integer y [n])` under a loss of one's own looks like one classification task."""
  loss_fn = lambda w, shared, batch: jnp.mean((batch[0] @ w - batch[1]) ** 2)
  inner, part = wj.InnerLoop(loss_fn, SGD, 1), (X, Y)
  weights = np.zeros(3, np.float32)
  state = training.init(KEY, SGD, weights, (), ADAM)
  step = training.meta_step(meta_gradients.unrolled(inner), ADAM)
  expected = np.mean((Y - 0.2 * np.sum(X**2, -1) * Y) ** 2)  # one step from zero along each task's own x
  np.testing.assert_allclose(step(state, wj.Task(part, part))[1]["loss"], expected, rtol=1e-5)
  sampler = lambda key: jax.tree.map(lambda leaf: jnp.asarray(leaf)[jax.random.randint(key, (), 0, 5)], TASK)
  many = training.many_steps(step, sampler, tasks_per_step=2, num_steps=1)
  jax.eval_shape(many, state)
  stored = wj.evaluation.evaluate(inner, wj.MetaParams(weights), wj.Task(part, part), KEY, num_tasks=5, metric="loss")
  np.testing.assert_allclose(stored.per_task[:, -1].mean(), expected, rtol=1e-5)


def test_what_is_no_mistake_is_let_through():
  adapt(num_steps=np.int64(1))
  with_loss(lambda params, *rest: jnp.sum(params))
  adapt(task=with_labels(Y.astype(np.uint8)))
  losses.classification(jax.jit(NET.apply)), losses.classification(jax.tree_util.Partial(NET.apply))
  scalars = (jnp.array([1.0, 2.0]), jnp.array([0.5, 1.5]))  # one number an example
  losses.regression(lambda params, shared, x: params * x)(2.0, (), scalars)
  grid, column = jnp.linspace(0, 1, 3), jnp.ones((3, 1))  # functions of one number of examples
  losses.regression(lambda params, shared, x: params * (x - grid))(2.0, (), (grid, grid))
  losses.regression(lambda params, shared, x: params * x.reshape(3, 1))(2.0, (), (grid, column))
  losses.regression(lambda params, shared, x: params * jnp.sum(x * grid)[None])(2.0, (), (grid, jnp.ones(1)))
  tokens = (jnp.zeros((2, 4)), jnp.zeros((2, 4), int))
  losses.classification(lambda params, shared, x: x[..., None] * jnp.ones(7))((), (), tokens)
