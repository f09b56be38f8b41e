"""Recurrent policies by PPO: environments that cannot be solved without memory.

`memory-chain` shows a bit at the first step and asks for it 20 steps later (bsuite, 2020);
`position-cart-pole` hides the velocities. GRU, LSTM and LRU should solve both, and a feed-forward
policy neither. Rollouts take single steps of the network, and updates run the same network over the
sequences, LRU in parallel over time. All of a training is one compiled program.

    python -m experiments.memory_rl
    python -m experiments.memory_rl --environment memory-chain --policies gru --seeds 1
"""

import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from rich.console import Console

from experiments.common.options import check_at_least
from experiments.common.plots import COLORS, End, label_curves, style_axes
from experiments.common.results import write_results
from experiments.common.seeds import mean_and_std
from experiments.memory_rl import ppo
from experiments.memory_rl.environments import ENVIRONMENTS, Environment
from experiments.memory_rl.model import CELLS, Model
from experiments.memory_rl.ppo import Options

Policy = Literal["gru", "lstm", "lru", "feed-forward"]


@dataclass(frozen=True)
class Config:
    """Environments, policies and training."""

    environment: Literal["memory-chain", "position-cart-pole", "all"] = "all"
    """Environment."""
    policies: tuple[Policy, ...] = ("gru", "lstm", "lru", "feed-forward")
    """Policies, by the cell of their network."""
    hidden: int = 32
    """Hidden size, and the width of the layers before and after the cell."""
    seeds: int = 3
    """Seeds to train side by side."""
    seed: int = 0
    """The first seed."""
    tested: int = 256
    """Episodes of the final evaluation, for each seed."""
    out: Path = Path("runs/memory_rl")
    """Output folder."""
    ppo: Options = field(default_factory=Options)

    def __post_init__(self):
        check_at_least(1, self, "hidden", "seeds", "tested")


class Trained(NamedTuple):
    """One policy in one environment.

    Attributes:
        environment: its name.
        policy: its name.
        returns: the mean return of the final evaluation of each seed.
        curve: the mean return of the episodes that ended in each iteration `[seeds, iterations]`;
            NaN if none did.
        rate: environment steps a second of all seeds, updates included and compilation excluded.
    """

    environment: str
    policy: str
    returns: list[float]
    curve: np.ndarray
    rate: float


def run_policy(config: Config, environment: Environment, policy: Policy) -> Trained:
    """Trains and evaluates all seeds of a policy."""
    model = Model(CELLS[policy](config.hidden), environment.actions, config.hidden)
    seeds = range(config.seed, config.seed + config.seeds)
    keys = jnp.stack([jax.random.key(seed) for seed in seeds])
    train = jax.jit(jax.vmap(partial(ppo.train, environment, model, config.ppo)))
    program = train.lower(keys).compile()
    began = time.perf_counter()
    params, history = jax.block_until_ready(program(keys))
    seconds = time.perf_counter() - began
    with np.errstate(invalid="ignore"):
        curve = np.asarray(history.returns) / np.asarray(history.episodes)
    test = partial(ppo.evaluate, environment, model, count=config.tested)
    returns = jax.jit(jax.vmap(test))(params, jax.vmap(partial(jax.random.fold_in, data=1))(keys))
    steps = config.seeds * config.ppo.iterations * config.ppo.environments * config.ppo.time
    return Trained(environment.name, policy, np.asarray(returns).tolist(), curve, steps / seconds)


def main(config: Config) -> list[Trained]:
    """Trains every policy in every environment, and reports."""
    console = Console(soft_wrap=True, highlight=False, markup=False)
    config.out.mkdir(parents=True, exist_ok=True)
    names = list(ENVIRONMENTS) if config.environment == "all" else [config.environment]
    results, chances, began = [], {}, time.perf_counter()
    for name in names:
        environment = ENVIRONMENTS[name]()
        chances[name] = chance = float(
            ppo.evaluate(environment, None, None, jax.random.key(config.seed), 4 * config.tested)
        )
        console.print(
            f"{name}: solved from {environment.solved:g}, random policy {chance:.2f}, "
            f"{config.ppo.iterations * config.ppo.environments * config.ppo.time:,} steps"
        )
        for policy in config.policies:
            result = run_policy(config, environment, policy)
            results.append(result)
            each = ", ".join(f"{value:.2f}" for value in result.returns)
            mean = mean_and_std(result.returns, "{:.2f}", "{:.2f}")
            console.print(f"  {policy:<13} {mean}   ({each})   {result.rate:,.0f} steps/s")
    figures: dict[str, Any] = {
        f"{each.environment}, {each.policy}": each.returns for each in results
    }
    figures |= {f"{each.environment}, {each.policy}, steps a second": each.rate for each in results}
    seconds = time.perf_counter() - began
    write_results(config.out, "memory_rl", config, figures, seconds, {"random": chances})
    plot_returns(config, results)
    return results


def plot_returns(config: Config, results: list[Trained]) -> None:
    """Plots the return of every policy in training, the mean and the range over seeds."""
    names = list(dict.fromkeys(result.environment for result in results))
    figure = Figure(figsize=(7 * len(names), 4.5), layout="constrained")
    for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        ends: list[Any] = []
        for result in (result for result in results if result.environment == name):
            color = COLORS[config.policies.index(result.policy)]
            width = config.ppo.environments * config.ppo.time
            steps = width * np.arange(1, result.curve.shape[1] + 1)
            mean = result.curve.mean(axis=0)
            axes.fill_between(
                steps, result.curve.min(axis=0), result.curve.max(axis=0), color=color, alpha=0.15
            )
            axes.plot(steps, mean, color=color)
            finite = mean[np.isfinite(mean)]
            ends.append(End(finite[-1] if len(finite) else 0.0, result.policy, color))
        style_axes(axes, xlabel="environment steps", ylabel="return of an episode", title=name)
        axes.margins(x=0)
        label_curves(axes, ends)
    figure.savefig(config.out / "returns.png", dpi=120)
