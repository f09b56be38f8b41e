"""Speech: texts, sound, features, the loss against all paths, and a run on synthetic tones."""

import dataclasses
import itertools
import wave

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.figure import Figure
from rich.console import Console

import jaxrnn as rnn
from experiments.common.data.batching import Size as Extent
from experiments.common.errors import FetchError, UserError
from experiments.common.options import Options
from experiments.speech import corpora as _prompts
from experiments.speech import features as _audio
from experiments.speech import train as speech
from experiments.speech.data import (
    PHONEMES,
    Batches,
    Frontend,
    Inputs,
    Labels,
    encode,
    pad,
    pronounce,
    some,
    split,
)
from experiments.speech.decode import error_rate
from experiments.speech.language_model import Letters, best_surrounded, english, train_letters
from experiments.speech.plots import draw_amounts

# Texts --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
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
def test_texts_are_written_as_they_are_spoken(text, said):
    assert _prompts.spoken(text) == said


def test_numbers_are_read():
    for value, words in (
        (13, "thirteen"),
        (90, "ninety"),
        (101, "one hundred one"),
        (999_999, "nine hundred ninety nine thousand nine hundred ninety nine"),
        (1_000_000, "one zero zero zero zero zero zero"),
    ):
        assert _prompts.number(value) == words


def test_tones_silences_and_comments_are_no_prompts():
    listed = (
        "; a\n\nbeep: [beep]\nsilence/1: (1 s)\nx: <beep>\nletters/at: at [@]\nvm-l:  Press 5\n"
    )
    assert _prompts.parse_texts(listed) == {"letters/at": "at", "vm-l": "press five"}


# Sound --------------------------------------------------------------------------------------------


def write_wave(path, samples, rate=8000, width=2, channels=1):
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(rate)
        scaled = np.asarray(samples) * (2 ** (8 * width - 1) - 1)
        kind = {1: np.uint8, 2: "<i2", 4: "<i4"}[width]
        file.writeframes((scaled + 128 * (width == 1)).astype(kind).tobytes())


@pytest.mark.parametrize("width", [1, 2, 4])
def test_waves_of_several_widths_are_read(tmp_path, width):
    samples = np.sin(np.linspace(0, 30, 200))
    write_wave(tmp_path / "a.wav", samples, width=width)
    found = _prompts._read("a", "a", tmp_path / "a.wav")
    np.testing.assert_allclose(found.samples, samples, atol=2 / 2 ** (8 * width - 1))
    assert (found.rate, found.seconds) == (8000, 200 / 8000)


def test_channels_become_their_mean_and_damage_is_named(tmp_path):
    write_wave(tmp_path / "a.wav", [0.5, -0.5, 0.25, 0.75], channels=2)
    np.testing.assert_allclose(
        _prompts._read("a", "a", tmp_path / "a.wav").samples, [0, 0.5], atol=1e-4
    )
    (tmp_path / "b.wav").write_bytes(b"RIFF....")
    for name in ("b", "absent"):
        with pytest.raises(FetchError, match=rf"cannot read .*{name}\.wav.*must be a WAV"):
            _prompts._read(name, "a", tmp_path / f"{name}.wav")


@pytest.mark.parametrize("rate", [8000, 22050])
@pytest.mark.parametrize("pitch", [300, 1500, 3200])
def test_a_tone_lights_up_its_band(rate, pitch):
    bands = 20
    samples = np.sin(2 * np.pi * pitch * np.arange(rate) / rate)
    features = _audio.log_mel(samples.astype(np.float32), rate, bands)
    assert 97 <= len(features) <= 100
    edges = np.linspace(0, 2595 * np.log10(1 + rate / 2 / 700), bands + 2)
    band = np.abs(edges[1:-1] - 2595 * np.log10(1 + pitch / 700)).argmin()
    assert set(features.argmax(1)) <= {band - 1, band, band + 1}
    assert features.argmax(1)[50] == band


