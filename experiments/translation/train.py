"""Translation of sentences from German to English, by an encoder-decoder with attention.

Bahdanau, Cho and Bengio, "Neural machine translation by jointly learning to align and translate",
2015; Luong, Pham and Manning, "Effective approaches to attention-based neural machine translation",
2015. The data are the examples of a dictionary: 19,000 sentences, 84,000 phrases and 284,000 single
words, where those papers had millions of sentences. Each source word is followed by its gloss, the
prediction of IBM Model 1, which the decoder may copy. The aim is to exceed the word-by-word
translation of IBM Model 1 by BLEU and chrF on held-out sentences.

    python -m experiments.translation
    python -m experiments.translation strong
    python -m experiments.translation --data pairs.tsv --attention multiplicative
"""

import dataclasses
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from rich.console import Console

from experiments.common.data import dictionaries
from experiments.common.data.batching import pair_batches
from experiments.common.data.splits import digest
from experiments.common.options import Options, check_at_least, check_not_negative
from experiments.common.run import Run
from experiments.common.training import Outcome, Task
from experiments.seq2seq.export import export_model
from experiments.seq2seq.model import Params, Seq2Seq
from experiments.seq2seq.plots import plot_attention
from experiments.seq2seq.task import Seq2SeqConfig, decode_all, make_seq2seq, make_task
from experiments.translation.data import Glosses, Pair, Parts, Tokenizer, is_sentence, split
from experiments.translation.ibm_model1 import IBMModel1
from experiments.translation.metrics import Metrics, evaluate, minimum_bayes_risk
from experiments.translation.subwords import SPACE, join


@dataclass(frozen=True)
class Config(Seq2SeqConfig):
    """Translation from German to English, by an encoder-decoder with attention."""

    embed: int = 128
    """Embedding size."""
    merges: int = 6000
    """Number of byte-pair merges of the subword tokenizer."""
    gloss: bool = True
    """Add the gloss of IBM Model 1, to copy, to each source word."""
    coverage: bool = True
    """Attention depends on the sum of its past weights."""
    dropout: float = 0.2
    """Dropout rate of embeddings, memory and outputs."""
    smoothing: float = 0.1
    """Label smoothing: weight of the uniform distribution."""
    longest: int = 44
    """Most subword units of a side in training."""
    repeat: int = 4
    """Repeats of each sentence (not phrase) in an epoch."""
    penalty: float = 1.3
    """Length penalty of beam search, an exponent."""
    data: Path | None = None
    """Tab-separated pairs, or the Debian package of the dictionary, or its file de-en. None
    downloads the dictionary."""
    pairs: int = 0
    """Number of pairs to use; 0 is all."""
    training: Options = Options(
        steps=1600, learning_rate=2e-3, validate_every=200, checkpoint_every=200, log_every=25
    )

    def __post_init__(self):
        super().__post_init__()
        check_at_least(1, self, "longest", "repeat", "merges")
        check_not_negative(self, "penalty")


STRONG = Config(training=dataclasses.replace(Config.training, steps=6400))


# Data ---------------------------------------------------------------------------------------------


def load_pairs(config: Config) -> Parts:
    """Loads the pairs that the configuration names, and splits them."""
    if config.data is None or config.data.suffix in (".deb", ""):
        pairs = dictionaries.load_german_english(package=config.data)
        chosen = is_sentence
    else:
        pairs = dictionaries.load_tab_separated(config.data)
        chosen = lambda pair: True  # noqa: E731
    pairs = list(dict.fromkeys(pairs))
    if config.pairs:
        pairs = sorted(pairs, key=lambda pair: digest(" ".join(pair)))[: config.pairs]
    return split(pairs, chosen)


# Training -----------------------------------------------------------------------------------------


def make_translation_task(
    config: Config, parts: Parts, tokenizer: Tokenizer, model: Seq2Seq
) -> Task:
    """Training on sentences, repeated, and on phrases."""
    sentences, phrases = (
        list(zip(*tokenizer.encode(pairs, training=True), strict=True))
        for pairs in (parts.train, parts.phrases)
    )
    pairs = sentences * (config.repeat if phrases else 1) + phrases
    sources, targets = zip(
        *(pair for pair in pairs if max(map(len, pair)) <= config.longest), strict=True
    )
    return make_task(
        f"translation: {config.cell}, {config.attention} attention",
        model,
        pair_batches(sources, targets, config.batch, config.training.seed),
        tokenizer.encode(parts.valid),
        unit="pairs",
        loss_unit="nats per subword",
    )


def translate(
    config: Config,
    tokenizer: Tokenizer,
    model: Seq2Seq,
    params: Params,
    pairs: list[Pair],
    width: int,
) -> list[list[str]]:
    """The beams of each source, best first."""
    beams = decode_all(
        model,
        params,
        tokenizer.encode(pairs)[0],
        batch_size=config.batch,
        bucket=10,
        max_length=lambda units: 2 * units,
        width=width,
        penalty=config.penalty,
    )
    return [[join(tokenizer.target.decode(beam)) for beam in own] for own in beams]


