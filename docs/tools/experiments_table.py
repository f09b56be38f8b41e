"""The tables of experiments/README.md, from the results in docs/data/experiments.

    python -m docs.tools.experiments_table    writes the tables between their marks

`docs.tools.experiments_data` keeps the results of a run.
"""

from pathlib import Path
from typing import NamedTuple

from docs.tools.experiments_data import DATA, Results, load
from docs.tools.pages import DOCS, table, write_section

PAGE = DOCS.parent / "experiments" / "README.md"


class Row(NamedTuple):
    """A row of the first table.

    Attributes:
        name: the file with its results.
        title: what the experiment is.
        data: what it learns from.
        result: a text with figures in braces.
        comparison: the same for baselines.
    """

    name: str
    title: str
    data: str
    result: str
    comparison: str = ""


SAME = "as above"
CER = "CER {greedy:.1%} greedy, {beam:.1%} beam search, {fused:.1%} with shallow fusion"
MAPE = (
    "MAPE {mape, 48 ahead:.2f %} at step 48, {mape, 1 to 48 ahead:.2f %} over all of steps 1 to "
    "48; RMSE of the next step {rmse, 1 ahead:.2f MW}; intervals of 80 and 95 % cover "
    "{80 %, 48 ahead:.1%} and {95 %, 48 ahead:.1%} at step 48"
)
LINEAR = (
    "linear autoregression {linear autoregression/mape, 48 ahead:.2f %} and "
    "{linear autoregression/mape, 1 to 48 ahead:.2f %}"
)
BLEU = "BLEU {beam_bleu:.1f}, chrF {beam_chrf:.1f}"
ROWS = (
    Row(
        "char_lm",
        "character language model",
        "nine plays of Shakespeare, 1.13 M characters; the last 10 % held out",
        "{loss:.3f nats} ({bits:.3f} bits) per character",
        "nanoGPT's README: {small Transformer/loss:.2f} for a small Transformer",
    ),
    Row(
        "char_lm_strong",
        "the same, stronger",
        SAME,
        "{loss:.3f nats} per character, with 1.2 M parameters",
        "{large Transformer/loss:.3f} for the Transformer of 10.7 M",
    ),
    Row(
        "pronunciation",
        "pronunciation",
        "CMU dictionary, 12,405 words held out",
        "WER {beam_wer:.1%}, phoneme error rate {beam_per:.1%}",
        "WER {encoder-decoder LSTM/beam_wer:.1%} for an encoder-decoder LSTM, "
        "{bidirectional LSTM with alignments/beam_wer:.1%} with given alignments (2015)",
    ),
    Row(
        "forecast_next",
        "forecast, half an hour ahead",
        "electricity demand of Victoria, the last year held out",
        "RMSE {rmse, 1 ahead:.2f MW}; intervals of 80 and 95 % cover {80 %, 1 ahead:.1%} and "
        "{95 %, 1 ahead:.1%}",
        "linear autoregression {linear autoregression/rmse, 1 ahead:.1f MW}, last value "
        "{last value/rmse, 1 ahead:.1f MW}",
    ),
    Row(
        "forecast",
        "forecast, a day ahead",
        SAME,
        MAPE,
        f"{LINEAR}, same time yesterday {{48 steps before/mape, 48 ahead:.2f %}}",
    ),
    Row("forecast_future", "the same, with tomorrow's temperature", SAME, MAPE, LINEAR),
    Row(
        "speech",
        "speech",
        "18 minutes of one speaker's telephone prompts to train, 74 other prompts held out",
        f"{CER} of a character language model",
        'predicting "extension" every time: CER {most common text/greedy:.1%}',
    ),
    Row(
        "speech_amounts",
        "the same, from less",
        "the same, and a quarter and a half of it",
        "with shallow fusion CER {fused, 25%:.1%} from {minutes, 25%:.1f minutes}, "
        "{fused, 50%:.1%} from {minutes, 50%:.1f}, {fused:.1%} from {minutes:.1f}",
    ),
    Row("speech_4000", "the same, longer", SAME, CER),
    Row(
        "translation",
        "translation",
        "German–English dictionary: 19,000 sentences, 84,000 phrases, 284,000 words; 1,042 "
        "sentences held out",
        BLEU,
        "word-by-word baseline (IBM Model 1): BLEU {IBM Model 1/bleu:.1f}, chrF "
        "{IBM Model 1/chrf:.1f}",
    ),
    Row(
        "translation_strong",
        "the same, longer",
        SAME,
        f"{BLEU}; by minimum Bayes risk over the beam {{minimum_bayes_risk_bleu:.1f}} and "
        "{minimum_bayes_risk_chrf:.1f} (one seed)",
    ),
    Row(
        "classify",
        "classification",
        "Japanese vowels, 270 utterances to train, 370 for the test",
        "test accuracy {accuracy:.1%}",
        "{passing-through regions/accuracy:.1%} (1999), {ensemble of LSTMs/accuracy:.1%} for an "
        "ensemble of LSTMs",
    ),
    Row(
        "mnist_rows",
        "digits by rows",
        "MNIST, 4,000 digits to train, 1,000 held out",
        "accuracy {accuracy:.1%}",
    ),
    Row("mnist_pixels", "digits by pixels", SAME, "accuracy {accuracy:.1%}"),
    Row(
        "autoencode",
        "autoencoder of weeks",
        "electricity demand of Victoria",
        "{test:.3f} of the variance of held-out weeks unexplained; detects held-out holidays with "
        "ROC AUC {test_auc:.2f}",
        "eight principal components {8 principal components/test:.3f} and "
        "{8 principal components/test_auc:.2f}, mean week {mean week/test:.2f} and "
        "{mean week/test_auc:.2f}",
    ),
    Row(
        "flip_flop",
        "flip-flop",
        "generated",
        "{stable:each .0f} stable fixed points at {corners:each .0f} of the eight corners of the "
        "cube",
    ),
    Row(
        "flip_flop_online",
        "the same, online",
        "an endless stream",
        "[loss and memory of every learning rule](#flip-flop)",
        "BPTT by sequences of 100 steps",
    ),
    Row(
        "memory_rl",
        "recurrent policies",
        "two environments of gymnax",
        "[returns](#recurrent-policies)",
        "random and feed-forward policies",
    ),
    Row(
        "gradient_flow",
        "gradient flow",
        "generated",
        "after training, log10 of the gradient at lag 200: {LSTM, chrono, trained:.1f} for LSTM "
        "with chrono initialization, {LRU, trained:.1f} for LRU, {LEM, trained:.1f} for LEM, "
        "{GRU, trained:.1f} for GRU; these learn to add over 200 steps, and all others are below "
        "-6",
    ),
    Row("long_memory", "long memory", "generated", "[each task and cell](#long-memory)"),
)


