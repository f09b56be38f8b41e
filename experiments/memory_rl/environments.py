"""Environments of gymnax that a policy without memory cannot solve."""

import importlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from experiments.common.cli import UserError


def make(name: str) -> tuple[Any, Any]:
    """An environment of gymnax and its default parameters."""
    try:
        gymnax = importlib.import_module("gymnax")
    except ImportError as error:
        raise UserError(f"{error}; gymnax is an extra: pip install 'jaxrnn[rl]'") from error
    return gymnax.make(name)


class Transition(NamedTuple):
    """The result of one step; a new episode has begun if `done`.

    Attributes:
        observation: the next observation, the first of the new episode if one has begun.
        state: the state that belongs to it.
        reward: the reward.
        done: whether the episode has ended.
        last: the observation that followed the action, also where the episode has ended.
        cut: whether the episode was ended by its time limit alone.
    """

    observation: jax.Array
    state: Any
    reward: jax.Array
    done: jax.Array
    last: jax.Array
    cut: jax.Array


class Environment(NamedTuple):
    """A batch of copies of one environment of gymnax.

    Attributes:
        name: the name.
        environment: the environment.
        params: its parameters.
        observed: the observation that the policy receives, from that of the environment.
        size: the features of an observation.
        longest: the largest number of steps of an episode.
        solved: the mean return of a policy that solves it.
        reward_scale: the factor of the rewards in training, so that returns are near 1.
    """

    name: str
    environment: Any
    params: Any
    observed: Callable[[jax.Array], jax.Array]
    size: int
    longest: int
    solved: float
    reward_scale: float = 1.0

    @property
    def actions(self) -> int:
        """The number of actions."""
        return self.environment.num_actions

    def reset(self, key: jax.Array, count: int) -> tuple[jax.Array, Any]:
        """The first observations `[count, features]` and the states of so many copies."""
        reset = jax.vmap(self.environment.reset, in_axes=(0, None))
        observation, state = reset(jax.random.split(key, count), self.params)
        return self.observed(observation), state

    def step(self, key: jax.Array, state: Any, action: jax.Array) -> Transition:
        """One step of every copy; those whose episode ends are reset."""
        step = jax.vmap(self.environment.step, in_axes=(0, 0, 0, None))
        keys = jax.random.split(key, len(action))
        observation, state, reward, terminated, truncated, info = step(
            keys, state, action, self.params
        )
        return Transition(
            self.observed(observation),
            state,
            jnp.asarray(reward, jnp.float32),
            terminated | truncated,
            self.observed(info["final_observation"]),
            truncated & ~terminated,
        )


def _memory_chain(length: int = 20) -> Environment:
    """A bit is shown at the first step only, and the last action must name it (bsuite, 2020)."""
    environment, params = make("MemoryChain-bsuite")
    params = params.replace(memory_length=length)
    return Environment(
        "memory-chain", environment, params, lambda x: x, size=3, longest=length + 1, solved=0.95
    )


def _position_cart_pole(longest: int = 200) -> Environment:
    """CartPole without the velocities (Wierstra et al., "Recurrent policy gradients", 2010)."""
    environment, params = make("CartPole-v1")
    params = params.replace(max_steps_in_episode=longest)
    # Units near 1: the cart leaves at 2.4, and the pole falls at 0.21 radians.
    scale = jnp.array([1.0, 10.0])
    return Environment(
        "position-cart-pole",
        environment,
        params,
        lambda x: x[..., ::2] * scale,
        size=2,
        longest=longest,
        solved=0.95 * longest,
        reward_scale=0.02,
    )


ENVIRONMENTS: dict[str, Callable[[], Environment]] = {
    "memory-chain": _memory_chain,
    "position-cart-pole": _position_cart_pole,
}
