"""Corpora: normalized transcripts, WAV files, folders of the user."""

import numpy as np
import pytest

from experiments.common.data.fetch import FetchError
from experiments.common.errors import UserError
from experiments.speech import corpora
from experiments.speech import train as speech
from tests.support.utterances import write_ljspeech, write_wave


@pytest.mark.parametrize(
    ("text", "normalized"),
    [
        ("Press 1 to mute, 2 to lock...", "press one to mute two to lock"),
        ("followed by # or just # to exit", "followed by pound or just pound to exit"),
        ("28.8 kilobit; dial 1234 or 8500", "twenty eight point eight kilobit dial one thousand "
         "two hundred thirty four or eight thousand five hundred"),
        ("A.M. and P.M.", "a m and p m"),
        ("www.asterisk.org.", "www dot asterisk dot org"),
        ("I’m sorry -- 'that' is 1,000", "i'm sorry 'that' is one thousand"),
        ("...", ""),
    ],
)  # fmt: skip
def test_texts_are_normalized(text, normalized):
    assert corpora.normalize(text) == normalized


def test_numbers_are_read():
    for value, words in (
        (13, "thirteen"),
        (90, "ninety"),
        (101, "one hundred one"),
        (999_999, "nine hundred ninety nine thousand nine hundred ninety nine"),
        (1_000_000, "one zero zero zero zero zero zero"),
    ):
        assert corpora.normalize(str(value)) == words


def test_tones_silences_and_comments_are_skipped():
    listed = (
        "; a\n\nbeep: [beep]\nsilence/1: (1 s)\nx: <beep>\nletters/at: at [@]\nvm-l:  Press 5\n"
    )
    assert corpora.parse_transcripts(listed) == {"letters/at": "at", "vm-l": "press five"}


@pytest.mark.parametrize("width", [1, 2, 4])
def test_waves_of_several_widths_are_read(tmp_path, width):
    samples = np.sin(np.linspace(0, 30, 200))
    write_wave(tmp_path / "a.wav", samples, rate=11025, width=width)
    found = corpora.load_wave("a", "a", tmp_path / "a.wav")
    np.testing.assert_allclose(found.samples, samples, atol=2 / 2 ** (8 * width - 1))
    assert (found.rate, found.seconds) == (11025, 200 / 11025)


def test_channels_become_their_mean_and_damage_is_named(tmp_path):
    write_wave(tmp_path / "a.wav", [[0.5, -0.5], [0.25, 0.75]])
    np.testing.assert_allclose(
        corpora.load_wave("a", "a", tmp_path / "a.wav").samples, [0, 0.5], atol=1e-4
    )
    (tmp_path / "b.wav").write_bytes(b"RIFF....")
    for name in ("b", "absent"):
        with pytest.raises(FetchError, match=rf"cannot read .*{name}\.wav.*Expected an unc"):
            corpora.load_wave(name, "a", tmp_path / f"{name}.wav")


def test_damaged_folders_are_named(tmp_path):
    folder = write_ljspeech(tmp_path, 14, 80)
    found = corpora.load_ljspeech(folder)
    assert len(found) == 60 and found[0].text == "press one aaaa"
    (folder / "metadata.csv").write_text("no text here\n")
    with pytest.raises(FetchError, match=r"line 1: expected id\|text, got 'no text here'"):
        corpora.load_ljspeech(folder)
    (folder / "metadata.csv").write_text("u00|one\n")
    with pytest.raises(UserError, match="1 utterances give"):
        speech.load_parts(speech.Config(data=folder))
    with pytest.raises(
        FetchError, match=r"asterisk-core-sounds-en-wav_1\.6\.1-1_all\.deb is not a"
    ):
        speech.load_parts(speech.Config(data=folder / "wavs"))