def test_the_energy_is_that_of_a_transform_by_definition():
    random = np.random.default_rng(0)
    samples, rate = random.normal(size=1000), 8000
    emphasised = np.append(samples[0], samples[1:] - 0.97 * samples[:-1])
    n = np.arange(200)
    frame = emphasised[160:360] * (0.5 - 0.5 * np.cos(2 * np.pi * n / 200))
    power = [abs((frame * np.exp(-2j * np.pi * k * n / 256)).sum()) ** 2 for k in range(129)]
    want = np.log(np.array(power) @ _audio.mel_filters(12, 256, rate) + 1e-6)
    np.testing.assert_allclose(_audio.log_mel(samples, rate, 12)[2], want, rtol=1e-4)


def test_speed_changes_duration_and_pitch():
    samples = np.sin(2 * np.pi * 400 * np.arange(8000) / 8000).astype(np.float32)
    fast = _audio.at_speed(samples, 1.25)
    assert abs(len(fast) - 6400) <= 1
    assert np.abs(np.fft.rfft(fast)).argmax() / len(fast) * 8000 == pytest.approx(500, abs=2)
    assert _audio.at_speed(samples, 1.0) is samples


def test_masks_hide_stretches_of_time_and_of_bands_in_each_row_for_itself():
    lengths = jnp.array([40, 24])
    xs = jnp.ones((40, 2, 30))
    hidden = np.asarray(_audio.mask_randomly(jax.random.key(3), xs, 10, lengths)) == 0
    whole = hidden.all(2)
    assert (whole.sum(0) <= lengths / 4 + 2).all() and whole.any()
    bands = hidden[~whole[:, 0], 0].all(0).reshape(3, 10)
    assert (bands == bands[0]).all() and bands.sum() <= 9
    assert (hidden[:, 0] != hidden[:, 1]).any()
    empty = _audio.mask_randomly(jax.random.key(3), xs, 10, jnp.zeros(2, jnp.int32))
    assert np.isfinite(empty).all()


def test_frames_are_stacked_with_their_neighbours():
    frames = np.arange(14).reshape(7, 2)
    stacked = _audio.stack_frames(frames, 3)
    np.testing.assert_array_equal(stacked[1], [6, 7, 8, 9, 10, 11])
    np.testing.assert_array_equal(stacked[2], [12, 13, 12, 13, 12, 13])


# Batches ------------------------------------------------------------------------------------------


def utterances(count=60):
    random = np.random.default_rng(0)
    words = ["press one", "goodbye", "transfer the call", "hold on", "mailbox", "conference room"]
    found = []
    for number in range(count):
        text = f"{words[number % 6]} {'abcdefghij'[number // 6] * 3}"
        sound = random.normal(size=random.integers(800, 4000)) * 0.1
        found.append(_prompts.Utterance(f"u{number:02}", text, sound.astype(np.float32), 8000))
    return found


def test_near_duplicates_stay_together_and_parts_are_nested():
    every = [*utterances(), *(u._replace(name=u.name + "x") for u in utterances())]
    parts = split(every)
    texts = [{u.text for u in part} for part in parts]
    assert sorted(u.name for part in parts for u in part) == sorted(u.name for u in every)
    assert not texts[0] & texts[2] and not texts[0] & texts[1] and not texts[1] & texts[2]
    names = [{u.name for u in some(every, amount)} for amount in (0.001, 0.3, 0.8, 1.0)]
    assert len(names[0]) == 1 and names[1] < names[2] < names[3] and len(names[3]) == len(every)
    seconds = sum(u.seconds for u in some(every, 0.3)) / sum(u.seconds for u in every)
    assert 0.25 < seconds <= 0.3


def test_a_pass_hears_every_utterance_and_speeds_vary():
    every, frontend = utterances(), Frontend(4, 2)
    features = [[frontend.features(u, speed) for speed in (0.9, 1.1)] for u in every]
    labels = [Labels(encode(u.text), [len(u.text), 3]) for u in every]
    batches = Batches(features, labels, rows=7, seed=1)
    heard, speeds = set(), set()
    for step in range(batches.plan.a_pass):
        batch = batches(step)
        for row in range(7):
            n = int(batch.lengths[0, row])
            matches = [
                (i, speed)
                for i, both in enumerate(features)
                for speed, frames in enumerate(both)
                if len(frames) == n and (frames == batch.features[:n, row]).all()
            ]
            ((which, speed),) = matches
            text = encode(every[which].text)
            assert list(batch.letters[: len(text), row]) == text
            assert not batch.letters[len(text) :, row].any()
            assert list(batch.phonemes[:2, row]) == [len(text), 3]
            assert not batch.phonemes[2:, row].any()
            assert not batch.features[n:, row].any()
            heard.add(which)
            speeds.add(speed)
    assert len(heard) == 60 and speeds == {0, 1}


