"""A keyword spotter learns a new word from five recordings; does it forget the others?

    pip install "tinyedge[cpu,demo,import]"
    python examples/personalize_keyword.py DS_CNN_S.pb            # from ARM-software/ML-KWS-for-MCU, Pretrained_models
    python examples/personalize_keyword.py DS_CNN_S.pb --recordings FOLDER --new WORD

The model is ARM's DS-CNN, trained on Google's Speech Commands: MFCCs of a second of sound go in. First its head and
last block learn the old words. Then a new word comes, a few recordings of it, one at a time, in two ways: with the new
recordings alone, and with rehearsal, where each update also takes old recordings from a ``te.adapt.ReplayBuffer`` that
is bounded in bytes. Curves of the accuracy on the new word and on the old ones, on recordings that were not trained on,
go to keyword.png.

FOLDER has a folder for each word, with .wav files of 16 kHz, mono, 16 bits, as Speech Commands has them. Without it no
real speech is used: words are synthesised by a formula, as vowels with formants and consonants of noise, by speakers of
random pitch, size and speed, in noise.
"""

from __future__ import annotations

import argparse
import copy
import wave
from pathlib import Path

import numpy as np

import tinyedge as te
import tinyedge.nn.functional as F
from tinyedge import nn, optim

RATE = 16000
WORDS = {"sea": "s i", "moo": "m u", "shoe": "S u", "ace": "e s", "toe": "t o", "mama": "m a m a", "sofa": "s o S a"}
VOWELS = {"a": (730, 1090, 2440), "e": (530, 1840, 2480), "i": (270, 2290, 3010), "o": (570, 840, 2410),
          "u": (300, 870, 2240), "m": (250, 1100, 2300)}  # fmt: skip
NOISES = {"s": (3500, 7500), "S": (1800, 4000), "t": (2500, 6000)}  # lowest and highest frequency of a hiss, in Hz


def phone(name: str, seconds: float, pitch: float, size: float, random: np.random.Generator) -> np.ndarray:
    """A vowel, the sum of the pitch's harmonics, louder near the formants; or a hiss."""
    count = int(RATE * seconds)
    at = np.arange(count) / RATE
    if name in NOISES:
        low, high = NOISES[name]
        spectrum = np.fft.rfft(random.standard_normal(count))
        frequencies = np.fft.rfftfreq(count, 1 / RATE)
        sound = np.fft.irfft(spectrum * ((frequencies > low * size) & (frequencies < high * size)), count)
        sound = 0.3 * sound / max(np.abs(sound).max(), 1e-9)
    else:
        harmonics = np.arange(pitch, 5000, pitch)
        strengths = sum(
            1 / (1 + ((harmonics - size * peak) / 90) ** 2) / (1 + k) for k, peak in enumerate(VOWELS[name])
        )
        phases = 2 * np.pi * harmonics[:, None] * (at + 0.002 * np.sin(2 * np.pi * 5 * at))
        sound = (strengths[:, None] * np.sin(phases)).sum(0)
        sound = (0.3 if name == "m" else 1.0) * sound / np.abs(sound).max()
    return sound * np.minimum(1, np.minimum(np.arange(count), np.arange(count)[::-1]) / (0.01 * RATE))


def spoken(word: str, random: np.random.Generator) -> np.ndarray:
    """A second of sound in which a random speaker says the word."""
    pitch, size = random.uniform(90, 230), random.uniform(0.88, 1.15)
    parts = []
    for name in WORDS[word].split():
        seconds = random.uniform(0.05, 0.08) if name in "tm" else random.uniform(0.12, 0.25)
        parts.append(phone(name, seconds, pitch * random.uniform(0.95, 1.05), size, random))
    said = np.concatenate(parts)[:RATE]
    sound = random.normal(0, random.uniform(0.001, 0.02), RATE)
    start = random.integers(0, RATE - len(said) + 1)
    sound[start : start + len(said)] += said * random.uniform(0.2, 0.7)
    return sound


def recorded(path: Path) -> np.ndarray:
    with wave.open(str(path)) as file:
        if (file.getframerate(), file.getnchannels(), file.getsampwidth()) != (RATE, 1, 2):
            raise SystemExit(f"{path}: expected 16 kHz, mono, 16 bits")
        sound = np.frombuffer(file.readframes(RATE), np.int16) / 32768
    return np.pad(sound, (0, RATE - len(sound)))


def mfcc(sound: np.ndarray) -> np.ndarray:
    """Mel-frequency cepstral coefficients, (1, 49, 10), as TensorFlow's ops AudioSpectrogram and Mfcc compute them."""
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(640) / 640)
    frames = np.lib.stride_tricks.sliding_window_view(sound, 640)[::320] * window
    spectrum = np.abs(np.fft.rfft(frames, 1024))
    bins = 1127 * np.log1p(np.fft.rfftfreq(1024, 1 / RATE) / 700)
    centres = np.linspace(1127 * np.log1p(20 / 700), 1127 * np.log1p(4000 / 700), 42)
    width = centres[1] - centres[0]
    filters = np.maximum(0, 1 - np.abs(bins[:, None] - centres[1:-1]) / width)
    filters[0] = 0
    energies = np.log(np.maximum(spectrum @ filters, 1e-12))
    angles = np.pi / 40 * np.arange(10)[:, None] * (np.arange(40) + 0.5)
    return (np.sqrt(2 / 40) * energies @ np.cos(angles).T)[None].astype(np.float32)


def samples_of(sounds: list[np.ndarray], label: int) -> list[tuple[te.Tensor, te.Tensor]]:
    return [(te.tensor(mfcc(sound)), te.tensor([label])) for sound in sounds]


