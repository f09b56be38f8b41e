"""Connectionist temporal classification: from the labels of frames to a sequence of labels."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from jaxrnn import _checks as checks
from jaxrnn._cell import Array, check_size
from jaxrnn.decoding._step import Decoded, check_token, log_softmax


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
    logits: Any, *, width: int, lengths: Any = None, blank: int = 0, length: int | None = None
) -> Decoded:
    """The likeliest labellings, each with the probability of all paths that give it.

    At each frame a beam (a prefix of a labelling) stays what it is, by a blank or a repeat, or is
    continued by a label; what comes out alike is one beam. The ``width`` likeliest are kept. A beam
    as wide as there are labellings makes no mistake.

    Args:
        logits: see `ctc_greedy`.
        width: how many beams to keep.
        lengths: see `ctc_greedy`.
        blank: see `ctc_greedy`.
        length: the most labels that a labelling may have; None allows a label for every frame.

    Shapes:
        logits ``[time, *batch, labels]``, lengths int ``[*batch]``; tokens
        ``[length, *batch, width]``, best first, filled up with ``blank``; lengths and scores
        ``[*batch, width]``.

    Returns:
        The labellings kept at last, with the logarithms of their probabilities: -inf in a beam that
        is empty, where there are fewer labellings than beams.

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
        recognition using bi-directional recurrent DNNs", 2014, algorithm 1, without its language
        model.
    """
    logits, lengths, blank = _prepare(logits, lengths, blank)
    check_size("width", width)
    if length is not None:
        check_size("length", length)
    most = len(logits) if length is None else int(length)
    return _prefix_search(int(width), blank, most, logits, lengths)


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


@functools.partial(jax.jit, static_argnums=0)
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


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _prefix_search(width: int, blank: int, most: int, logits: Array, lengths: Array) -> Decoded:
    labels = logits.shape[-1]
    beam, label_names, places = (jnp.arange(n, dtype=jnp.int32) for n in (width, labels, most))

    def extend(beams, frame):
        """One frame of one row: its log-probabilities, and whether it counts."""
        prefixes, counts, blanks, said = beams  # log-probabilities of ending in a blank, or not
        log_probs, valid = frame
        totals = jnp.logaddexp(blanks, said)
        before = jnp.concatenate([jnp.full((width, 1), blank, jnp.int32), prefixes], axis=1)
        last = before[beam, counts]
        # A label that is said twice running needs a blank between.
        longer = jnp.where(label_names == last[:, None], blanks[:, None], totals[:, None])
        longer = jnp.where(label_names == blank, -jnp.inf, longer + log_probs)
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
        new = (
            prefixes[parent].at[beam, where].set(label, mode="drop"),
            jnp.where(stays, counts[parent], counts[parent] + 1),
            jnp.where(stays, stays_blank[parent], -jnp.inf),
            jnp.where(stays, stays_said[parent], longer[parent, label]),
        )
        return jax.tree.map(lambda new, old: jnp.where(valid, new, old), new, beams), None

    def decode(logits, length):
        """One row, ``[time, labels]``."""
        log_probs = log_softmax(logits)
        empty = jnp.full(width, -jnp.inf, log_probs.dtype)
        beams = (
            jnp.full((width, most), blank, jnp.int32),
            jnp.zeros(width, jnp.int32),
            empty.at[0].set(0),
            empty,
        )
        valid = jnp.arange(len(logits), dtype=lengths.dtype) < length
        (prefixes, counts, blanks, said), _ = jax.lax.scan(extend, beams, (log_probs, valid))
        return Decoded(prefixes.T, counts, jnp.logaddexp(blanks, said))

    return _over_rows(decode, logits, lengths, -2)


def _over_rows(decode: Any, logits: Array, lengths: Array, axis: int) -> Decoded:
    """Maps over all batch axes, the last of which comes out as ``axis`` of each result."""
    for _ in lengths.shape:
        decode = jax.vmap(decode, in_axes=(-2, -1), out_axes=axis)
    return decode(logits, lengths)