# The loss -----------------------------------------------------------------------------------------


def small(**changes):
    sizes = dict(layers=1, hidden=3, bands=4, stacked=1, batch=3, width=3)
    return speech.Config(**(sizes | dict(dropout=0.0, letters=0, phonemes=0.0) | changes))


def perturbed(model):
    return jax.tree.map(
        lambda leaf: leaf + 0.3 * jax.random.normal(jax.random.key(1), leaf.shape),
        model.init(jax.random.key(0)),
    )


def of_all_paths(logits, text):
    """Minus the logarithm of the sum over all paths that spell a text."""
    probabilities = np.asarray(jax.nn.softmax(logits), np.float64)
    total = 0.0
    for path in itertools.product({0, *text}, repeat=len(logits)):
        if [label for label, _ in itertools.groupby(path) if label] == text:
            total += np.prod([p[label] for p, label in zip(probabilities, path, strict=True)])
    return -np.log(total)


def test_the_loss_is_that_of_all_paths_and_padding_changes_nothing():
    model = speech.make_model(small())
    params = perturbed(model)
    random = np.random.default_rng(0)
    features = [random.normal(size=(n, 4)).astype(np.float32) for n in (4, 3, 2)]
    labels = [[1, 3], [2, 2], [5]]
    wanted = 0.0
    for frames, text in zip(features, labels, strict=True):
        logits, _ = model.apply(params, frames[:, None], jnp.array([len(frames)]))
        wanted += of_all_paths(logits[:, 0], text)
    labels = [Labels(text) for text in labels]
    for size in (Extent(4, 2), Extent(9, 5)):
        batch = pad(features, labels, size)
        np.testing.assert_allclose(model.loss(params, batch), wanted / 5, rtol=1e-4)
    for letters in (2, 1):  # the smaller size holds the frames, and all letters or not all
        sizes = (Extent(4, letters), Extent(9, 5))
        cut = model.bucketed_loss(params, pad(features, labels, sizes[1]), None, sizes)
        np.testing.assert_allclose(cut, wanted / 5, rtol=1e-4)


@pytest.mark.parametrize("layers", [1, 2])
def test_phonemes_have_a_loss_of_their_own_in_training(layers):
    """By their weight, for each letter; a row without phonemes adds nothing."""
    model = speech.make_model(small(layers=layers, phonemes=0.7))
    params, key = perturbed(model), jax.random.key(2)
    features = np.random.default_rng(0).normal(size=(3, 5, 4)).astype(np.float32)
    labels = [Labels([1, 3], [7, 2, 2]), Labels([4]), Labels([5, 2], [39])]
    sizes = (Extent(5, 2), Extent(5, 3))  # the smaller holds the letters alone
    batch = pad(list(features), labels, sizes[1])
    _, logits = model.apply(params, jnp.asarray(batch.features), jnp.array([5] * 3), key)
    wanted = of_all_paths(logits[:, 0], [7, 2, 2]) + of_all_paths(logits[:, 2], [39])
    letters = dataclasses.replace(model, weight=0.0)
    for loss in (model.loss, lambda *args: model.bucketed_loss(*args, sizes)):
        more = loss(params, batch, key) - letters.loss(params, batch, key)
        np.testing.assert_allclose(more, 0.7 * wanted / 5, rtol=1e-4)
    assert model.loss(params, batch) == letters.loss(params, batch)
    grads = jax.grad(model.loss)(params, batch, key)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))


def test_the_phonemes_are_those_of_the_dictionary():
    """Those listed first; none for a text with a word that is not listed."""
    listed = {"ok": [["OW", "K", "EY"], ["AH"]], "the": [["DH", "AH"]]}
    assert [PHONEMES[label - 1] for label in pronounce("the ok", listed)] == "DH AH OW K EY".split()
    assert pronounce("the dahdi", listed) == [] == pronounce("", listed)
    assert len(set(PHONEMES)) == 39


