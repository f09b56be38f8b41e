"""Learning rates over the course of a training, by name."""

from typing import Literal, get_args

import optax

ScheduleName = Literal["cosine", "constant", "one-cycle"]


def make_schedule(name: ScheduleName, peak: float, warmup: int, updates: int) -> optax.Schedule:
    """The schedule of a name: `update number -> learning rate`.

    All rise to the peak; `cosine` and `constant` do so on a line from zero.

    Args:
        name: `cosine` falls to zero along half a cosine, `constant` stays at the peak, `one-cycle`
            rises from 1/25 of the peak for 30 % of all updates and falls to 1/250,000 of it, both
            along half a cosine (L. Smith and N. Topin, "Super-convergence", 2018).
        peak: the largest learning rate.
        warmup: updates until the peak is reached, at most half of all; `one-cycle` has its own.
        updates: how many there will be.

    Example:
        >>> schedule = make_schedule("cosine", peak=0.5, warmup=10, updates=110)
        >>> [round(float(schedule(update)), 3) for update in (0, 5, 10, 60, 110)]
        [0.0, 0.25, 0.5, 0.25, 0.0]
    """
    warmup = min(warmup, updates // 2)
    if name == "cosine":
        return optax.warmup_cosine_decay_schedule(0.0, peak, warmup, updates)
    if name == "constant":
        return optax.warmup_constant_schedule(0.0, peak, warmup)
    if name == "one-cycle":
        return optax.cosine_onecycle_schedule(updates, peak)
    raise ValueError(f"name must be one of {get_args(ScheduleName)}, got {name!r}")
