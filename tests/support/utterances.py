"""Synthetic utterances, and folders of them."""

import numpy as np
from scipy.io import wavfile

from experiments.speech.corpora import Utterance


def utterances(count=60):
    random = np.random.default_rng(0)
    words = ["press one", "goodbye", "transfer the call", "hold on", "mailbox", "conference room"]
    found = []
    for number in range(count):
        text = f"{words[number % 6]} {'abcdefghij'[number // 6] * 3}"
        sound = random.normal(size=random.integers(800, 4000)) * 0.1
        found.append(Utterance(f"u{number:02}", text, sound.astype(np.float32), 8000))
    return found


def write_wave(path, samples, rate=8000, width=2):
    """Writes integer samples of so many bytes, from values in [-1, 1] `[time, *channels]`."""
    scaled = np.asarray(samples) * (2 ** (8 * width - 1) - 1)
    dtype = {1: np.uint8, 2: np.int16, 4: np.int32}[width]
    wavfile.write(path, rate, (scaled + 128 * (width == 1)).astype(dtype))


def write_ljspeech(folder, length, samples_per_letter):
    """A folder of 60 utterances, each with a text of the same length."""
    (folder / "wavs").mkdir(parents=True)
    lines = []
    for each in utterances():
        text = each.text.ljust(length, each.text[-1])[-length:]
        write_wave(
            folder / f"wavs/{each.name}.wav", np.resize(each.samples, samples_per_letter * length)
        )
        lines.append(f"{each.name}|raw {text}|{text.title()}\n")
    (folder / "metadata.csv").write_text("".join(lines))
    return folder
