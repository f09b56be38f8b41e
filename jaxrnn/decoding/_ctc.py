"""Decoding of connectionist temporal classification (CTC)."""

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
    Decoder,
    check_logits,
    check_token,
    log_softmax,
    prepare_step,
)


class LanguageModel(NamedTuple):
    """A language model over labels, for shallow fusion in `ctc_beam_search`.

    CTC's blank label is the boundary token: it is the input before the first label, and its
    probability after the last label is that of the end.

    Attributes:
        step: ``(params, state, label) -> (state, logits)`` for any batch of labels, as in the other
            decoders, or a cell that takes tokens and returns logits.
        params: the parameters of the step; None for a step ``(state, label) -> (state, logits)``.
        state: the initial state of one sequence; None is the cell's own.
        weight: the weight of the model's log-probabilities.
        bonus: a score added for each label, against the language model's bias to short sequences.
    """

    step: Any
    params: PyTree
    state: PyTree = None
    weight: float = 1.0
    bonus: float = 0.0


def ctc_greedy(logits: Any, *, lengths: Any = None, blank: int = 0) -> Decoded:
    """Decodes the most probable path: merges repeats, then removes blanks (best path decoding).

        labeling = collapse(argmax logits_1, argmax logits_2, ...)

    Args:
        logits: the logits or log-probabilities of the labels of each frame.
        lengths: the number of valid frames of each row; None if all frames are valid.
        blank: the blank label.

    Shapes:
        logits ``[time, *batch, labels]``, lengths int ``[*batch]``; tokens ``[time, *batch]``,
        padded with ``blank``, lengths and scores ``[*batch]``.

    Returns:
        The labeling, with the log-probability of its most probable path only.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: an argument has the wrong shape or value.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from jaxrnn import decoding
        >>> frames = 9.0 * jax.nn.one_hot(jnp.array([0, 1, 1, 0, 1, 2, 2]), 3)
        >>> decoded = decoding.ctc_greedy(frames)
        >>> print(decoded.tokens[: decoded.lengths])
        [1 1 2]

    References:
        A. Graves et al., "Connectionist temporal classification", 2006, section 3.2.
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
    """Decodes the most probable labelings by prefix beam search, summing over their paths.

    At each frame a prefix stays unchanged by a blank or a repeat, or is extended by a label; equal
    prefixes are merged, and the ``width`` most probable are kept. With as many beams as labelings
    the search is exact. With a language model (shallow fusion) the score of a labeling is

        log p(labeling | frames) + weight · log p(labeling) + bonus · |labeling|

    Args:
        logits: see `ctc_greedy`.
        width: the number of beams.
        lengths: see `ctc_greedy`.
        blank: see `ctc_greedy`.
        length: the maximum number of labels; None allows one label for every frame.
        language_model: the language model; None for none.

    Shapes:
        logits ``[time, *batch, labels]``, lengths int ``[*batch]``; tokens
        ``[length, *batch, width]``, best first, padded with ``blank``; lengths and scores
        ``[*batch, width]``.

    Returns:
        The labelings of all beams with their log-probabilities (or scores); empty beams, where
        there are fewer labelings than beams, have the score -inf.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: an argument has the wrong shape or value.

    Example:
        Blank is more probable in each frame, but a label is more probable in total:

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
        Hannun et al. apply a word language model at each space; here a language model over labels
        is applied at each label.
    """
    logits, lengths, blank = _prepare(logits, lengths, blank)
    check_size("width", width)
    if length is not None:
        check_size("length", length)
    most = len(logits) if length is None else int(length)
    decoder, fused = None, None
    if language_model is not None:
        decoder, fused = _prepare_model(language_model, logits.shape[-1], blank)
    return _prefix_search(int(width), blank, most, decoder, logits, lengths, fused)


class _Fused(NamedTuple):
    """The dynamic part of a language model."""

    params: PyTree
    state: PyTree
    weight: Array
    bonus: Array


def _prepare_model(model: LanguageModel, labels: int, blank: int) -> tuple[Decoder, _Fused]:
    if not isinstance(model, LanguageModel):
        raise TypeError(f"language_model must be a LanguageModel, got {model!r}")
    step, params, state, weight, bonus = model
    explicit, begin = params is not None, jnp.int32(blank)
    function, params, state, _ = prepare_step(step, params, state, begin, "label", 0)
    given = check_logits(function, params, state, begin).shape[-1]
    if given != labels:
        raise ValueError(
            f"language_model must return logits for the {labels} labels of the frames, got {given}"
        )
    fused = _Fused(params, state, jnp.asarray(weight, float), jnp.asarray(bonus, float))
    return Decoder(step, explicit, 1, None), fused


def _prepare(logits: Any, lengths: Any, blank: Any) -> tuple[Array, Array, int]:
    logits = checks.as_array("logits", logits)
    if not jnp.issubdtype(logits.dtype, jnp.floating):
        raise TypeError(f"logits must be a floating-point array, got {logits.dtype}")
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
        emitted = valid & (path != blank) & (path != before)
        where = jnp.where(emitted, jnp.cumsum(emitted) - 1, time)
        tokens = jnp.full(time, blank, jnp.int32).at[where].set(path, mode="drop")
        score = jnp.where(valid, log_softmax(logits).max(-1), 0).sum()
        return Decoded(tokens, emitted.sum(dtype=jnp.int32), score)

    return _over_rows(decode, logits, lengths, -1)


@partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _prefix_search(
    width: int,
    blank: int,
    most: int,
    decoder: Decoder | None,
    logits: Array,
    lengths: Array,
    fused: _Fused | None,
) -> Decoded:
    labels = logits.shape[-1]
    beam, label_ids, positions = (jnp.arange(n, dtype=jnp.int32) for n in (width, labels, most))

    def advance(state, label):
        """The language model's state after a label, and the score it adds to each next label."""
        if decoder is None or fused is None:
            return None, None
        state, next_logits = decoder.function()(fused.params, state, label)
        bonus = jnp.where(label_ids == blank, 0, fused.bonus)
        fusion = fused.weight * log_softmax(next_logits) + bonus
        return state, fusion.astype(state_dtype(logits.dtype))

    def extend(beams, frame):
        """One frame of one row: its log-probabilities, and whether it is valid."""
        # Log-probabilities of ending in a blank or in a label; the language model's state, scores.
        prefixes, counts, blanks, labels_last, state, fusion = beams
        log_probs, valid = frame
        totals = jnp.logaddexp(blanks, labels_last)
        before = jnp.concatenate([jnp.full((width, 1), blank, jnp.int32), prefixes], axis=1)
        last = before[beam, counts]
        # A repeated label needs a blank in between.
        longer = jnp.where(label_ids == last[:, None], blanks[:, None], totals[:, None])
        longer = jnp.where(label_ids == blank, -jnp.inf, longer + log_probs)
        longer = longer if fusion is None else longer + fusion
        longer = jnp.where(counts[:, None] < most, longer, -jnp.inf)
        # Beam i extended by the last label of beam j may equal beam j.
        within = positions < counts[:, None, None]
        same = ((prefixes[:, None] == prefixes) | ~within).all(-1)
        same &= (counts[:, None] + 1 == counts) & (totals > -jnp.inf)
        merged = jax.nn.logsumexp(jnp.where(same, longer[:, last], -jnp.inf), axis=0)
        stays_blank = totals + log_probs[blank]
        stays_label = jnp.logaddexp(labels_last + log_probs[last], merged)
        removed = jnp.where(same, last, labels)
        longer = longer.at[beam[:, None], removed].set(-jnp.inf, mode="drop")
        extended = longer.at[:, blank].set(jnp.logaddexp(stays_blank, stays_label))
        _, chosen = jax.lax.top_k(extended.reshape(width * labels), width)
        parent, label = chosen // labels, (chosen % labels).astype(jnp.int32)
        stays = label == blank
        where = jnp.where(stays, most, counts[parent])
        kept = jax.tree.map(lambda leaf: leaf[parent], (state, fusion))
        advanced = advance(kept[0], label)
        new = (
            prefixes[parent].at[beam, where].set(label, mode="drop"),
            jnp.where(stays, counts[parent], counts[parent] + 1),
            jnp.where(stays, stays_blank[parent], -jnp.inf),
            jnp.where(stays, stays_label[parent], longer[parent, label]),
            *jax.tree.map(partial(select, stays), kept, advanced),
        )
        return jax.tree.map(lambda new, old: jnp.where(valid, new, old), new, beams), None

    def decode(logits, length):
        """One row, ``[time, labels]``."""
        log_probs = log_softmax(logits)
        empty = jnp.full(width, -jnp.inf, log_probs.dtype)
        first = jax.tree.map(
            lambda leaf: jnp.broadcast_to(leaf, (width, *leaf.shape)), fused and fused.state
        )
        beams = (
            jnp.full((width, most), blank, jnp.int32),
            jnp.zeros(width, jnp.int32),
            empty.at[0].set(0),
            empty,
            *advance(first, jnp.full(width, blank, jnp.int32)),
        )
        valid = jnp.arange(len(logits), dtype=lengths.dtype) < length
        beams, _ = jax.lax.scan(extend, beams, (log_probs, valid))
        prefixes, counts, blanks, labels_last, _, fusion = beams
        scores = jnp.logaddexp(blanks, labels_last)
        if fusion is not None:  # the end's score comes last, and may change the order
            scores, order = jax.lax.top_k(scores + fusion[:, blank], width)
            prefixes, counts = prefixes[order], counts[order]
        return Decoded(prefixes.T, counts, scores)

    return _over_rows(decode, logits, lengths, -2)


def _over_rows(decode: Any, logits: Array, lengths: Array, axis: int) -> Decoded:
    """Maps over all batch axes; the last one becomes ``axis`` of each result."""
    for _ in lengths.shape:
        decode = jax.vmap(decode, in_axes=(-2, -1), out_axes=axis)
    return decode(logits, lengths)
