"""The tables of docs/serving.md, from the measurements in docs/data.

python -m docs.tools.serving_table    writes the tables of that page

The measurements are those of `python -m experiments.benchmark.exported --out
docs/data/exported_cpu.json`, and the JSON files that `--export FILE --quantize` of
experiments.char_lm and experiments.speech writes next to the model, as
docs/data/quantized_char_lm.json and docs/data/quantized_speech.json.
"""

import json
from pathlib import Path
from typing import Any

from docs.tools.pages import DOCS, table, write_section

PAGE, DATA = DOCS / "serving.md", DOCS / "data"
MODELS = ("char_lm", "speech")


def exported_table(found: dict[str, Any]) -> str:
    """Times of exported models."""
    config, machine = found["config"], found["machine"]
    shape = ", ".join(str(config[name]) for name in ("time", "rows", "inputs", "hidden"))
    rows = [["cell", "ONNX", "jaxrnn ms", "onnxruntime ms", "jaxrnn / onnxruntime"]]
    for row in found["rows"]:
        first, second = (f"{1e3 * row[name]:.1f}" for name in ("first", "second"))
        rows.append([row["cell"], row["form"], first, second, f"{row['ratio']:.2f}"])
    versions = machine["versions"]
    return table(rows) + (
        f"\nTime, batch, input, hidden: {shape}; float32, {machine['threads']} threads, "
        f"{machine['processor']}, jax {versions['jax']}, onnxruntime {versions['onnxruntime']}, "
        f"{machine['date']}. A ratio above 1: onnxruntime is faster.\n"
    )


def quantized_table(found: dict[str, dict[str, Any]]) -> str:
    """Sizes, times and losses of models with weights in 32 and in 8 bits."""
    rows = [["model", "weights", "MB", "seconds", "held-out loss"]]
    notes = []
    for name, content in found.items():
        for row, bits in zip(content["rows"], (32, 8), strict=True):
            loss = f"{row['loss']:.4f} {content['unit']}"
            size, seconds = f"{row['bytes'] / 1e6:.2f}", f"{row['seconds']:.2f}"
            rows.append([name, f"{bits} bits", size, seconds, loss])
        machine = content["machine"]
        notes.append(f"`{machine['command']}`, {machine['date']}, {machine['threads']} threads")
    return table(rows) + f"\n{'; '.join(notes)}.\n"


def tables() -> dict[str, str]:
    """The tables whose measurements are there, by their marks in the page."""
    made = {}
    if (DATA / "exported_cpu.json").exists():
        made["exported"] = exported_table(_read(DATA / "exported_cpu.json"))
    files = {name: DATA / f"quantized_{name}.json" for name in MODELS}
    found = {name: _read(path) for name, path in files.items() if path.exists()}
    if found:
        made["quantized"] = quantized_table(found)
    return made


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


if __name__ == "__main__":
    for mark, text in tables().items():
        write_section(PAGE, mark, text)
