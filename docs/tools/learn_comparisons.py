"""Two pictures of docs/learn/ that compare: three cells, and how frameworks pack their gates.

python -m docs.tools.learn_comparisons    writes docs/images/learn/*.svg
"""

from docs.tools.learn_diagrams import BACK, GATE, INK, INPUT, STATE, Sheet, save_all

PACKED = {
    "LSTM": {
        "jaxrnn, PyTorch, Keras, cuDNN, Equinox": "ifgo",
        "Haiku": "igfo",
        "ONNX": "iofg",
    },
    "GRU": {"jaxrnn, PyTorch, cuDNN, Equinox": "rzn", "Keras, Haiku, ONNX": "zrn"},
}
"""The order of the gates on the packed axis; Flax has one kernel for each gate."""
COLORS = {
    "i": GATE,
    "f": STATE,
    "g": "#00734f",
    "o": "#7b3294",
    "r": GATE,
    "z": STATE,
    "n": "#00734f",
}


def draw_three_cells() -> Sheet:
    """The path from the old state to the new one in an RNN, an LSTM and a GRU."""
    sheet, y = Sheet(9.6, 2.9), 1.85
    for left, title, old, new, factor in (
        (0.1, "RNN", "$h_{t-1}$", "$h_t$", None),
        (3.35, "LSTM", "$c_{t-1}$", "$c_t$", "$f$"),
        (6.6, "GRU", "$h_{t-1}$", "$h_t$", "$z$"),
    ):
        sheet.text((left + 1.45, 2.7), title, fontsize=12, weight="bold")
        sheet.text((left + 0.25, y), old, STATE, fontsize=13)
        sheet.text((left + 2.75, y), new, STATE, fontsize=13)
        first, second = (left + 0.95, y), (left + 1.7, y)
        if factor is None:
            last = left + 2.08
            sheet.box(first, "$U$", BACK, (0.46, 0.46))
            sheet.box((left + 1.8, y), "tanh", BACK, (0.56, 0.42))
            sheet.arrow((left + 0.5, y), (first[0] - 0.23, y), STATE, lw=2.6)
            sheet.arrow((first[0] + 0.23, y), (left + 1.52, y), STATE, lw=2.6)
            sheet.text((left + 1.4, y - 0.95), "$x_t W + b$", INPUT, fontsize=12)
            sheet.arrow((left + 1.4, y - 0.78), (left + 1.4, y - 0.05), INPUT)
            note = "through a matrix and a tanh"
        else:
            last = second[0] + 0.16
            sheet.node(first, "×", STATE)
            sheet.node(second, "+", STATE)
            sheet.arrow((left + 0.5, y), (first[0] - 0.16, y), STATE, lw=2.6)
            sheet.arrow((first[0] + 0.16, y), (second[0] - 0.16, y), STATE, lw=2.6)
            sheet.text((first[0], y - 0.95), factor, GATE, fontsize=13)
            sheet.arrow((first[0], y - 0.78), (first[0], y - 0.16), GATE)
            written = "$i \\odot g$" if title == "LSTM" else "$(1 - z) \\odot n$"
            sheet.text((second[0] + 0.1, y - 0.95), written, GATE, fontsize=12)
            sheet.arrow((second[0], y - 0.78), (second[0], y - 0.16), GATE)
            lstm = title == "LSTM"
            note = "times f, plus what is written" if lstm else "a weighted mean: z and 1 − z"
        sheet.arrow((last, y), (left + 2.5, y), STATE, lw=2.6)
        sheet.text((left + 1.45, 0.42), note, INPUT, fontsize=9.5, style="italic")
    sheet.text((3.35 + 1.45, 0.17), "$h_t = o \\odot \\tanh c_t$", INPUT, fontsize=9.5)
    return sheet


def draw_packed() -> Sheet:
    """The blocks of the packed kernels by framework."""
    rows = sum(map(len, PACKED.values()))
    sheet = Sheet(8.2, 0.44 * rows + 1.0)
    y, left, width = 0.44 * rows + 0.72, 4.3, 0.85
    for cell, orders in PACKED.items():
        sheet.text((left, y), cell, fontsize=11, weight="bold", ha="left")
        y -= 0.4
        for name, order in orders.items():
            sheet.text((left - 0.2, y), name, INK, ha="right", fontsize=10)
            for k, gate in enumerate(order):
                at = (left + width * (k + 0.5), y)
                sheet.box(at, f"${gate}$", COLORS[gate], (width - 0.06, 0.34), fontsize=13)
            y -= 0.42
        y -= 0.06
    return sheet


DIAGRAMS = {"three_cells": draw_three_cells, "packed_gates": draw_packed}

if __name__ == "__main__":
    save_all(DIAGRAMS)
