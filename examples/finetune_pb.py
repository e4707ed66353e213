"""Tune a real frozen TensorFlow graph, a keyword spotter, on new sounds, and run the tuned .pb with TensorFlow.

    python examples/finetune_pb.py DS_CNN_S.pb                      # whistles, which are made here
    python examples/finetune_pb.py DS_CNN_S.pb --sounds words/      # words/on/1.wav, words/off/1.wav: 16 kHz, mono

The file is one of ARM's keyword spotters (github.com/ARM-software/ML-KWS-for-MCU, Pretrained_models/DS_CNN): its graph
begins with a WAV file, whose spectrum tinyedge does not compute, so that the part from the spectrum's cepstral
coefficients ("Mfcc") to the labels is loaded, and NumPy computes the coefficients. A .pb takes no last layer of another
size: the new sounds take the places of the file's first words. The last layers are trained, one sound at a time, and
the tuned file is the original but for their weights. At the end TensorFlow runs it, where it is installed.

It needs: pip install "tinyedge[import,demo]".
"""

import argparse
import wave
from pathlib import Path

import numpy as np

import tinyedge as te
from tinyedge import optim
from tinyedge.nn import functional as F

RATE = 16_000  # samples a second, for one second
WINDOW, HOP = 640, 640 // 2  # 40 ms, every 20 ms: 49 windows
MELS, COEFFICIENTS = 40, 10
INPUT, OUTPUT = "Mfcc", "labels_softmax"


