"""Tune a real .tflite file on images of your own, and run the tuned .tflite file with LiteRT.

    python examples/finetune_tflite.py mobilenet.tflite                        # the digits of scikit-learn
    python examples/finetune_tflite.py mobilenet.tflite --images flowers/      # flowers/daisy/1.jpg, flowers/rose/1.jpg

The file gets a new last layer for your classes, and its last layers are trained, one sample at a time; gradients add up
over 16 samples to one update. Everything else in the file stays byte for byte as it is. At the end LiteRT runs the
tuned file on the held-out images, where it is installed (pip install ai-edge-litert).

It needs: pip install "tinyedge[import,images,demo]". The model: any .tflite file of a float network that has images as
its input and gives one number for each class.
"""

import argparse
from pathlib import Path

import numpy as np
from image_data import read_images, split

import tinyedge as te
from tinyedge import optim
from tinyedge.nn import functional as F


def tune(model, samples, labels, numbers, epochs, lr, accumulate=16, seed=0):
    """Train what requires gradients, one sample at a time; the new last layer, which begins with random weights, in
    larger steps.
    """
    names = model.head_parameters()
    head = [model.get_parameter(name) for name in names]
    others = [p for name, p in model.named_parameters() if p.requires_grad and name not in names]
    groups = [{"params": head, "lr": 5 * lr}, *([{"params": others, "lr": lr}] if others else [])]
    optimizer = optim.AdamW(groups, accumulate=accumulate)
    schedule = optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=epochs)

    @te.compile
    def train_sample(x, y):
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        return loss

    random = np.random.default_rng(seed)
    for epoch in range(epochs):
        for n in te.data.progress(random.permutation(numbers), desc=f"epoch {epoch + 1} of {epochs}"):
            train_sample(te.tensor(samples[n][None]), te.tensor(labels[n : n + 1]))
            optimizer.step()  # every 16th call updates by the mean gradient
        schedule.step()
    optimizer.flush()


def accuracy(model, samples, labels, numbers):
    """The fraction of these samples that the model gets right."""
    predict = te.compile(lambda x: model(x).argmax(1))
    with te.no_grad():
        right = [predict(te.tensor(samples[n][None])).item() == labels[n] for n in numbers]
    return float(np.mean(right))


def accuracy_in_litert(path, samples, labels, numbers):
    """The same, as LiteRT runs the file; None where it is not installed."""
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        return None
    interpreter = Interpreter(str(path), num_threads=1)
    source = interpreter.get_input_details()[0]["index"]
    result = interpreter.get_output_details()[0]["index"]
    interpreter.resize_tensor_input(source, samples[:1].shape)
    interpreter.allocate_tensors()
    right = []
    for n in numbers:
        interpreter.set_tensor(source, samples[n][None])
        interpreter.invoke()
        right.append(interpreter.get_tensor(result)[0].argmax() == labels[n])
    return float(np.mean(right))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="a .tflite file")
    parser.add_argument("--images", type=Path, help="a folder of images, one folder for each class (default: digits)")
    parser.add_argument("--most", type=int, default=60, help="images of each class that are used at most")
    parser.add_argument("--layers", type=int, default=5, help="how many of the last layers are trained")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument(
        "--pixels", choices=("-1..1", "0..1", "0..255"), default="-1..1", help="what the model was made for"
    )
    parser.add_argument("--output", type=Path, default=Path("out"), help="folder for the tuned file (default: ./out)")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    te.manual_seed(0)

    model = te.load_model(options.model)
    _, height, width, channels = model.inputs[0].dims  # TFLite's images have their channels last
    images, labels, names = read_images(options.images, height, width, channels)
    scale, shift = {"-1..1": (2 / 255, -1), "0..1": (1 / 255, 0), "0..255": (1, 0)}[options.pixels]
    train, held_out = split(labels, most=options.most)
    used = np.concatenate([train, held_out])
    images, labels = images[used], labels[used]
    train, held_out = np.arange(len(train)), np.arange(len(train), len(used))
    samples = images.astype(np.float32) * np.float32(scale) + np.float32(shift)
    print(f"{len(train)} images of {len(names)} classes to train on, {len(held_out)} held out")

    model.replace_head(len(names))
    logits = model.logits()  # the model without its last softmax: cross entropy has one of its own
    te.adapt.last(logits, options.layers)
    print(te.plan_for(logits, lambda m, x, y: F.cross_entropy(m(x), y),
                      (samples[:1].shape, ((1,), te.int64)), budget="4GB", optimizer=2))  # fmt: skip
    before = accuracy(logits, samples, labels, held_out)
    tune(logits, samples, labels, train, options.epochs, options.lr)
    after = accuracy(logits, samples, labels, held_out)
    print(f"accuracy on held-out images: {before:.1%} before, {after:.1%} after")

    path = options.output / f"{options.model.stem}-tuned.tflite"
    model.save(path, overwrite=True)
    there = accuracy_in_litert(path, samples, labels, held_out)
    print(f"written: {path}")
    if there is None:
        print("LiteRT is not installed: pip install ai-edge-litert")
    else:
        print(f"accuracy of the tuned file in LiteRT: {there:.1%}")
        assert abs(there - after) < 0.02, "LiteRT and tinyedge differ"


if __name__ == "__main__":
    main()