def accuracy(model: nn.Module, samples: list[tuple[te.Tensor, te.Tensor]]) -> float:
    with te.no_grad():
        return float(np.mean([model(x).reshape(1, -1).argmax(1).item() == y.item() for x, y in samples]))


def loss_of(model: nn.Module, x: te.Tensor, y: te.Tensor) -> te.Tensor:
    return F.cross_entropy(model(x).reshape(1, -1), y)


def stepper(model: nn.Module) -> object:
    @te.compile
    def step(x: te.Tensor, y: te.Tensor) -> te.Tensor:
        loss = loss_of(model, x, y)
        loss.backward()
        return loss

    return step


def trained_of(model: nn.Module) -> list:
    return [param for param in model.parameters() if param.requires_grad]


def learn_old(model: nn.Module, samples: list, epochs: int) -> None:
    optimizer = optim.Adam(trained_of(model), lr=3e-3, accumulate=8)
    step = stepper(model)
    random = np.random.default_rng(0)
    for _ in range(epochs):
        for k in random.permutation(len(samples)):
            step(*samples[k])
            optimizer.step()
    optimizer.flush()


def learn_new(model: nn.Module, new: list, old: list, tests: tuple[list, list], given: argparse.Namespace) -> list:
    """Accuracy on the new word and on the old ones, as (update, new, old); ``old`` is what may be rehearsed."""
    buffer = te.adapt.ReplayBuffer("64kB", seed=0)
    for sample in old:
        buffer.add(*sample)
    optimizer = optim.SGD(trained_of(model), lr=given.lr, accumulate=1 + given.rehearse if old else 1)
    step = stepper(model)
    curve = [(0, *(accuracy(model, test) for test in tests))]
    for number in range(1, given.steps + 1):
        step(*new[number % len(new)])
        optimizer.step()
        for _ in range(given.rehearse if old else 0):
            step(*buffer.take())
            optimizer.step()
        if number % max(1, given.steps // 15) == 0 or number == given.steps:
            curve.append((number, *(accuracy(model, test) for test in tests)))
    return curve


def draw(path: Path, curves: dict[str, list], word: str) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.5), sharey=True)
    for name, curve in curves.items():
        updates, new, old = zip(*curve)
        axes[0].plot(updates, new, marker=".", label=name)
        axes[1].plot(updates, old, marker=".", label=name)
    for place, title in zip(axes, (f"the new word, {word!r}", "the old words")):
        place.set(title=title, xlabel="updates", ylim=(-0.03, 1.03))
        place.grid(alpha=0.3)
    axes[0].set_ylabel("accuracy")
    axes[1].legend()
    figure.tight_layout()
    figure.savefig(path, dpi=80)
    pyplot.close(figure)


def main(arguments: list[str] | None = None) -> dict[str, list]:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", type=Path, help="DS_CNN_S.pb")
    parser.add_argument("--recordings", type=Path, help="a folder for each word, with .wav files")
    parser.add_argument("--new", help="the new word")
    parser.add_argument("--shots", type=int, default=5, help="recordings of the new word")
    parser.add_argument("--each", type=int, default=40, help="recordings of each old word, to train on and to test")
    parser.add_argument("--epochs", type=int, default=8, help="of learning the old words")
    parser.add_argument("--steps", type=int, default=100, help="updates for the new word")
    parser.add_argument("--rehearse", type=int, default=3, help="old recordings to a new one")
    parser.add_argument("--lr", type=float, default=0.01)
    parser.add_argument("--output", type=Path, default=Path("out"), help="folder for keyword.png (default: ./out)")
    given = parser.parse_args(arguments)

    random = np.random.default_rng(0)
    if given.recordings is None:
        sounds = {word: [spoken(word, random) for _ in range(2 * given.each)] for word in WORDS}
        print("words are synthesised; --recordings takes real ones")
    else:
        files = {folder.name: sorted(folder.glob("*.wav")) for folder in sorted(given.recordings.iterdir())}
        sounds = {word: [recorded(path) for path in paths[: 2 * given.each]] for word, paths in files.items() if paths}
    word = given.new or list(sounds)[-1]
    if word not in sounds or len(sounds) < 3:
        raise SystemExit(f"expected three words or more, and --new one of them; there are {', '.join(sounds)}")
    old_words = [name for name in sounds if name != word]
    old, old_tests, half = [], [], given.each
    for label, name in enumerate(old_words):
        old += samples_of(sounds[name][:half], label)
        old_tests += samples_of(sounds[name][half:], label)
    new = samples_of(sounds[word][: given.shots], len(old_words))
    tests = samples_of(sounds[word][half:], len(old_words)), old_tests

    model = te.convert.from_tensorflow(given.model, inputs=["Mfcc"], outputs=["MobileNet/fc1/BiasAdd"])
    te.manual_seed(0)
    model.replace_head(len(sounds)).eval()
    model.freeze(except_=["MobileNet/conv_ds_4", "MobileNet/fc1"])
    learn_old(model, old, given.epochs)
    print(f"{len(old_words)} old words: {accuracy(model, old_tests):.1%} of {len(old_tests)} recordings are right")

    curves = {}
    for name, rehearsed in (("new recordings alone", []), ("with rehearsal", old)):
        curves[name] = learn_new(copy.deepcopy(model), new, rehearsed, tests, given)
        first, last = curves[name][0], curves[name][-1]
        print(f"{name:22} {word!r}: {first[1]:.1%} to {last[1]:.1%}; old words: {first[2]:.1%} to {last[2]:.1%}")
    given.output.mkdir(parents=True, exist_ok=True)
    draw(given.output / "keyword.png", curves, word)
    print(f"wrote {given.output / 'keyword.png'}")
    return curves


if __name__ == "__main__":
    main()