def duration(seconds: float | None) -> str:
    """Seconds in words.

    Example:
        >>> [duration(each) for each in (44, 157, 1440, None)]
        ['44 s', '2 min 37 s', '24 min', '–']
    """
    if seconds is None:
        return "–"
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 5 or not rest:
        return f"{round(seconds / 60)} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def main_table(found: dict[str, Results]) -> str:
    """All experiments, and what their figures were measured on."""
    rows = [["experiment", "command", "data", "time", "result", "for comparison"]]
    by_date: dict[str, list[str]] = {}
    for row in ROWS:
        own = found[row.name]
        texts = [text.format_map(own) for text in (row.result, row.comparison)]
        command = f"`{own.machine['command'].removesuffix(' --seed 0')}`"  # the default
        rows.append([row.title, command, row.data, duration(own.seconds), *texts])
        if "date" in own.machine:
            where = "{date}, jax {versions[jax]}, {processor}".format_map(own.machine)
            by_date.setdefault(where, []).append(f"`{row.name}.json`")
    lines = [f"{where}: {', '.join(names)}." for where, names in by_date.items()]
    if sum(map(len, by_date.values())) < len(ROWS):
        lines.append(UNDATED)
    return table(rows) + "\n" + "\n".join(lines)


UNDATED = (
    "The other files have figures from before the commands wrote `results.json`, without the date "
    "and the versions."
)


