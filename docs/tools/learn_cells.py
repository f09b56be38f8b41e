"""The cells of docs/learn/ as diagrams: the LSTM and its adjoints, the GRU, and its two forms.

python -m docs.tools.learn_cells    writes docs/images/learn/*.svg
"""

from docs.tools.learn_diagrams import BACK, GATE, INK, INPUT, STATE, Sheet, save_all

TOP, GATES, BOTTOM = 3.3, 1.6, 0.55  # heights: the state, the gates, the inputs


def draw_lstm() -> Sheet:
    """The LSTM: its cell state runs along the top, the constant error carousel."""
    sheet = _lstm()
    note = "constant error carousel: no matrix and no squashing on this line, only a factor f"
    sheet.text((4.1, 3.8), note, STATE, fontsize=9.5, style="italic")
    return sheet


def draw_lstm_backward() -> Sheet:
    """The LSTM with the adjoints of its states, which run the other way."""
    sheet = _lstm()
    for start, end in (
        ((7.5, TOP + 0.14), (3.72, TOP + 0.14)),  # along the cell state
        ((3.38, TOP + 0.14), (2.07, TOP + 0.14)),
        ((1.73, TOP + 0.14), (0.9, TOP + 0.14)),
        ((7.5, GATES - 0.14), (6.77, GATES - 0.14)),  # from the output
        ((6.74, 1.77), (6.74, 2.23)),
        ((6.74, 2.67), (6.74, TOP + 0.14)),
        ((6.43, GATES - 0.14), (5.82, GATES - 0.14)),
        ((2.04, TOP - 0.17), (2.04, GATES + 0.22)),  # to the gates
        ((3.69, TOP - 0.17), (3.69, 2.67)),
    ):
        sheet.arrow(start, end, BACK)
    sheet.path((3.4, 2.36), (3.14, 2.36), (3.14, GATES + 0.22), color=BACK)
    sheet.path((3.7, 2.36), (3.96, 2.36), (3.96, GATES + 0.22), color=BACK)
    for x in PLACES.values():
        sheet.arrow((x + 0.14, GATES - 0.22), (x + 0.14, BOTTOM - 0.13), BACK)
    sheet.path(
        (PLACES["o"] + 0.14, BOTTOM - 0.15), (1.4, BOTTOM - 0.15), (1.25, BOTTOM - 0.15), color=BACK
    )
    sheet.text((7.15, TOP + 0.36), "$\\bar c_t$", BACK, fontsize=12)
    sheet.text((1.35, TOP + 0.4), "$\\bar c_t \\odot f_t$", BACK, fontsize=12)
    sheet.text((7.15, GATES - 0.36), "$\\bar h_t$", BACK, fontsize=12)
    sheet.text(
        (3.4, 0.17),
        "$\\bar a_t\\, U^\\top$ to $\\bar h_{t-1}$, $\\bar a_t\\, W^\\top$ to $\\bar x_t$",
        BACK,
        fontsize=11,
    )
    return sheet


PLACES = {"f": 1.9, "i": 3.0, "g": 4.1, "o": 5.5}


def _lstm() -> Sheet:
    sheet, top, gates = Sheet(8.2, 4.1), TOP, GATES
    sheet.text((0.55, top), "$c_{t-1}$", STATE, fontsize=13)
    sheet.text((7.75, top), "$c_t$", STATE, fontsize=13)
    places, bottom = PLACES, BOTTOM
    for name, x in places.items():
        label = "tanh" if name == "g" else "$\\sigma$"
        sheet.box((x, gates), label, GATE, (0.62, 0.42))
        sheet.arrow((x, bottom), (x, gates - 0.21), INPUT)
        sheet.text((x - 0.2, gates + 0.4), f"${name}$", GATE, fontsize=13)
    sheet.axes.plot([1.2, places["o"]], [bottom, bottom], color=INPUT, lw=1.4, zorder=1)
    sheet.text((0.7, bottom), "$x_t,\\ h_{t-1}$", INPUT, fontsize=13)
    times_f, plus, times_i, times_o = (1.9, top), (3.55, top), (3.55, 2.5), (6.6, 1.6)
    for at, sign in ((times_f, "×"), (plus, "+"), (times_i, "×"), (times_o, "×")):
        sheet.node(at, sign, STATE)
    sheet.arrow((0.85, top), (1.74, top), STATE, lw=2.6)
    sheet.arrow((2.06, top), (3.39, top), STATE, lw=2.6)
    sheet.arrow((3.71, top), (7.5, top), STATE, lw=2.6)
    sheet.arrow((1.9, gates + 0.21), (1.9, top - 0.16), GATE)
    sheet.path((3.0, gates + 0.21), (3.0, 2.5), (3.39, 2.5), color=GATE)
    sheet.path((4.1, gates + 0.21), (4.1, 2.5), (3.71, 2.5), color=GATE)
    sheet.arrow((3.55, 2.66), (3.55, top - 0.16), STATE)
    sheet.arrow((5.81, gates), (6.44, gates), GATE)
    sheet.box((6.6, 2.45), "tanh", STATE, (0.62, 0.42))
    sheet.arrow((6.6, top), (6.6, 2.66), STATE)
    sheet.arrow((6.6, 2.24), (6.6, 1.76), STATE)
    sheet.arrow((6.76, gates), (7.5, gates), STATE)
    sheet.text((7.75, gates), "$h_t$", STATE, fontsize=13)
    return sheet


