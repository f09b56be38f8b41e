"""The split, labels, log-mel features, batches."""

import numpy as np
import pytest

from experiments.speech.data import (
    PHONEMES,
    Frontend,
    Labels,
    change_speed,
    encode_letters,
    encode_phonemes,
    evaluation_batches,
    log_mel,
    mel_filters,
    split,
    stack_frames,
    subset,
    training_batches,
)
from tests.support.utterances import utterances


@pytest.mark.parametrize(("rate", "pitch"), [(8000, 300), (8000, 3200), (22050, 1500)])
def test_a_tone_has_its_maximum_in_its_band(rate, pitch):
    bands = 20
    samples = np.sin(2 * np.pi * pitch * np.arange(rate) / rate)
    features = log_mel(samples.astype(np.float32), rate, bands)
    assert 97 <= len(features) <= 100
    edges = np.linspace(0, 2595 * np.log10(1 + rate / 2 / 700), bands + 2)
    band = np.abs(edges[1:-1] - 2595 * np.log10(1 + pitch / 700)).argmin()
    assert set(features.argmax(1)) <= {band - 1, band, band + 1}
    assert features.argmax(1)[50] == band


def test_log_mel_is_that_of_the_discrete_fourier_transform():
    random = np.random.default_rng(0)
    samples, rate = random.normal(size=1000), 8000
    emphasised = np.append(samples[0], samples[1:] - 0.97 * samples[:-1])
    n = np.arange(200)
    frame = emphasised[160:360] * (0.5 - 0.5 * np.cos(2 * np.pi * n / 200))
    power = [abs((frame * np.exp(-2j * np.pi * k * n / 256)).sum()) ** 2 for k in range(129)]
    want = np.log(np.array(power) @ mel_filters(12, 256, rate) + 1e-6)
    np.testing.assert_allclose(log_mel(samples, rate, 12)[2], want, rtol=1e-4)


def test_speed_changes_duration_and_pitch():
    samples = np.sin(2 * np.pi * 400 * np.arange(8000) / 8000).astype(np.float32)
    fast = change_speed(samples, 1.25)
    assert abs(len(fast) - 6400) <= 1
    assert np.abs(np.fft.rfft(fast)).argmax() / len(fast) * 8000 == pytest.approx(500, abs=2)
    assert change_speed(samples, 1.0) is samples


def test_frames_are_stacked_with_their_neighbours():
    frames = np.arange(14).reshape(7, 2)
    stacked = stack_frames(frames, 3)
    np.testing.assert_array_equal(stacked[1], [6, 7, 8, 9, 10, 11])
    np.testing.assert_array_equal(stacked[2], [12, 13, 12, 13, 12, 13])


def test_features_use_the_sampling_rate_of_the_utterance():
    (one,) = utterances(1)
    frames = stack_frames(log_mel(one.samples, 16000, 4), 2)
    np.testing.assert_array_equal(Frontend(4, 2).features(one._replace(rate=16000)), frames)


def test_features_are_standardized_by_the_training_data():
    every = utterances(12)
    frontend = Frontend.fit(4, 2, every)
    frames = np.concatenate([frontend.features(u) for u in every])
    np.testing.assert_allclose(frames.mean(0), 0, atol=1e-4)
    raw = np.concatenate([Frontend(4, 2).features(u) for u in every]).std(0)
    assert 0.1 < raw.min() and raw.max() < 0.9
    # A constant is added to the deviation, for bands that never change.
    np.testing.assert_allclose(frames.std(0), raw / (raw + 1e-3), atol=1e-4)
    batches = evaluation_batches(frontend, every, 5)
    assert sorted(int(i) for indices, _ in batches for i in indices) == list(range(12))


def test_phonemes_are_those_of_the_dictionary():
    """The first listed ones; none for a text with an unlisted word."""
    listed = {"ok": [["OW", "K", "EY"], ["AH"]], "the": [["DH", "AH"]]}
    assert [
        PHONEMES[label - 1] for label in encode_phonemes("the ok", listed)
    ] == "DH AH OW K EY".split()
    assert encode_phonemes("the dahdi", listed) == [] == encode_phonemes("", listed)
    assert len(set(PHONEMES)) == 39


def test_near_duplicates_stay_together_and_parts_are_nested():
    every = [*utterances(), *(u._replace(name=u.name + "x") for u in utterances())]
    parts = split(every)
    texts = [{u.text for u in part} for part in parts]
    assert sorted(u.name for part in parts for u in part) == sorted(u.name for u in every)
    assert all(texts)
    assert not texts[0] & texts[2] and not texts[0] & texts[1] and not texts[1] & texts[2]
    names = [{u.name for u in subset(every, amount)} for amount in (0.001, 0.3, 0.8, 1.0)]
    assert len(names[0]) == 1 and names[1] < names[2] < names[3] and len(names[3]) == len(every)
    seconds = sum(u.seconds for u in subset(every, 0.3)) / sum(u.seconds for u in every)
    assert 0.25 < seconds <= 0.3


def test_an_epoch_contains_every_utterance_and_speeds_vary():
    every, frontend = utterances(20), Frontend(4, 2)
    features = [[frontend.features(u, speed) for speed in (0.9, 1.1)] for u in every]
    labels = [Labels(encode_letters(u.text), [len(u.text), 3]) for u in every]
    batches = training_batches(features, labels, batch_size=7, seed=1)
    seen, speeds = set(), set()
    for step in range(batches.epoch_steps):
        batch = batches(step)
        for row in range(7):
            n = int(batch.lengths[0, row])
            matches = [
                (i, speed)
                for i, both in enumerate(features)
                for speed, frames in enumerate(both)
                if len(frames) == n and (frames == batch.features[:n, row]).all()
            ]
            ((index, speed),) = matches
            text = encode_letters(every[index].text)
            assert list(batch.letters[: len(text), row]) == text
            assert not batch.letters[len(text) :, row].any()
            assert list(batch.phonemes[:2, row]) == [len(text), 3]
            assert not batch.phonemes[2:, row].any()
            assert not batch.features[n:, row].any()
            seen.add(index)
            speeds.add(speed)
    assert len(seen) == 20 and speeds == {0, 1}


@pytest.mark.parametrize("count", [2, 3])
def test_parts_of_a_batch_are_the_batch(count):
    every, frontend = utterances(20), Frontend(4, 2)
    features = [[frontend.features(u, speed) for speed in (0.9, 1.1)] for u in every]
    labels = [Labels(encode_letters(u.text), [len(u.text), 3]) for u in every]
    batches = training_batches(features, labels, batch_size=6, seed=1)
    for step in range(4):
        parts = [batches(step, index, count) for index in range(count)]
        for whole, *own in zip(batches(step), *parts, strict=True):
            assert all(each.shape[1] == 6 // count for each in own)
            np.testing.assert_array_equal(np.concatenate(own, 1), whole)
