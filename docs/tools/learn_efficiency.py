"""The pictures of docs/learn/efficiency.md: the schedule of a loop, and a scan parallel in time.

python -m docs.tools.learn_efficiency    writes docs/images/learn/*.svg
"""

from docs.tools.learn_diagrams import BACK, GATE, INPUT, STATE, Sheet, save_all

STEPS = 4


def draw_schedule() -> Sheet:
    """The products of a step as written, and where the schedule runs them."""
    sheet = Sheet(9.6, 3.9)
    rows = {"as written": 3.25, "scheduled": 2.1, "backward": 0.85}
    for title, y in rows.items():
        sheet.text((0.12, y), title, fontsize=10.5, weight="bold", ha="left")
    y, x = rows["as written"], 1.65
    for t in range(1, STEPS + 1):
        sheet.box((x, y), f"$x_{t}W$", INPUT, (0.56, 0.5), fontsize=10)
        sheet.box((x + 0.6, y), f"$h_{t - 1}U$", STATE, (0.58, 0.5), fontsize=10)
        sheet.box((x + 1.13, y), "$\\varphi$", GATE, (0.38, 0.5), fontsize=11)
        if t < STEPS:
            sheet.arrow((x + 1.33, y), (x + 1.66, y), STATE)
        x += 1.95
    y = rows["scheduled"]
    sheet.box((2.3, y), "$[x_1 \\dots x_T]\\,W$", INPUT, (1.85, 0.5), fontsize=10)
    _loop(sheet, 3.6, y, ("$h_{}U$", "$\\varphi$"), first=0, by=1)
    sheet.text((2.3, y + 0.43), "once, before the loop", INPUT, fontsize=9, style="italic")
    sheet.text(
        (5.75, y + 0.43), "in the loop: what needs the state", STATE, fontsize=9, style="italic"
    )
    y = rows["backward"]
    _loop(sheet, 2.02, y, ("$\\bar a_{}U^\\top$", "$\\varphi'$"), first=STEPS, by=-1)
    gradients = "$\\bar W = X^\\top \\bar A$,   $\\bar U = H^\\top \\bar A$"
    sheet.box((8.1, y), gradients, INPUT, (2.6, 0.5), fontsize=10)
    sheet.text((8.1, y + 0.43), "once, after the loop", INPUT, fontsize=9, style="italic")
    note = "one product of many rows is much faster than many products of a few rows"
    sheet.text((4.8, 0.17), note, INPUT, fontsize=9.5, style="italic")
    return sheet


def _loop(sheet: Sheet, x: float, y: float, texts: tuple[str, str], first: int, by: int):
    """Steps of a product and a pointwise part, joined by the state; backward in reverse order."""
    product, pointwise = texts
    color, places = (STATE, (0.29, 0.79)) if by > 0 else (BACK, (0.68, 0.18))
    sheet.arrow((x - 0.37, y), (x - 0.02, y), color)
    for k in range(STEPS):
        label = product.replace("_{}", f"_{first + by * k}")
        sheet.box((x + places[0], y), label, color, (0.6, 0.5), fontsize=9.5)
        sheet.box((x + places[1], y), pointwise, GATE, (0.36, 0.5), fontsize=10.5)
        if k < STEPS - 1:
            sheet.arrow((x + 0.98, y), (x + 1.17, y), color)
        x += 1.19


def draw_scan(count: int = 8) -> Sheet:
    """An associative scan: after round k an element has composed 2ᵏ maps; one result is marked."""
    rounds = count.bit_length() - 1
    sheet = Sheet(8.2, 0.8 * rounds + 1.35)

    def place(i: int, k: int) -> tuple[float, float]:
        return 1.9 + 0.72 * i, 0.55 + 0.8 * k

    marked = {(count - 1, rounds)}
    for k in range(rounds, 0, -1):
        for i in [i for i, level in marked if level == k]:
            marked |= {(i, k - 1), (max(i - 2 ** (k - 1), 0), k - 1)}
    for k in range(1, rounds + 1):
        for i in range(count):
            for source in (i, i - 2 ** (k - 1)):
                if source < 0:
                    continue
                on = (i, k) in marked and (source, k - 1) in marked
                style = dict(color=STATE if on else "#c9ced4", lw=2.0 if on else 1.0, zorder=0 + on)
                xs, ys = zip(place(source, k - 1), place(i, k), strict=True)
                sheet.axes.plot(xs, ys, **style)
        y = place(0, k)[1]
        text = f"round {k}: {2**k} steps"
        sheet.text((1.5, y), text, INPUT, fontsize=9.5, ha="right")
    for k in range(rounds + 1):
        for i in range(count):
            color = STATE if (i, k) in marked else "#8c9299"
            sheet.node(place(i, k), "", color, radius=0.12)
    for i in range(count):
        x, y = place(i, 0)
        sheet.text((x, y - 0.33), f"$a_{i + 1}, b_{i + 1}$", INPUT, fontsize=9.5)
        x, y = place(i, rounds)
        sheet.text((x, y + 0.33), f"$h_{i + 1}$", STATE, fontsize=11)
    return sheet


DIAGRAMS = {"schedule": draw_schedule, "scan": draw_scan}

if __name__ == "__main__":
    save_all(DIAGRAMS)