def draw_gru_cell() -> Sheet:
    """The GRU of the form reset after: its state runs along the top."""
    sheet, z, r, n, product = Sheet(8.2, 4.1), 1.9, 3.2, 5.3, 4.25
    sheet.text((0.5, TOP), "$h_{t-1}$", STATE, fontsize=13)
    sheet.text((7.75, TOP), "$h_t$", STATE, fontsize=13)
    sheet.text((0.7, BOTTOM), "$x_t,\\ h_{t-1}$", INPUT, fontsize=13)
    sheet.axes.plot([1.2, n], [BOTTOM, BOTTOM], color=INPUT, lw=1.4, zorder=1)
    for x, name, label in ((z, "z", "$\\sigma$"), (r, "r", "$\\sigma$"), (n, "n", "tanh")):
        sheet.box((x, GATES), label, GATE, (0.62, 0.42))
        sheet.arrow((x, BOTTOM), (x, GATES - 0.21), INPUT)
        sheet.text((x - 0.2, GATES + 0.4), f"${name}$", GATE, fontsize=13)
    for at, sign in (((z, TOP), "×"), ((n, TOP), "+"), ((n, 2.5), "×"), ((product, GATES), "×")):
        sheet.node(at, sign, STATE)
    sheet.arrow((0.85, TOP), (z - 0.16, TOP), STATE, lw=2.6)
    sheet.arrow((z + 0.16, TOP), (n - 0.16, TOP), STATE, lw=2.6)
    sheet.arrow((n + 0.16, TOP), (7.5, TOP), STATE, lw=2.6)
    sheet.arrow((z, GATES + 0.21), (z, TOP - 0.16), GATE)
    sheet.box((3.5, 2.5), "1 −", GATE, (0.5, 0.36))
    sheet.arrow((z, 2.5), (3.25, 2.5), GATE)
    sheet.arrow((3.75, 2.5), (n - 0.16, 2.5), GATE)
    sheet.arrow((r + 0.31, GATES), (product - 0.16, GATES), GATE)
    sheet.arrow((product, BOTTOM), (product, GATES - 0.16), STATE)
    sheet.arrow((product + 0.16, GATES), (n - 0.31, GATES), STATE)
    sheet.arrow((n, GATES + 0.21), (n, 2.34), GATE)
    sheet.arrow((n, 2.66), (n, TOP - 0.16), STATE)
    sheet.text((product + 0.32, 1.02), "$h U_n$", STATE, fontsize=10)
    sheet.text((n + 0.36, 1.02), "$x W_n$", INPUT, fontsize=10)
    note = "no matrix and no squashing on this line, only a factor z"
    sheet.text((4.1, 3.8), note, STATE, fontsize=9.5, style="italic")
    return sheet


def draw_gru() -> Sheet:
    """The GRU in both forms: where the reset gate multiplies."""
    sheet = Sheet(9.7, 2.9)
    for left, title, first, second in (
        (0.0, "reset before (2014)", "×", "$U_n$"),
        (4.8, "reset after (cuDNN, PyTorch)", "$U_n$", "×"),
    ):
        y, x = 1.55, [left + 0.4 + 1.0 * i for i in range(5)]
        sheet.text((left + 2.3, 2.65), title, fontsize=11, weight="bold")
        sheet.text((x[0], y), "$h_{t-1}$", STATE, fontsize=13)
        for place, name in ((x[1], first), (x[2], second)):
            if name == "×":
                sheet.node((place, y), "×", STATE)
                sheet.text((place, y - 0.85), "$r$", GATE, fontsize=13)
                sheet.arrow((place, y - 0.65), (place, y - 0.16), GATE)
            else:
                sheet.box((place, y), name, INK, (0.55, 0.45))
        sheet.node((x[3], y), "+", STATE)
        sheet.text((x[3], y - 0.85), "$x_t W_n + b_n$", INPUT, fontsize=12)
        sheet.arrow((x[3], y - 0.65), (x[3], y - 0.16), INPUT)
        sheet.arrow((x[0] + 0.3, y), (x[1] - (0.16 if first == "×" else 0.275), y), STATE)
        sheet.arrow(
            (x[1] + (0.16 if first == "×" else 0.275), y),
            (x[2] - (0.16 if second == "×" else 0.275), y),
            STATE,
        )
        sheet.arrow((x[2] + (0.16 if second == "×" else 0.275), y), (x[3] - 0.16, y), STATE)
        sheet.arrow((x[3] + 0.16, y), (x[4] - 0.31, y), STATE)
        sheet.box((x[4], y), "tanh", GATE, (0.62, 0.42))
        sheet.arrow((x[4], y + 0.21), (x[4], y + 0.55), STATE)
        sheet.text((x[4], y + 0.7), "$n$", STATE, fontsize=13)
    note = "one product for r, z and n only in the second form: $h\\,[U_r, U_z, U_n]$"
    sheet.text((4.7, 0.2), note, INPUT, fontsize=9.5, style="italic")
    return sheet


DIAGRAMS = {
    "lstm": draw_lstm,
    "lstm_backward": draw_lstm_backward,
    "gru_cell": draw_gru_cell,
    "gru": draw_gru,
}

if __name__ == "__main__":
    save_all(DIAGRAMS)
