"""Proximal policy optimization of a recurrent policy, as one function to compile.

A rollout of T steps of N environments, the advantages, and several epochs of updates make one
iteration (J. Schulman et al., "Proximal policy optimization algorithms", 2017). A minibatch is
some of the environments with all of their steps, from the states of the network at the beginning
of the rollout; `starts` cuts the episodes.

A time limit is not part of the task, and the policy does not see the time. So the return of an
episode that it cuts goes on with the value of the last observation (F. Pardo et al., "Time limits
in reinforcement learning", 2018).
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from experiments.common.options import check_at_least, check_positive, check_rate
from experiments.memory_rl.environments import Environment
from experiments.memory_rl.model import Model, Params


@dataclass(frozen=True)
class Options:
    """Proximal policy optimization."""

    iterations: int = 120
    """Rollouts, each followed by updates."""
    environments: int = 64
    """Environments that run side by side."""
    time: int = 64
    """Steps of a rollout."""
    epochs: int = 4
    """Passes over a rollout."""
    minibatches: int = 4
    """Minibatches of a pass, each of some of the environments."""
    learning_rate: float = 2e-3
    """Initial learning rate of Adam; it decays linearly to 0."""
    clip_norm: float = 0.5
    """Maximum global norm of the gradient."""
    discount: float = 0.99
    """Discount factor γ."""
    trace: float = 0.95
    """Decay λ of generalized advantage estimation."""
    clip: float = 0.2
    """Largest change of the probability ratio that is rewarded, ε."""
    entropy: float = 0.01
    """Weight of the entropy."""
    value: float = 0.5
    """Weight of the squared error of the values."""

    def __post_init__(self):
        check_at_least(1, self, "iterations", "environments", "time", "epochs", "minibatches")
        check_positive(self, "learning_rate", "clip_norm", "clip")
        check_rate(self, "discount", "trace")
        if self.environments % self.minibatches:
            raise ValueError(
                "environments must be a multiple of minibatches, got "
                f"{self.environments} and {self.minibatches}"
            )


class Rollout(NamedTuple):
    """Steps `[time, environments]`; the observation comes first, then what followed from it."""

    observation: jax.Array
    start: jax.Array
    action: jax.Array
    log_probability: jax.Array
    value: jax.Array
    reward: jax.Array
    done: jax.Array
    beyond: jax.Array  # the value after an episode that its time limit cut; 0 elsewhere


class Carry(NamedTuple):
    """What one iteration hands to the next."""

    params: Params
    opt_state: Any
    environment: Any
    observation: jax.Array
    start: jax.Array
    network: Any
    returned: jax.Array  # the return of each running episode


class History(NamedTuple):
    """What an iteration reports: the sum of returns of the episodes that ended, and their count."""

    returns: jax.Array
    episodes: jax.Array


def train(
    environment: Environment, model: Model, options: Options, key: jax.Array
) -> tuple[Params, History]:
    """Trains one seed; `jit` and `vmap` it."""
    updates = options.iterations * options.epochs * options.minibatches
    optimizer = optax.chain(
        optax.clip_by_global_norm(options.clip_norm),
        optax.adam(optax.linear_schedule(options.learning_rate, 0.0, updates), eps=1e-5),
    )
    key, first, second = jax.random.split(key, 3)
    params = model.init(first, environment.size)
    observation, state = environment.reset(second, options.environments)
    carry = Carry(
        params,
        optimizer.init(params),
        state,
        observation,
        jnp.ones(options.environments, bool),
        model.init_state(params, options.environments),
        jnp.zeros(options.environments),
    )

    def iterate(carry: Carry, key: jax.Array) -> tuple[Carry, History]:
        acting, updating = jax.random.split(key)
        after, (rollout, ended) = act(
            environment, model, carry, jax.random.split(acting, options.time)
        )
        _, (_, last) = model.step(after.params, after.network, after.observation, after.start)
        advantages = estimate_advantages(
            environment.reward_scale * rollout.reward,
            rollout.value,
            rollout.done,
            rollout.beyond,
            last,
            options.discount,
            options.trace,
        )
        data = rollout, advantages, advantages + rollout.value

        def update(learned, key):
            rows = jax.random.permutation(key, options.environments)
            rows = rows.reshape(options.minibatches, -1)

            def one(learned, rows):
                params, opt_state = learned
                part = jax.tree.map(lambda leaf: leaf[:, rows], data)
                state = jax.tree.map(lambda leaf: leaf[rows], carry.network)
                gradient = jax.grad(loss)(params, model, options, state, *part)
                change, opt_state = optimizer.update(gradient, opt_state, params)
                return (optax.apply_updates(params, change), opt_state), None

            return jax.lax.scan(one, learned, rows)

        learned, _ = jax.lax.scan(
            update, (after.params, after.opt_state), jax.random.split(updating, options.epochs)
        )
        history = History(ended.sum(), rollout.done.sum())
        return after._replace(params=learned[0], opt_state=learned[1]), history

    carry, history = jax.lax.scan(iterate, carry, jax.random.split(key, options.iterations))
    return carry.params, history


def act(environment: Environment, model: Model, carry: Carry, keys: jax.Array):
    """Runs the policy: `(carry, (rollout, returns of the episodes that ended))`."""

    def step(carry: Carry, key: jax.Array):
        sampling, moving = jax.random.split(key)
        network, (logits, value) = model.step(
            carry.params, carry.network, carry.observation, carry.start
        )
        action = jax.random.categorical(sampling, logits)
        log_probability = log_probabilities(logits, action)
        after = environment.step(moving, carry.environment, action)
        going_on = jnp.zeros_like(after.done)
        _, (_, beyond) = model.step(carry.params, network, after.last, going_on)
        rollout = Rollout(
            carry.observation,
            carry.start,
            action,
            log_probability,
            value,
            after.reward,
            after.done,
            jnp.where(after.cut, beyond, 0.0),
        )
        returned = carry.returned + after.reward
        carry = carry._replace(
            environment=after.state,
            observation=after.observation,
            start=after.done,
            network=network,
            returned=jnp.where(after.done, 0.0, returned),
        )
        return carry, (rollout, jnp.where(after.done, returned, 0.0))

    return jax.lax.scan(step, carry, keys)


def log_probabilities(logits: jax.Array, actions: jax.Array) -> jax.Array:
    """The log-probability of each action."""
    return -optax.softmax_cross_entropy_with_integer_labels(logits, actions)


def estimate_advantages(
    rewards: jax.Array,
    values: jax.Array,
    dones: jax.Array,
    beyond: jax.Array,
    last: jax.Array,
    discount: float,
    trace: float,
) -> jax.Array:
    """Generalized advantage estimation `[time, environments]` (Schulman et al., 2016, eq. 16).

        δ_t = r_t + γ V_(t+1) - V_t,   A_t = δ_t + γ λ A_(t+1)

    with A_(t+1) = 0 and V_(t+1) = `beyond` after the end of an episode, and V = `last` after the
    last step.
    """

    def back(advantage, step):
        reward, value, following, done = step
        error = reward + discount * following - value
        advantage = error + jnp.where(done, 0.0, discount * trace) * advantage
        return advantage, advantage

    following = jnp.where(dones, beyond, jnp.concatenate([values[1:], last[None]]))
    steps = rewards, values, following, dones
    return jax.lax.scan(back, jnp.zeros_like(last), steps, reverse=True)[1]


def loss(
    params: Params,
    model: Model,
    options: Options,
    state: Any,
    rollout: Rollout,
    advantages: jax.Array,
    targets: jax.Array,
) -> jax.Array:
    """The clipped surrogate objective, the error of the values, and the entropy (eq. 7 and 9)."""
    logits, values = model.apply(params, state, rollout.observation, rollout.start)
    advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
    ratio = jnp.exp(log_probabilities(logits, rollout.action) - rollout.log_probability)
    clipped = jnp.clip(ratio, 1 - options.clip, 1 + options.clip)
    surrogate = jnp.minimum(ratio * advantages, clipped * advantages).mean()
    error = optax.losses.squared_error(values, targets).mean()
    entropy = -(jax.nn.softmax(logits) * jax.nn.log_softmax(logits)).sum(axis=-1).mean()
    return -surrogate + options.value * error - options.entropy * entropy


def evaluate(
    environment: Environment, model: Model | None, params: Any, key: jax.Array, count: int
) -> jax.Array:
    """The mean return of one episode of each of `count` environments.

    The most probable action is taken; without a model, a random one.
    """
    key, first = jax.random.split(key)
    observation, state = environment.reset(first, count)
    network = None if model is None else model.init_state(params, count)

    def step(carry, key):
        state, network, observation, start, returned, running = carry
        sampling, moving = jax.random.split(key)
        if model is None:
            action = jax.random.randint(sampling, (count,), 0, environment.actions)
        else:
            network, (logits, _) = model.step(params, network, observation, start)
            action = logits.argmax(axis=-1)
        after = environment.step(moving, state, action)
        returned += jnp.where(running, after.reward, 0.0)
        running &= ~after.done
        return (after.state, network, after.observation, after.done, returned, running), None

    start = (
        state,
        network,
        observation,
        jnp.ones(count, bool),
        jnp.zeros(count),
        jnp.ones(count, bool),
    )
    last, _ = jax.lax.scan(step, start, jax.random.split(key, environment.longest))
    return last[4].mean()