def long_memory_table(own: Results) -> str:
    """The suite: one row for each task and cell."""
    adding, copy = "adding, 500 steps: squared error", "copy, 200 steps: nats a step"
    parity = "parity, trained on 40 bits: accuracy on bits 41 to 200"
    counting = "aⁿbⁿ, trained up to n = 50: correct for every n up to"
    named = (
        ("adding, lstm", adding, "LSTM (chrono)", ".4f", "0.167"),
        ("adding, lem", "", "LEM", ".4f", ""),
        ("adding, lru", "", "LRU", ".5f", ""),
        ("adding, elman", "", "Elman", ".3f", ""),
        ("copy, orthogonal-rnn", copy, "OrthogonalRNN", ".4f", "0.0945"),
        ("copy, elman", "", "Elman", ".3f", ""),
        ("parity, lstm", parity, "LSTM", ".1%", "50 %"),
        ("parity, gru", "", "GRU", ".1%", ""),
        ("parity, min-gru", "", "MinGRU", ".1%", ""),
        ("parity, rglru", "", "RG-LRU", ".1%", ""),
        ("anbn, lstm", counting, "LSTM", ".0f", "0"),
        ("anbn, gru", "", "GRU", ".0f", ""),
    )
    rows = [["task", "cell", "each of three seeds", "chance"]]
    for figure, task, cell, precision, chance in named:
        rows.append([task, cell, format(own[figure], f"each {precision}"), chance])
    return table(rows)


def speech_table(found: dict[str, Results]) -> str:
    """CER of every seed by the steps of training."""
    rows = [["steps", "greedy decoding", "beam search of width 16", "with shallow fusion"]]
    for steps, name in (("2,500", "speech"), ("4,000", "speech_4000")):
        own = found[name]
        rows.append([steps, *(f"{own[way]:each .1%}" for way in ("greedy", "beam", "fused"))])
    return table(rows)


def online_table(own: Results) -> str:
    """Learning rules, the smallest loss first."""
    rules = [figure.removesuffix(", bytes") for figure in own if figure.endswith(", bytes")]
    rows = [["rule", "squared error", "memory, KiB"]]
    for rule in sorted(rules, key=lambda rule: own[rule].mean):
        memory = own[f"{rule}, bytes"].mean / 1024
        rows.append([f"`{rule}`", f"{own[rule]:.4f}", f"{memory:.1f}"])
    return table(rows)


def policies_table(own: Results) -> str:
    """The return of every policy in both environments."""
    environments = {"memory-chain": "at most 1", "position-cart-pole": "at most 200"}
    rows = [["policy", *(f"{name}, {bound}" for name, bound in environments.items())]]
    for policy in ("gru", "lstm", "lru", "feed-forward"):
        returns = (format(own[f"{name}, {policy}"], "each .2f") for name in environments)
        rows.append([policy, *returns])
    rows.append(["random", *(f"{own[f'random/{name}']:.2f}" for name in environments)])
    return table(rows)


def tables(data: Path = DATA) -> dict[str, str]:
    """All tables by their marks."""
    found = {row.name: load(row.name, data) for row in ROWS}
    return {
        "all experiments": main_table(found),
        "long memory": long_memory_table(found["long_memory"]),
        "speech": speech_table(found),
        "online": online_table(found["flip_flop_online"]),
        "policies": policies_table(found["memory_rl"]),
    }


if __name__ == "__main__":
    for mark, text in tables().items():
        write_section(PAGE, mark, text)
