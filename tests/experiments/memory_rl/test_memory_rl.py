"""Recurrent PPO: steps against sequences, the formulas against NumPy, environments, and a run."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.common.cli import UserError
from experiments.memory_rl import environments, ppo, train
from experiments.memory_rl.model import CELLS, Model
from tests.support.results import read_results
from tests.support.rounding import with_noise


def draw(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


@pytest.mark.parametrize("policy", CELLS)
def test_steps_and_sequences_agree_across_episodes(policy):
    model = Model(CELLS[policy](4), actions=3, width=5)
    params = with_noise(model.init(jax.random.key(0), 2))
    xs, state = draw(7, 3, 2), with_noise(model.init_state(params, 3), 1)
    starts = jnp.asarray(np.random.default_rng(2).random((7, 3)) < 0.3)
    logits, values = model.apply(params, state, xs, starts)
    assert logits.shape == (7, 3, 3) and values.shape == (7, 3)
    for time in range(7):
        state, (step_logits, step_values) = model.step(params, state, xs[time], starts[time])
        np.testing.assert_allclose(step_logits, logits[time], atol=2e-6)
        np.testing.assert_allclose(step_values, values[time], atol=2e-6)
    # A start at step 4 of every row forgets the steps before it.
    other = model.apply(params, state, xs.at[:4].add(1.0), starts.at[4].set(True))[0]
    same = model.apply(params, state, xs, starts.at[4].set(True))[0]
    np.testing.assert_allclose(other[4:], same[4:], atol=1e-6)


def test_lru_runs_in_parallel_over_time():
    assert type(Model(CELLS["lru"](4), 2, 4).engine).__name__ == "Associative"
    assert type(Model(CELLS["gru"](4), 2, 4).engine).__name__ == "Auto"


def test_advantages_are_sums_of_discounted_errors_within_an_episode():
    time, rows, discount, trace = 6, 3, 0.9, 0.8
    rewards, values, last = draw(time, rows), draw(time, rows, seed=1), draw(rows, seed=2)
    dones = np.random.default_rng(3).random((time, rows)) < 0.3
    beyond = draw(time, rows, seed=4)  # of every step; of importance at the end of an episode
    found = ppo.estimate_advantages(
        rewards, values, jnp.asarray(dones), beyond, last, discount, trace
    )
    following = np.concatenate([values[1:], last[None]])
    for row in range(rows):
        for begin in range(time):
            total = 0.0
            for t in range(begin, time):
                bootstrap = beyond[t, row] if dones[t, row] else following[t, row]
                error = rewards[t, row] + discount * bootstrap - values[t, row]
                total += (discount * trace) ** (t - begin) * error
                if dones[t, row]:
                    break
            np.testing.assert_allclose(found[begin, row], total, atol=1e-5)


def test_the_loss_is_the_clipped_objective():
    options = ppo.Options(clip=0.1, entropy=0.03, value=0.7)
    model = Model(CELLS["gru"](4), actions=3, width=5)
    params = with_noise(model.init(jax.random.key(0), 2))
    xs, state, starts = draw(6, 4, 2), model.init_state(params, 4), jnp.zeros((6, 4), bool)
    actions = jnp.asarray(np.random.default_rng(1).integers(0, 3, (6, 4)))
    before, advantages, targets = -1.1 + 0.3 * draw(6, 4, seed=2), draw(6, 4, seed=3), draw(6, 4)
    empty = jnp.zeros(())
    rollout = ppo.Rollout(xs, starts, actions, before, empty, empty, empty, empty)
    found = ppo.loss(params, model, options, state, rollout, advantages, targets)
    logits, values = map(np.asarray, model.apply(params, state, xs, starts))
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    ratio = np.take_along_axis(p, np.asarray(actions)[..., None], -1)[..., 0] / np.exp(before)
    assert (ratio > 1.1).any() and (ratio < 0.9).any()
    a = np.asarray(advantages)
    a = (a - a.mean()) / a.std()
    objective = np.minimum(ratio * a, np.clip(ratio, 0.9, 1.1) * a).mean()
    entropy = -(p * np.log(p)).sum(-1).mean()
    error = ((values - targets) ** 2).mean()
    np.testing.assert_allclose(found, -objective + 0.7 * error - 0.03 * entropy, atol=1e-5)


def test_minibatches_divide_the_environments():
    with pytest.raises(ValueError, match="multiple of minibatches, got 10 and 4"):
        ppo.Options(environments=10, minibatches=4)


def test_a_missing_extra_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "gymnax", None)
    with pytest.raises(UserError, match=r"gymnax is an extra: pip install 'jaxrnn\[rl\]'"):
        environments.ENVIRONMENTS["memory-chain"]()


@dataclasses.dataclass(frozen=True)
class Bandit:
    """Episodes of one step; the action that the observation names is worth 1."""

    size: int = 2
    actions: int = 2
    reward_scale: float = 1.0

    def reset(self, key, count):
        right = jax.random.randint(key, (count,), 0, 2)
        return jax.nn.one_hot(right, 2), right

    def step(self, key, state, action):
        observation, following = self.reset(key, len(action))
        ends = jnp.ones(len(action), bool)
        reward = (action == state).astype("float32")
        return environments.Transition(observation, following, reward, ends, observation, ~ends)


def test_training_raises_the_return_from_chance_to_the_optimum():
    options = ppo.Options(
        iterations=20, environments=16, time=8, epochs=2, minibatches=2, learning_rate=0.02
    )
    train = jax.jit(ppo.train, static_argnums=(0, 1, 2))
    model = Model(CELLS["feed-forward"](8), actions=2, width=8)
    _, history = train(Bandit(), model, options, jax.random.key(0))
    returns = history.returns / history.episodes
    assert 0.3 < returns[0] < 0.7 and returns[-1] > 0.95


@pytest.fixture
def gymnax():
    return pytest.importorskip("gymnax", reason="it comes with the extra: rl")


@dataclasses.dataclass(frozen=True)
class Oracle:
    """The optimal policy of the memory chain: the state is the bit of the first observation."""

    actions: int = 2

    def init_state(self, params, count):
        return jnp.zeros(count)

    def step(self, params, state, x, starts):
        state = jnp.where(starts, x[:, 2], state)
        return state, (jnp.stack([-state, state], axis=-1), state)


def test_the_chain_is_solved_with_memory_only(gymnax):
    chain = environments.ENVIRONMENTS["memory-chain"]()
    key = jax.random.key(0)
    assert ppo.evaluate(chain, Oracle(), (), key, 64) == 1
    blind = Model(CELLS["feed-forward"](4), 2, 4)
    for seed in range(3):
        params = with_noise(blind.init(jax.random.key(seed), chain.size))
        assert abs(ppo.evaluate(chain, blind, params, key, 400)) < 0.2
    assert abs(ppo.evaluate(chain, None, None, key, 400)) < 0.2


def test_the_cart_pole_shows_positions_only_and_ends(gymnax):
    pole = environments.ENVIRONMENTS["position-cart-pole"]()
    observation, state = pole.reset(jax.random.key(0), 5)
    np.testing.assert_allclose(observation, np.stack([state.x, 10 * state.theta], -1), rtol=1e-6)
    after = pole.step(jax.random.key(1), state, jnp.ones(5, jnp.int32))
    assert after.observation.shape == (5, 2) and (after.reward == 1).all() and not after.done.any()
    assert not after.cut.any()
    np.testing.assert_array_equal(after.last, after.observation)
    late = pole.step(jax.random.key(1), state.replace(time=jnp.full(5, 199)), jnp.ones(5, int))
    assert late.done.all() and (late.state.time == 0).all() and late.cut.all()
    np.testing.assert_array_equal(late.last, after.last)  # of the episode that was cut
    assert (late.observation != late.last).any(axis=1).all()  # of the new one
    fallen = state.replace(time=jnp.full(5, 199), theta=jnp.ones(5))
    fell = pole.step(jax.random.key(1), fallen, jnp.ones(5, int))
    assert fell.done.all() and not fell.cut.any()
    returned = ppo.evaluate(pole, None, None, jax.random.key(0), 200)
    assert 15 < returned < 30  # the return of a random policy is about 22


def test_a_rollout_records_what_the_policy_did(gymnax):
    """Log-probabilities and values are those of the sequence; returns are sums within episodes."""
    pole = environments.ENVIRONMENTS["position-cart-pole"]()
    model = Model(CELLS["gru"](4), 2, 4)
    params = with_noise(model.init(jax.random.key(0), pole.size))
    observation, state = pole.reset(jax.random.key(1), 3)
    first = ppo.Carry(
        params, (), state, observation, jnp.ones(3, bool), model.init_state(params, 3), jnp.zeros(3)
    )
    keys = jax.random.split(jax.random.key(2), 50)
    carry, (rollout, ended) = ppo.act(pole, model, first, keys)
    logits, values = model.apply(params, first.network, rollout.observation, rollout.start)
    expected = jnp.take_along_axis(jax.nn.log_softmax(logits), rollout.action[..., None], -1)
    np.testing.assert_allclose(rollout.log_probability, expected[..., 0], atol=2e-5)
    np.testing.assert_allclose(rollout.value, values, atol=2e-5)
    np.testing.assert_array_equal(rollout.start[1:], rollout.done[:-1])
    assert rollout.done.sum() >= 3
    np.testing.assert_allclose(ended.sum() + carry.returned.sum(), rollout.reward.sum())
    for row in range(3):
        length = int(np.argmax(rollout.done[:, row])) + 1
        assert ended[length - 1, row] == length  # a reward of 1 a step


def test_an_episode_cut_by_its_time_limit_goes_on_with_the_value_of_its_last_observation(gymnax):
    pole = environments.ENVIRONMENTS["position-cart-pole"]()
    model = Model(CELLS["gru"](4), 2, 4)
    params = with_noise(model.init(jax.random.key(0), pole.size))
    observation, state = pole.reset(jax.random.key(1), 3)
    # Two rows are cut, after 5 and 3 steps, and in one the pole falls.
    time = jnp.asarray([195, 0, 197], jnp.int32)
    angle = jnp.asarray([0.0, 0.25, 0.0])
    first = ppo.Carry(
        params,
        (),
        state.replace(time=time, theta=angle),
        observation,
        jnp.ones(3, bool),
        model.init_state(params, 3),
        jnp.zeros(3),
    )
    _, (rollout, _) = ppo.act(pole, model, first, jax.random.split(jax.random.key(2), 7))
    assert rollout.done[0, 1]
    expected = np.zeros((7, 3), np.float32)
    for row, end in ((0, 4), (2, 2)):
        assert rollout.done[end, row]
        state = jax.tree.map(lambda leaf, row=row: leaf[row], first.environment)
        for action in rollout.action[: end + 1, row]:
            *_, info = pole.environment.step(jax.random.key(3), state, action, pole.params)
            state = pole.environment.step_env(jax.random.key(3), state, action, pole.params)[1]
        last = pole.observed(info["final_observation"])
        xs = jnp.concatenate([rollout.observation[: end + 1, row], last[None]])[:, None]
        starts = jnp.arange(end + 2)[:, None] == 0
        expected[end, row] = model.apply(params, model.init_state(params, 1), xs, starts)[1][-1, 0]
    np.testing.assert_allclose(rollout.beyond, expected, atol=2e-6)  # 0 at all other steps


@pytest.mark.thorough
def test_two_steps_of_two_policies(gymnax, tmp_path, capsys):
    options = ppo.Options(iterations=2, environments=4, time=30, epochs=2, minibatches=2)
    config = train.Config(
        environment="memory-chain",
        policies=("lru", "feed-forward"),
        hidden=4,
        seeds=2,
        tested=8,
        out=tmp_path,
        ppo=options,
    )
    results = train.main(config)
    assert [result.policy for result in results] == ["lru", "feed-forward"]
    for result in results:
        assert result.curve.shape == (2, 2) and len(result.returns) == 2 and result.rate > 0
        assert (np.abs(result.curve) <= 1).all()
    written = read_results(tmp_path)
    for result in results:
        assert written[f"memory-chain, {result.policy}"].values == tuple(result.returns)
    assert -1 <= written["random/memory-chain"].mean <= 1
    assert "random policy" in capsys.readouterr().out
    assert (tmp_path / "returns.png").stat().st_size > 10_000


@pytest.mark.slow
def test_policies_with_memory_solve_the_chain_and_a_feed_forward_one_does_not(gymnax, tmp_path):
    config = train.Config(environment="memory-chain", out=tmp_path)
    for result in train.main(config):
        if result.policy == "feed-forward":
            assert max(result.returns) < 0.3
        else:
            assert min(result.returns) > 0.95