# Report -------------------------------------------------------------------------------------------


def export_translator(
    config: Config, tokenizer: Tokenizer, model: Seq2Seq, params: Params, console: Console
) -> None:
    """Writes the model's two files, and the tokenizer: SentencePiece's file, and the glosses."""
    facts = {"source": tokenizer.source.symbols, "target": tokenizer.target.symbols}
    facts = {side: "\n".join(symbols) for side, symbols in facts.items()}
    path = export_model(config, model, params, console, facts)
    proto = tokenizer.subwords.processor.serialized_model_proto()
    Path(f"{path}.subwords.model").write_bytes(proto)
    if tokenizer.glosses is not None:
        table = json.dumps(tokenizer.glosses.whole.table, ensure_ascii=False, indent=0)
        Path(f"{path}.glosses.json").write_text(table, encoding="utf-8")


class Result(NamedTuple):
    """How training ended, and BLEU and chrF on the held-out sentences."""

    outcome: Outcome
    baseline: Metrics | None = None
    greedy: Metrics | None = None
    beam: Metrics | None = None
    minimum_bayes_risk: Metrics | None = None


def main(config: Config) -> Result:
    """Trains, translates, and reports."""
    began = time.perf_counter()
    parts = load_pairs(config)
    baseline = IBMModel1.fit(parts.train + parts.phrases + parts.words)
    glosses = Glosses.fit(parts, baseline) if config.gloss else None
    tokenizer = Tokenizer.fit(parts, config.merges, glosses)
    sizes = len(tokenizer.source), len(tokenizer.target)
    model = make_seq2seq(config, *sizes, tokenizer.first_gloss, config.coverage)
    task = make_translation_task(config, parts, tokenizer, model)
    reporting, texts = ("data", "width", "penalty", "export"), f"{digest(repr(parts)):x}"
    run = Run("translation", config, reporting=reporting, texts=texts)
    run.console.print(
        f"{len(parts.train):,} training sentences and {len(parts.phrases):,} phrases, "
        f"{len(parts.valid):,} validation and {len(parts.test):,} test sentences; "
        f"{len(tokenizer.source):,} source and {len(tokenizer.target):,} target symbols; "
        f"loaded in {time.perf_counter() - began:.1f} s; results are written to {run.folder}"
    )
    outcome = run.fit(task, model.init)
    if not outcome.reports:
        return Result(outcome)
    if config.export is not None:
        export_translator(config, tokenizer, model, outcome.params, run.console)
    greedy, beams = (
        translate(config, tokenizer, model, outcome.params, parts.test, width)
        for width in (1, config.width)
    )
    systems = {
        "word by word (IBM Model 1)": [baseline.translate(source) for source, _ in parts.test],
        "greedy decoding": [best for best, *_ in greedy],
        f"beam search, {config.width}": [best for best, *_ in beams],
        f"minimum Bayes risk of {config.width}": [minimum_bayes_risk(beam) for beam in beams],
    }
    result = report(outcome, tokenizer, model, parts.test, systems, run)
    figures = {
        f"{decoding}_{name}": [value]
        for decoding in ("greedy", "beam", "minimum_bayes_risk")
        for name, value in getattr(result, decoding)._asdict().items()
    }
    assert result.baseline is not None
    baselines = {"IBM Model 1": result.baseline._asdict()}
    run.write_results(figures, outcome.seconds, baselines)
    return result


def report(
    outcome: Outcome,
    tokenizer: Tokenizer,
    model: Seq2Seq,
    test: list[Pair],
    systems: dict[str, list[str]],
    run: Run,
) -> Result:
    """Reports BLEU and chrF of each system, samples, and attention weights."""
    sources, references = map(list, zip(*test, strict=True))
    results = [evaluate(outputs, references) for outputs in systems.values()]
    for name, (bleu, chrf) in zip(systems, results, strict=True):
        run.console.print(
            f"{len(references):,} held-out sentences, {name}: BLEU {bleu:.2f}, chrF {chrf:.2f}"
        )
    words, _, beam, _ = systems.values()
    blocks = [
        f"  {one}\n    reference:    {two}\n    word by word: {three}\n    this model:   {four}"
        for one, two, three, four in zip(sources, references, words, beam, strict=True)
    ]
    run.write("samples.txt", "\n".join(["samples:", *blocks[:: max(1, len(blocks) // 10)][:10]]))
    order = sorted(range(len(sources)), key=lambda i: (abs(len(sources[i].split()) - 8), i))[:4]
    pairs = [(sources[i], beam[i]) for i in order]
    label = lambda units: [unit.replace(SPACE, "") or "_" for unit in units]  # noqa: E731
    symbols = [
        (label(tokenizer.split_source(source)), label(tokenizer.subwords.split(target)))
        for source, target in pairs
    ]
    title = "Attention weights over source symbols for each subword"
    path = run.folder / "attention.png"
    plot_attention(path, model, outcome.params, tokenizer.encode(pairs), symbols, title)
    return Result(outcome, *results)
