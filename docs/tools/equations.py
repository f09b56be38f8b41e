"""Equations of docstrings, which are plain text for ``help``, as LaTeX for the site.

The text is that of the papers with Unicode letters: ``h' = (1 - z) n + z tanh(x W_n + b)``. Every
symbol must be known here, else a `ValueError` names it, so that no page shows half an equation.
"""

import re
import unicodedata
from collections.abc import Sequence

GREEK = {
    "α": "alpha", "β": "beta", "γ": "gamma", "δ": "delta", "ε": "varepsilon", "ζ": "zeta",
    "θ": "theta", "λ": "lambda", "μ": "mu", "ν": "nu", "σ": "sigma", "τ": "tau", "φ": "varphi",
    "ψ": "psi", "ω": "omega", "Δ": "Delta", "Λ": "Lambda",
}  # fmt: skip
SYMBOLS = {
    "⊙": r"\odot", "·": r"\cdot", "*": "*", "≤": r"\le", "≥": r"\ge", "←": r"\leftarrow",
    "...": r"\dots", "𝒲": r"\mathcal{W}", "Σ": r"\sum", "ᵀ": r"^\top", "{": r"\{", "}": r"\}",
    "'": "'", "|": "|", **dict(zip("+-=/,()[]<>", "+-=/,()[]<>", strict=True)),
}  # fmt: skip
FUNCTIONS = {"tanh", "exp", "log", "max", "min"}
OPERATORS = {
    "silu", "softplus", "sign", "diag", "unit", "mean", "var", "modReLU", "mod", "Re", "Im",
}  # fmt: skip
NAMES = {"dt", "log_rate", "scale"}  # variables of several letters
WORDS = {"where", "elsewhere", "at", "first", "for", "over", "with", "times", "unfolds", "depth"}
ACCENTS = {"\u0303": r"\tilde", "\u0304": r"\bar", "\u0302": r"\hat"}
DIGITS = dict(zip("⁻⁰¹²³⁴₀₁₂₃₄", "-0123401234", strict=True))

_TOKEN = re.compile(
    r"(?P<gap> {2,})|(?P<space> )|(?P<number>\d+(\.\d+)?)|(?P<raised>[⁻⁰¹²³⁴]+)"
    r"|(?P<lowered>[₀₁₂₃₄]+)|(?P<index>[_^])|(?P<dots>\.\.\.)|(?P<root>√)"
    rf"|(?P<name>{'|'.join(sorted(NAMES))})|(?P<word>[A-Za-z]{{2,}})|(?P<symbol>.)"
)
_SPACED = re.compile(r"(?:\\, )?((?:[-+=/,|]|\\(?:le|ge|cdot|odot|leftarrow)(?![a-z])))(?: \\,)?")
_INDEX = re.compile(r"[a-z\d]+(,[a-z\d]+)?|\w")


def aligned(lines: Sequence[str]) -> str:
    """The display of several equations, aligned at their first relation."""
    rows = []
    for line in lines:
        equation, note = split_note(line)
        parts = re.split(r" (=|←|~|≈) ", equation, maxsplit=1)
        row = latex(parts[0])
        if len(parts) > 1:
            row += f" &{latex(parts[1])} {latex(parts[2])}"
        rows.append(row + (rf" && \text{{{_escaped(note)}}}" if note else ""))
    return "\\begin{aligned}\n" + " \\\\\n".join(rows) + "\n\\end{aligned}"


def _escaped(note: str) -> str:
    return re.sub(r"[_{}%#&]", r"\\\g<0>", note)


def split_note(line: str) -> tuple[str, str]:
    """An equation and the remark in parentheses after it."""
    equation, *note = re.split(r" {2,}(?=\()", line.strip(), maxsplit=1)
    return equation.replace("`", ""), "".join(note).replace("`", "")


def latex(text: str) -> str:
    """One expression or equation as LaTeX."""
    text = unicodedata.normalize("NFD", text.strip())
    out: list[str] = []
    at = 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        assert match is not None  # the last alternative takes any character
        kind, token = match.lastgroup, match[0]
        at = match.end()
        if kind == "index":
            inner, at = _index(text, at)
            out.append(f"{token}{{{inner}}}")
        elif kind == "root":
            inner, at = _argument(text, at)
            out.append(rf"\sqrt{{{inner}}}")
        else:
            accent = ACCENTS.get(text[at : at + 1])
            at += accent is not None
            one = _token(kind, token, text)
            out.append(f"{accent}{{{one}}}" if accent else one)
    joined = _SPACED.sub(r"\1", " ".join(out))
    return joined.replace(r"' ^\top", r"^{\prime\top}")  # one superscript, not two


def _token(kind: str | None, token: str, text: str) -> str:
    if kind in ("raised", "lowered"):
        mark = "^" if kind == "raised" else "_"
        return f"{mark}{{{''.join(DIGITS[c] for c in token)}}}"
    if kind == "gap":
        return r"\quad"
    if kind == "space":
        return r"\,"
    if kind == "number":
        return token
    if kind == "name":
        return rf"\mathit{{{token.replace('_', chr(92) + '_')}}}"
    if token in FUNCTIONS:
        return rf"\{token}"
    if token in OPERATORS:
        return rf"\operatorname{{{token}}}"
    if token in WORDS:
        return rf"\text{{ {token} }}"
    if token in GREEK:
        return rf"\{GREEK[token]}"
    if token in SYMBOLS:
        return SYMBOLS[token]
    if len(token) == 1 and token.isascii() and token.isalpha():
        return token
    raise ValueError(f"no LaTeX for {token!r} in the equation {text!r}; add it to {__name__}")


def _index(text: str, at: int) -> tuple[str, int]:
    """What follows ``_`` or ``^``, and where it ends."""
    if text[at] in "({":
        return _argument(text, at)
    match = _INDEX.match(text, at)
    if match is None:
        raise ValueError(f"an index is missing at {text[at:]!r} in the equation {text!r}")
    token = match[0]
    inner = token if len(token) < 4 else rf"\text{{{token}}}"
    return latex(token) if len(token) == 1 else inner, match.end()


def _argument(text: str, at: int) -> tuple[str, int]:
    """The group in parentheses, without them, or the letter that begins there; and its end."""
    pairs = {"(": ")", "{": "}"}
    if text[at] not in pairs:
        return latex(text[at]), at + 1
    depth = 0
    for end in range(at, len(text)):
        depth += (text[end] == text[at]) - (text[end] == pairs[text[at]])
        if not depth:
            return latex(text[at + 1 : end]), end + 1
    raise ValueError(f"a bracket is open in the equation {text!r}")
