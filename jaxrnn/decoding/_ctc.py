"""Connectionist temporal classification: from the labels of frames to a sequence of labels."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrnn import _validation as checks
from jaxrnn._arguments import check_size
from jaxrnn._masking import select
from jaxrnn._numerics import state_dtype
from jaxrnn._typing import Array, PyTree
from jaxrnn.decoding._step import (
    Decoded,
    Work,
    check_logits,
    check_token,
    log_softmax,
    prepare_step,
)


class LanguageModel(NamedTuple):
    """What is likely to be said at all, as a model of sequences of labels.

    The label that is CTC's blank is its boundary: it is read before the first label, and the
    probability of it after the last is that of the end.

    Fields:
        step: ``(params, state, label) -> (state, logits)`` for any batch of labels, as for the
            other decoders; or a cell that takes tokens and gives logits.
        params: of the step; None for a step ``(state, label) -> (state, logits)``.
        state: that of one sequence, before it has read anything; None for a cell's own.
        weight: how much its log-probabilities count beside those of the frames.
        bonus: what each label is worth, for a model of language likes short sequences best.
    """

    step: Any
    params: PyTree
    state: PyTree = None
    weight: float = 1.0
    bonus: float = 0.0


def ctc_greedy(logits: Any, *, lengths: Any = None, blank: int = 0) -> Decoded:
    """The labelling of the likeliest path: repeats are merged, then blanks dropped.

        labelling = collapse(argmax logits_1, argmax logits_2, ...)

    Args:
        logits: those of each frame's labels, or their log-probabilities.
        lengths: the number of valid frames of each row; None if all are.
        blank: the label that says nothing.

    Shapes:
        logits ``[time, *batch, labels]``, lengths int ``[*batch]``; tokens ``[time, *batch]``,
        filled up with ``blank``, lengths and scores ``[*batch]``.

    Returns:
        What was decoded, with the logarithm of the path's probability, which is but one of those
        that give this labelling.

    Raises:
        TypeError: an argument has the wrong kind.
        ValueError: an argument has the wrong shape or value.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from jaxrnn import decoding
        >>> frames = 9.0 * jax.nn.one_hot(jnp.array([0, 1, 1, 0, 1, 2, 2]), 3)
        >>> decoded = decoding.ctc_greedy(frames)
        >>> print(decoded.tokens[: decoded.lengths])
        [1 1 2]

    References:
        A. Graves et al., "Connectionist temporal classification", 2006, section 3.2 (best path
        decoding).
    """
    logits, lengths, blank = _prepare(logits, lengths, blank)
    return _best_path(blank, logits, lengths)


def ctc_beam_search(
    logits: Any,
    *,
    width: int,
    lengths: Any = None,
    blank: int = 0,
    length: int | None = None,
    language_model: LanguageModel | None = None,
) -> Decoded:
    """The likeliest labellings, each with the probability of all paths that give it.

    At each frame a beam (a prefix of a labelling) stays what it is, by a blank or a repeat, or is
    continued by a label; what comes out alike is one beam. The ``width`` likeliest are kept. A beam
    as wide as there are labellings makes no mistake. With a language model a labelling's score is

        log p(labelling | frames) + weight · log p(labelling) + bonus · its length

    Args:
        logits: see `ctc_greedy`.
        width: how many beams to keep.
        lengths: see `ctc_greedy`.
        blank: see `ctc_greedy`.
        length: the most labels that a labelling may have; None allows a label for every frame.
        language_model: what is likely at all; None for none.

    Shapes:
        logits ``[time, *batch, labels]``, lengths int ``[*batch]``; tokens
        ``[length, *batch, width]``, best first, filled up with ``blank``; lengths and scores
        ``[*batch, width]``.

    Returns:
        The labellings kept at last, with the logarithms of their probabilities (or their scores):
        -inf in a beam that is empty, where there are fewer labellings than beams.

    Raises:
        TypeError: an argument has the wrong kind.
        ValueError: an argument has the wrong shape or value.

    Example:
        Each frame is likelier blank than not, and yet a label is likelier than none:

        >>> import jax.numpy as jnp
        >>> from jaxrnn import decoding
        >>> frames = jnp.log(jnp.array([[0.6, 0.4], [0.6, 0.4]]))
        >>> print(decoding.ctc_greedy(frames).lengths)
        0
        >>> beams = decoding.ctc_beam_search(frames, width=2)
        >>> print(beams.tokens[:1, 0], jnp.exp(beams.scores).round(2))
        [1] [0.64 0.36]

    References:
        A. Graves et al., "Connectionist temporal classification", 2006, section 3.2.
        A. Hannun, A. Maas, D. Jurafsky and A. Ng, "First-pass large vocabulary continuous speech
        recognition using bi-directional recurrent DNNs", 2014, algorithm 1.

    Note:
        The algorithm there asks a model of words at each space; here a model of labels is asked at
        each label.
    """
    logits, lengths, blank = _prepare(logits, lengths, blank)
    check_size("width", width)
    if length is not None:
        check_size("length", length)
    most = len(logits) if length is None else int(length)
    work, fused = None, None
    if language_model is not None:
        work, fused = _prepare_model(language_model, logits.shape[-1], blank)
    return _prefix_search(int(width), blank, most, work, logits, lengths, fused)


class _Fused(NamedTuple):
    """The arrays of a language model."""

    params: PyTree
    state: PyTree
    weight: Array
    bonus: Array


def _prepare_model(model: LanguageModel, labels: int, blank: int) -> tuple[Work, _Fused]:
    if not isinstance(model, LanguageModel):
        raise TypeError(f"language_model must be a LanguageModel, got {model!r}")
    step, params, state, weight, bonus = model
    explicit, begin = params is not None, jnp.int32(blank)
    function, params, state, _ = prepare_step(step, params, state, begin, "label", 0)
    given = check_logits(function, params, state, begin).shape[-1]
    if given != labels:
        raise ValueError(
            f"language_model must give logits for the {labels} labels of the frames, got {given}"
        )
    fused = _Fused(params, state, jnp.asarray(weight, float), jnp.asarray(bonus, float))
    return Work(step, explicit, 1, None), fused


def _prepare(logits: Any, lengths: Any, blank: Any) -> tuple[Array, Array, int]:
    logits = checks.as_array("logits", logits)
    if not jnp.issubdtype(logits.dtype, jnp.floating):
        raise TypeError(f"logits must be floating-point numbers, got {logits.dtype}")
    if logits.ndim < 2:
        raise ValueError(f"logits must have shape [time, *batch, labels], got {logits.shape}")
    blank = check_token("blank", blank)
    if blank >= logits.shape[-1]:
        raise ValueError(f"blank must be one of the {logits.shape[-1]} labels, got {blank}")
    time, *batch = logits.shape[:-1]
    if lengths is None:
        lengths = jnp.full(batch, time, jnp.int32)
    return logits, checks.check_lengths(lengths, time, tuple(batch)), blank


@partial(jax.jit, static_argnums=0)
def _best_path(blank: int, logits: Array, lengths: Array) -> Decoded:
    def decode(logits, length):
        """One row, ``[time, labels]``."""
        time = len(logits)
        valid = jnp.arange(time, dtype=lengths.dtype) < length
        path = jnp.argmax(logits, axis=-1).astype(jnp.int32)
        before = jnp.concatenate([jnp.full(1, blank, jnp.int32), path])[:time]
        said = valid & (path != blank) & (path != before)
        where = jnp.where(said, jnp.cumsum(said) - 1, time)
        tokens = jnp.full(time, blank, jnp.int32).at[where].set(path, mode="drop")
        score = jnp.where(valid, log_softmax(logits).max(-1), 0).sum()
        return Decoded(tokens, said.sum(dtype=jnp.int32), score)

    return _over_rows(decode, logits, lengths, -1)


@partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _prefix_search(
    width: int,
    blank: int,
    most: int,
    work: Work | None,
    logits: Array,
    lengths: Array,
    fused: _Fused | None,
) -> Decoded:
    labels = logits.shape[-1]
    beam, label_names, places = (jnp.arange(n, dtype=jnp.int32) for n in (width, labels, most))

    def read(state, label):
        """The language model's state after labels, and what it adds to each that may follow."""
        if work is None or fused is None:
            return None, None
        state, next_logits = work.function()(fused.params, state, label)
        worth = jnp.where(label_names == blank, 0, fused.bonus)
        advice = fused.weight * log_softmax(next_logits) + worth
        return state, advice.astype(state_dtype(logits.dtype))

    def extend(beams, frame):
        """One frame of one row: its log-probabilities, and whether it counts."""
        # Log-probabilities of ending in a blank, or not; the language model's state and advice.
        prefixes, counts, blanks, said, state, advice = beams
        log_probs, valid = frame
        totals = jnp.logaddexp(blanks, said)
        before = jnp.concatenate([jnp.full((width, 1), blank, jnp.int32), prefixes], axis=1)
        last = before[beam, counts]
        # A label that is said twice running needs a blank between.
        longer = jnp.where(label_names == last[:, None], blanks[:, None], totals[:, None])
        longer = jnp.where(label_names == blank, -jnp.inf, longer + log_probs)
        longer = longer if advice is None else longer + advice
        longer = jnp.where(counts[:, None] < most, longer, -jnp.inf)
        # Beam i, continued by the last label of beam j, may be beam j.
        within = places < counts[:, None, None]
        same = ((prefixes[:, None] == prefixes) | ~within).all(-1)
        same &= (counts[:, None] + 1 == counts) & (totals > -jnp.inf)
        joining = jnp.where(same, longer[:, last], -jnp.inf)
        stays_blank = totals + log_probs[blank]
        stays_said = jnp.logaddexp(said + log_probs[last], jax.nn.logsumexp(joining, axis=0))
        gone = jnp.where(same, last, labels)
        longer = longer.at[beam[:, None], gone].set(-jnp.inf, mode="drop")
        offers = longer.at[:, blank].set(jnp.logaddexp(stays_blank, stays_said))
        _, chosen = jax.lax.top_k(offers.reshape(width * labels), width)
        parent, label = chosen // labels, (chosen % labels).astype(jnp.int32)
        stays = label == blank
        where = jnp.where(stays, most, counts[parent])
        known = jax.tree.map(lambda leaf: leaf[parent], (state, advice))
        read_on = read(known[0], label)
        new = (
            prefixes[parent].at[beam, where].set(label, mode="drop"),
            jnp.where(stays, counts[parent], counts[parent] + 1),
            jnp.where(stays, stays_blank[parent], -jnp.inf),
            jnp.where(stays, stays_said[parent], longer[parent, label]),
            *jax.tree.map(partial(select, stays), known, read_on),
        )
        return jax.tree.map(lambda new, old: jnp.where(valid, new, old), new, beams), None

    def decode(logits, length):
        """One row, ``[time, labels]``."""
        log_probs = log_softmax(logits)
        empty = jnp.full(width, -jnp.inf, log_probs.dtype)
        alike = lambda leaf: jnp.broadcast_to(leaf, (width, *leaf.shape))  # noqa: E731
        first = jax.tree.map(alike, None if fused is None else fused.state)
        beams = (
            jnp.full((width, most), blank, jnp.int32),
            jnp.zeros(width, jnp.int32),
            empty.at[0].set(0),
            empty,
            *read(first, jnp.full(width, blank, jnp.int32)),
        )
        valid = jnp.arange(len(logits), dtype=lengths.dtype) < length
        beams, _ = jax.lax.scan(extend, beams, (log_probs, valid))
        prefixes, counts, blanks, said, _, advice = beams
        scores = jnp.logaddexp(blanks, said)
        if advice is not None:  # that of the end comes last, and may change the order
            scores, order = jax.lax.top_k(scores + advice[:, blank], width)
            prefixes, counts = prefixes[order], counts[order]
        return Decoded(prefixes.T, counts, scores)

    return _over_rows(decode, logits, lengths, -2)


def _over_rows(decode: Any, logits: Array, lengths: Array, axis: int) -> Decoded:
    """Maps over all batch axes, the last of which comes out as ``axis`` of each result."""
    for _ in lengths.shape:
        decode = jax.vmap(decode, in_axes=(-2, -1), out_axes=axis)
    return decode(logits, lengths)