def cepstra(sound):
    """The coefficients of a second of sound, as TensorFlow's Mfcc computes them.

    Shapes: sound (16000,) float32 from -1 to 1; returns (49, 10) float32.
    """
    size = 1 << (WINDOW - 1).bit_length()
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW)
    windows = np.lib.stride_tricks.sliding_window_view(sound, WINDOW)[::HOP] * hann
    power = np.abs(np.fft.rfft(windows, size)) ** 2
    edges = np.linspace(mel(20.0), mel(4000.0), MELS + 2)
    places = mel(np.arange(size // 2 + 1) * RATE / size)
    rising = (places[:, None] - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - places[:, None]) / (edges[2:] - edges[1:-1])
    weights = np.clip(np.minimum(rising, falling), 0, None)
    energy = np.log(np.maximum(np.sqrt(power) @ weights, 1e-12))
    cosines = np.cos(np.pi / MELS * np.outer(np.arange(COEFFICIENTS), np.arange(MELS) + 0.5)) * np.sqrt(2 / MELS)
    return (energy @ cosines.T).astype(np.float32)


def mel(frequency):
    return 1127.0 * np.log1p(np.asarray(frequency) / 700.0)


def whistles(count, seed=0):
    """Four kinds of whistles in noise, ``count`` of each: rising, falling, two tones, trill."""
    random = np.random.default_rng(seed)
    time = np.arange(RATE) / RATE
    sounds, labels = [], []
    for kind in range(4):
        for _ in range(count):
            base, begin, length = random.uniform(500, 1500), random.uniform(0.05, 0.3), random.uniform(0.4, 0.6)
            inside = np.clip((time - begin) / length, 0, 1)
            bend = (inside, 1 - inside, (inside > 0.5) * 1.0, 0.5 + 0.5 * np.sign(np.sin(2 * np.pi * 8 * inside)))[kind]
            phase = 2 * np.pi * np.cumsum(base * (1 + bend)) / RATE
            loud = random.uniform(0.2, 0.8) * ((time >= begin) & (time <= begin + length))
            sounds.append(loud * np.sin(phase) + random.normal(0, random.uniform(0.01, 0.05), RATE))
            labels.append(kind)
    return np.float32(sounds), np.array(labels), ["rising", "falling", "two tones", "trill"]


def read_sounds(folder):
    """The .wav files of a folder, one folder for each class: their first second."""
    names = sorted(entry.name for entry in folder.iterdir() if entry.is_dir())
    sounds, labels = [], []
    for label, name in enumerate(names):
        for path in sorted((folder / name).glob("*.wav")):
            with wave.open(str(path)) as file:
                if (file.getframerate(), file.getnchannels(), file.getsampwidth()) != (RATE, 1, 2):
                    raise SystemExit(f"{path}: 16 kHz, mono, 16 bits are needed")
                values = np.frombuffer(file.readframes(RATE), "<i2").astype(np.float32) / 2**15
            sounds.append(np.pad(values, (0, RATE - len(values))))
            labels.append(label)
    return np.float32(sounds), np.array(labels), names


def accuracy(model, samples, labels, numbers):
    """The fraction of these samples that the model gets right."""
    predict = te.compile(lambda x: model(x).argmax(1))
    with te.no_grad():
        return float(np.mean([predict(te.tensor(samples[n][None])).item() == labels[n] for n in numbers]))


def accuracy_in_tensorflow(path, samples, labels, numbers):
    """The same, as TensorFlow runs the file; None where it is not installed. Its graph takes the coefficients too."""
    try:
        import tensorflow
    except ImportError:
        return None
    graph, definition = tensorflow.Graph(), tensorflow.compat.v1.GraphDef()
    definition.ParseFromString(path.read_bytes())
    with graph.as_default(), tensorflow.compat.v1.Session() as session:
        tensorflow.import_graph_def(definition, name="")
        found = [session.run(f"{OUTPUT}:0", {f"{INPUT}:0": samples[n][None]}) for n in numbers]
    return float(np.mean([y.argmax() == labels[n] for y, n in zip(found, numbers)]))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="a frozen keyword spotter, such as DS_CNN_S.pb")
    parser.add_argument("--sounds", type=Path, help="a folder of .wav files, one folder for each class")
    parser.add_argument("--count", type=int, default=40, help="how many whistles of each kind are made")
    parser.add_argument("--layers", type=int, default=5, help="how many of the last layers are trained")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--output", type=Path, default=Path("out"), help="folder for the tuned file (default: ./out)")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    te.manual_seed(0)

    sounds, labels, names = whistles(options.count) if options.sounds is None else read_sounds(options.sounds)
    samples = np.stack([cepstra(sound) for sound in sounds])
    numbers = np.random.default_rng(0).permutation(len(samples))
    held_out, train = numbers[: len(numbers) // 5], numbers[len(numbers) // 5 :]
    print(f"{len(train)} sounds of {len(names)} kinds to train on, {len(held_out)} held out")

    model = te.convert.from_tensorflow(options.model, inputs=[INPUT], outputs=[OUTPUT])
    logits = model.logits()  # the model without its softmax: cross entropy has one of its own
    te.adapt.last(logits, options.layers)
    optimizer = optim.AdamW([p for p in logits.parameters() if p.requires_grad], lr=options.lr, accumulate=8)

    @te.compile
    def train_sample(x, y):
        loss = F.cross_entropy(logits(x), y)
        loss.backward()
        return loss

    before = accuracy(logits, samples, labels, held_out)
    random = np.random.default_rng(0)
    for epoch in range(options.epochs):
        for n in te.data.progress(random.permutation(train), desc=f"epoch {epoch + 1} of {options.epochs}"):
            train_sample(te.tensor(samples[n][None]), te.tensor(labels[n : n + 1]))
            optimizer.step()  # every 8th call updates by the mean gradient
    optimizer.flush()
    after = accuracy(logits, samples, labels, held_out)
    print(f"accuracy on held-out sounds: {before:.1%} before, {after:.1%} after")

    path = options.output / f"{options.model.stem}-tuned.pb"
    model.save(path, overwrite=True)
    again = te.convert.from_tensorflow(path, inputs=[INPUT], outputs=[OUTPUT])
    print(f"written: {path}; read again, its accuracy is {accuracy(again, samples, labels, held_out):.1%}")
    there = accuracy_in_tensorflow(path, samples, labels, held_out)
    if there is None:
        print("TensorFlow is not installed: pip install tensorflow-cpu")
    else:
        print(f"accuracy of the tuned file in TensorFlow: {there:.1%}")
        assert abs(there - after) < 0.02, "TensorFlow and tinyedge differ"


if __name__ == "__main__":
    main()
