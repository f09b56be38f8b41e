"""Recorded speech with its texts: the prompts of a telephone exchange, or a folder of one's own."""

import gzip
import re
import wave
from pathlib import Path
from typing import NamedTuple

import numpy as np

from experiments.common.data import text as datasets
from experiments.common.data.debian import DebianPackage, fetch_package
from experiments.common.errors import FetchError

WAVES = DebianPackage(
    name="asterisk-core-sounds-en-wav",
    version="1.6.1-1",
    sha256="2be3ea287d83299d143815fa804f11179a75b7affd4a758b98b55f5afc18a35d",
    content="Asterisk's English prompts, spoken by Allison Smith",
    licence="CC-BY-SA 3.0",
)
TEXTS = DebianPackage(
    name="asterisk-core-sounds-en",
    version="1.6.1-1",
    sha256="973e797d28e37fa6ca3c0a9d6fa717e77cf1268ae916bf09fd3503113cdffa50",
    content="the texts of Asterisk's English prompts",
    licence="CC-BY-SA 3.0",
)


class Utterance(NamedTuple):
    """What was said: `samples` between -1 and 1, so many a second, and the text as it is spoken."""

    name: str
    text: str
    samples: np.ndarray
    rate: int

    @property
    def seconds(self) -> float:
        """Its duration."""
        return len(self.samples) / self.rate


def asterisk(*, folder: Path | None = None, option: str = "--data") -> list[Utterance]:
    """The prompts that are speech, in the order of their names.

    Args:
        folder: one that holds both Debian packages, where they are at hand already; None fetches
            them.
        option: the command line option that takes the folder, for the error messages.

    Raises:
        FetchError: a package could not be fetched or opened, or is damaged or not the pinned one.
    """
    roots = [
        fetch_package(
            package,
            option=f"{option}, in one folder with {other.filename}",
            package_file=None if folder is None else folder / package.filename,
        )
        for package, other in ((WAVES, TEXTS), (TEXTS, WAVES))
    ]
    listed = next(roots[1].glob("usr/share/doc/*/core-sounds-en.txt.gz"))
    texts = parse_texts(gzip.decompress(listed.read_bytes()).decode("utf-8"))
    sounds = roots[0] / "usr/share/asterisk/sounds/en_US_f_Allison"
    found = [(name, text, sounds / f"{name}.wav") for name, text in sorted(texts.items())]
    return [_read(name, text, path) for name, text, path in found if path.is_file()]


def parse_texts(listed: str) -> dict[str, str]:
    r"""Reads lines `name: text`; comments, tones and silences are left out.

    Example:
        >>> parse_texts("; sounds\nbeep: [a tone]\ndigits/at: at\nvm-x: Press 1. (a tone)\n")
        {'digits/at': 'at', 'vm-x': 'press one'}
    """
    texts = {}
    for line in listed.splitlines():
        name, separator, text = line.partition(":")
        text = text.strip()
        if separator and not line.startswith(";") and text[:1] not in ("[", "(", "<"):
            if said := spoken(re.sub(r"\[.*?\]|\(.*?\)", " ", text)):
                texts[name] = said
    return texts


def ljspeech(folder: Path) -> list[Utterance]:
    """Reads a folder with `metadata.csv`, lines `id|text` or `id|text|text as spoken`, and `wavs/`.

    Raises:
        FetchError: a file is missing or cannot be read, or a line has no text.
    """
    utterances = []
    for number, line in enumerate(datasets.text(folder / "metadata.csv").splitlines(), 1):
        if not line.strip():
            continue
        name, *texts = line.split("|")
        if not texts:
            raise FetchError(
                f"{folder / 'metadata.csv'}, line {number}: expected id|text, got {line[:60]!r}"
            )
        path = folder / "wavs" / f"{name}.wav"
        if said := spoken(texts[-1]):
            utterances.append(_read(name, said, path))
    return utterances


# Texts --------------------------------------------------------------------------------------------

_SIGNS = {"*": "star", "#": "pound", "&": "and", "%": "percent", "@": "at", "+": "plus"}
_ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen eighteen nineteen"
).split()
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()


def spoken(text: str) -> str:
    """A text in small letters, apostrophes and single spaces, with numerals spelled out.

    Example:
        >>> spoken("Dial 1 or 28.8 at www.asterisk.org, please -- it's 10 A.M.")
        "dial one or twenty eight point eight at www dot asterisk dot org please it's ten a m"
    """
    text = re.sub(r"\b([A-Za-z])\.(?=[A-Za-z]\.)", r"\1 ", text.lower().replace("’", "'"))
    text = re.sub(r"(?<=\d)\.(?=\d)", " point ", text)
    text = re.sub(r"(?<=\w)\.(?=\w)", " dot ", text)
    text = re.sub(r"(?<=\d),(?=\d{3}\b)", "", text)
    text = re.sub(r"\d+", lambda found: f" {number(int(found[0]))} ", text)
    text = re.sub(r"[*#&%@+]", lambda found: f" {_SIGNS[found[0]]} ", text)
    words = re.sub(r"[^a-z' ]", " ", text).split()
    return " ".join(word for word in words if word.strip("'"))


def number(value: int) -> str:
    """The words of a number; one above 999,999 is read digit by digit.

    Example:
        >>> number(0), number(42), number(310), number(8500)
        ('zero', 'forty two', 'three hundred ten', 'eight thousand five hundred')
    """
    if value < 20:
        return _ONES[value]
    if value < 100:
        tens, ones = divmod(value, 10)
        return _TENS[tens - 2] + (f" {_ONES[ones]}" if ones else "")
    for size, name in ((1000, "thousand"), (100, "hundred")):
        if size <= value < 1_000_000:
            many, rest = divmod(value, size)
            return f"{number(many)} {name}" + (f" {number(rest)}" if rest else "")
    return " ".join(_ONES[int(digit)] for digit in str(value))


# Sound --------------------------------------------------------------------------------------------


def _read(name: str, text: str, path: Path) -> Utterance:
    """Reads a WAV file; several channels become their mean."""
    try:
        with wave.open(str(path), "rb") as file:
            width, channels, rate = file.getsampwidth(), file.getnchannels(), file.getframerate()
            content = file.readframes(file.getnframes())
    except (OSError, EOFError, wave.Error) as error:
        raise FetchError(
            f"cannot read {path}: {error or 'it is cut short'}. It must be a WAV file with whole "
            "numbers (PCM); others can be converted, e.g. by `ffmpeg -i sound.flac sound.wav`"
        ) from error
    if width == 1:
        samples = np.frombuffer(content, np.uint8).astype(np.float32) / 128 - 1
    elif width in (2, 4):
        samples = np.frombuffer(content, f"<i{width}").astype(np.float32) / 2 ** (8 * width - 1)
    else:
        raise FetchError(
            f"{path} has samples of {8 * width} bits; 8, 16 and 32 are read: convert it, e.g. by "
            "`ffmpeg -i sound.wav -c:a pcm_s16le other.wav`"
        )
    return Utterance(name, text, samples.reshape(-1, channels).mean(1), rate)