def test_error_rates_count_edits_for_each_letter():
    spoken = [
        _prompts.Utterance("a", "hello", np.zeros(1), 1),
        _prompts.Utterance("b", "abc", np.zeros(1), 1),
    ]
    assert error_rate(["hallo", "abcd"], spoken) == 2 / 8


# A run --------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    """An LJSpeech-style folder, of two lengths only, as each is compiled."""
    (tmp_path / "data/wavs").mkdir(parents=True)
    lines = []
    for each in utterances(60):
        text = each.text.ljust(13 if len(each.text) <= 13 else 21, each.text[-1])
        samples = np.resize(each.samples, 160 * len(text))
        write_wave(tmp_path / f"data/wavs/{each.name}.wav", samples)
        lines.append(f"{each.name}|raw {text}|{text.title()}, 1\n")
    (tmp_path / "data/metadata.csv").write_text("".join(lines))
    return tmp_path / "data"


def test_speech_runs_two_steps_for_each_amount_and_reports(folder, tmp_path, capsys, monkeypatch):
    options = Options(
        steps=2, warmup=1, log_every=1, validate_every=1, checkpoint_every=1, out=tmp_path / "run"
    )
    asked = []

    def cmudict(**where):
        asked.append(where)
        return {word: [["B", "IY"]] for u in utterances() for word in u.text.split()[1:]}

    monkeypatch.setattr(speech._dictionaries, "cmudict", cmudict)
    own = small(data=folder, phonemes=0.5, speeds=(0.9, 1.0), training=options)
    result = speech.main(dataclasses.replace(own, amounts=(0.5, 1.0)))
    assert len(asked) == 2 and asked[0]["wheel"] is None and "--phonemes 0" in asked[0]["option"]
    out = capsys.readouterr().out
    assert len(result.scores) == 2 and result.scores[0].minutes < result.scores[1].minutes
    assert 0.5 < result.baseline < 2 and "held-out prompts:" in out
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert {"alignment.png", "curves.png", "learning-curve.png", "texts.txt"} <= names
    # The same run, decoded with a model of the letters, too.
    again = speech.main(dataclasses.replace(own, letters=4, english=False))
    assert again.outcome.compile_seconds == 0 and 0 < again.scores[0].fused < 2
    assert again.scores[0][:3] == result.scores[1][:3] and result.scores[1].fused is None
    assert (tmp_path / "run/letters-4/metrics.jsonl").is_file()
    assert (tmp_path / "run/amount-0.5/alignment.png").is_file()
    # And with one that has read a dictionary besides.
    (tmp_path / "de-en").write_text("".join(f"Wort {i} :: a word or {i}\n" for i in range(99)))
    last = speech.main(dataclasses.replace(own, letters=4, dictionary=tmp_path / "de-en"))
    assert last.outcome.compile_seconds == 0 and 0 < last.scores[0].fused < 2
    assert (tmp_path / "run/letters-4-english/metrics.jsonl").is_file()


@pytest.mark.parametrize("fused", [None, 0.25])
def test_the_curve_is_drawn_with_a_model_of_letters_or_without(tmp_path, monkeypatch, fused):
    figures = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, path, **_: figures.append(figure))
    scores = [speech.Scores(minutes, 0.5 / minutes, 0.4 / minutes, fused) for minutes in (1, 2)]
    draw_amounts(tmp_path / "curve.png", scores, 0.9)
    (axes,) = figures[0].axes
    curves = [line.get_ydata() for line in axes.lines[:-1]]
    want = [(50, 25), (40, 20)] + [(25, 25)] * (fused is not None)
    np.testing.assert_allclose(curves, want)
    assert [text.get_text() for text in axes.texts] == [f"{rate:.1f}" for rate in want[-1]]


