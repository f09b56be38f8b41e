"""Recorded utterances with transcripts: Asterisk's telephone prompts, or an LJSpeech folder."""

import gzip
import re
import struct
from pathlib import Path
from typing import NamedTuple

import numpy as np
from num2words import num2words
from scipy.io import wavfile

from experiments.common.data.debian import DebianPackage, fetch_package
from experiments.common.data.fetch import FetchError, read_text

WAVES = DebianPackage(
    name="asterisk-core-sounds-en-wav",
    version="1.6.1-1",
    sha256="2be3ea287d83299d143815fa804f11179a75b7affd4a758b98b55f5afc18a35d",
    content="Asterisk's English prompts, spoken by Allison Smith",
    license="CC-BY-SA 3.0",
)
TRANSCRIPTS = DebianPackage(
    name="asterisk-core-sounds-en",
    version="1.6.1-1",
    sha256="973e797d28e37fa6ca3c0a9d6fa717e77cf1268ae916bf09fd3503113cdffa50",
    content="the transcripts of Asterisk's English prompts",
    license="CC-BY-SA 3.0",
)


class Utterance(NamedTuple):
    """A recording: samples in [-1, 1] at `rate` samples per second, and its normalized text."""

    name: str
    text: str
    samples: np.ndarray
    rate: int

    @property
    def seconds(self) -> float:
        """Duration."""
        return len(self.samples) / self.rate


def load_asterisk(folder: Path | None = None) -> list[Utterance]:
    """Loads the prompts that are speech, in the order of their names.

    Args:
        folder: a folder with both Debian packages; None downloads them.

    Raises:
        FetchError: the download failed, or a file is damaged or not the pinned one.
    """
    waves, transcripts = (
        fetch_package(
            package,
            option=f"--data, in one folder with {other.filename}",
            package_file=None if folder is None else folder / package.filename,
        )
        for package, other in ((WAVES, TRANSCRIPTS), (TRANSCRIPTS, WAVES))
    )
    listed = next(transcripts.glob("usr/share/doc/*/core-sounds-en.txt.gz"))
    texts = parse_transcripts(gzip.decompress(listed.read_bytes()).decode("utf-8"))
    sounds = waves / "usr/share/asterisk/sounds/en_US_f_Allison"
    paths = {name: sounds / f"{name}.wav" for name in sorted(texts)}
    return [load_wave(name, texts[name], path) for name, path in paths.items() if path.is_file()]


def parse_transcripts(listed: str) -> dict[str, str]:
    r"""Parses lines `name: text`, without comments, tones and silences.

    Example:
        >>> parse_transcripts("; a\nbeep: [tone]\ndigits/at: at\nvm-x: Press 1. (a tone)\n")
        {'digits/at': 'at', 'vm-x': 'press one'}
    """
    texts = {}
    for line in listed.splitlines():
        name, separator, text = line.partition(":")
        text = text.strip()
        if separator and not line.startswith(";") and text[:1] not in ("[", "(", "<"):
            if normalized := normalize(re.sub(r"\[.*?\]|\(.*?\)", " ", text)):
                texts[name] = normalized
    return texts


def load_ljspeech(folder: Path) -> list[Utterance]:
    """Loads `metadata.csv`, lines `id|text` or `id|text|normalized text`, and `wavs/<id>.wav`.

    Raises:
        FetchError: a file is missing or cannot be read, or a line has no text.
    """
    utterances = []
    for number, line in enumerate(read_text(folder / "metadata.csv").splitlines(), 1):
        if not line.strip():
            continue
        name, *texts = line.split("|")
        if not texts:
            raise FetchError(
                f"{folder / 'metadata.csv'}, line {number}: expected id|text, got {line[:60]!r}"
            )
        if text := normalize(texts[-1]):
            utterances.append(load_wave(name, text, folder / "wavs" / f"{name}.wav"))
    return utterances


_SYMBOLS = {"*": "star", "#": "pound", "&": "and", "%": "percent", "@": "at", "+": "plus"}


def normalize(text: str) -> str:
    """Lowercase letters, apostrophes and single spaces, with numerals spelled out.

    Example:
        >>> normalize("Dial 1 or 28.8 at www.asterisk.org, please -- it's 10 A.M.")
        "dial one or twenty eight point eight at www dot asterisk dot org please it's ten a m"
    """
    text = re.sub(r"\b([A-Za-z])\.(?=[A-Za-z]\.)", r"\1 ", text.lower().replace("’", "'"))
    text = re.sub(r"(?<=\d)\.(?=\d)", " point ", text)
    text = re.sub(r"(?<=\w)\.(?=\w)", " dot ", text)
    text = re.sub(r"(?<=\d),(?=\d{3}\b)", "", text)
    text = re.sub(r"\d+", lambda match: f" {spell_number(match[0])} ", text)
    text = re.sub(r"[*#&%@+]", lambda match: f" {_SYMBOLS[match[0]]} ", text)
    words = re.sub(r"[^a-z' ]", " ", text).split()
    return " ".join(each for each in words if each.strip("'"))


def spell_number(digits: str) -> str:
    """The words of a number without "and"; above 999,999 digit by digit.

    Example:
        >>> spell_number("42"), spell_number("8510")
        ('forty-two', 'eight thousand, five hundred ten')
    """
    value = int(digits)
    if value >= 1_000_000:
        return " ".join(map(num2words, str(value)))
    return num2words(value).replace(" and ", " ")


def load_wave(name: str, text: str, path: Path) -> Utterance:
    """Loads a WAV file; several channels are averaged."""
    try:
        rate, samples = wavfile.read(path)
    except (OSError, ValueError, struct.error) as error:
        raise FetchError(
            f"cannot read {path}: {error}. Expected an uncompressed WAV file (PCM): convert other "
            "formats, e.g. with `ffmpeg -i sound.flac sound.wav`"
        ) from error
    if samples.dtype.kind != "f":
        half = np.float32(2 ** (8 * samples.dtype.itemsize - 1))
        samples = samples.astype(np.float32) / half - (samples.dtype.kind == "u")
    samples = samples.reshape(len(samples), -1).mean(1, dtype=np.float32)
    return Utterance(name, text, samples, rate)