def test_letters_learn_what_follows_what(tmp_path):
    """Of a text that says the same again and again, nothing is left to guess but its beginning."""
    letters = Letters(rnn.GRU(24))
    outcome = train_letters(
        letters,
        ["abcd ab", "xyzz"] * 8,
        [],
        ["xyzz", "abcd ab"],
        options=Options(steps=300, out=tmp_path),
        folder=tmp_path,
        identity={},
        console=Console(quiet=True),
    )
    # Two beginnings are one bit, over twelve letters and ends.
    assert outcome.best["loss"] == pytest.approx(2 * np.log(2) / 13, abs=0.06)
    state, label = letters.init_state(outcome.params), jnp.int32(0)
    for letter in "xyzz":
        state, logits = letters.step(outcome.params, state, label)
        label = jnp.int32(encode(letter)[0])
        assert jax.nn.softmax(logits)[label] > (0.4 if letter == "x" else 0.9)


def test_letters_learn_from_more_texts_too(tmp_path):
    letters = Letters(rnn.GRU(24))
    losses = [
        train_letters(
            letters,
            ["abcd ab"] * 20,
            more,
            ["xyzz"],
            options=Options(steps=100),
            folder=tmp_path / str(len(more)),
            identity={},
            console=Console(quiet=True),
        ).best["loss"]
        for more in ([], ["xyzz"] * 20)
    ]
    assert 2 * losses[1] < losses[0]


def test_a_choice_is_judged_with_those_around_it():
    table = np.random.default_rng(0).random((6, 4))
    means = np.zeros_like(table)
    for row, column in np.ndindex(table.shape):
        beside = itertools.product((row - 1, row, row + 1), (column - 1, column, column + 1))
        around = [table[min(max(r, 0), 5), min(max(c, 0), 3)] for r, c in beside]
        means[row, column] = sum(around) / 9
    assert best_surrounded(table) == np.unravel_index(means.argmin(), means.shape)
    table[:] = 1.0
    table[1:4, 1:4], table[5, 0] = 0.5, 0.4  # a basin, and a lucky one
    assert best_surrounded(table) == (2, 2)


def test_what_is_held_out_is_not_read(tmp_path):
    lines = "Bitte warten. :: Please don’t go!\nja :: yes\nzwei Tage :: 2 days\nCafé :: the café"
    (tmp_path / "de-en").write_text(lines)
    assert english(tmp_path / "de-en", []) == ["please don't go", "two days"]
    assert english(tmp_path / "de-en", ["please don't go"]) == ["two days"]


def test_a_folder_of_the_users_own_is_checked(folder):
    found = _prompts.ljspeech(folder)
    assert len(found) == 60 and found[0].text == "press one aaa one"
    (folder / "metadata.csv").write_text("no text here\n")
    with pytest.raises(FetchError, match=r"line 1: expected id\|text, got 'no text here'"):
        _prompts.ljspeech(folder)
    (folder / "metadata.csv").write_text("u00|one\n")
    with pytest.raises(UserError, match="of 1 utterances"):
        speech.main(small(data=folder))
    with pytest.raises(
        FetchError, match=r"asterisk-core-sounds-en-wav_1\.6\.1-1_all\.deb is not a"
    ):
        speech.main(small(data=folder / "wavs"))


def test_inputs_are_standardised_by_what_is_trained_on():
    every = utterances(12)
    inputs = Inputs.of(Frontend(4, 2), every)
    frames = np.concatenate([inputs.features(u) for u in every])
    np.testing.assert_allclose(frames.mean(0), 0, atol=1e-4)
    raw = np.concatenate([inputs.frontend.features(u) for u in every]).std(0)
    assert 0.1 < raw.min() and raw.max() < 0.9
    # A little is added to what is divided by, for bands that never change.
    np.testing.assert_allclose(frames.std(0), raw / (raw + 1e-3), atol=1e-4)
    batches = inputs.batches(every, 5)
    assert sorted(int(i) for which, _ in batches for i in which) == list(range(12))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layers": 0}, "layers must be at least 1, got 0"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\), got 1.0"),
        ({"letters": -1}, "letters must be 0 or more, got -1"),
        ({"amounts": ()}, r"amounts must be in \(0, 1\], got \(\)"),
        ({"amounts": (2.0,)}, r"amounts must be in \(0, 1\], got \(2.0,\)"),
        ({"speeds": (0.1,)}, "speeds must be between 0.5 and 2"),
    ],
)
def test_options_that_make_no_model_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        speech.Config(**change)
