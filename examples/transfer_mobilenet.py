"""Transfer learning with a real MobileNet: which layers to train, by what it costs.

    python examples/transfer_mobilenet.py mobilenet.tflite                       # the digits of scikit-learn
    python examples/transfer_mobilenet.py mobilenet.onnx --images flowers/       # flowers/daisy/1.jpg, ...

A trained MobileNet (.tflite, .onnx or .pb) gets a new last layer, and is tuned on a small set of images in five ways,
each time from its original weights: everything; the last block; the biases and the last layer (BitFit); adapters of low
rank (LoRA) and the last layer; the last layer alone. One sample at a time, gradients added up over 16.

So that none has an advantage, each way is tried at the same learning rates, on three quarters of the training images;
the rate that does best on the last quarter is taken for a run on all of them, and the accuracy on the test images is
asked once, after that. The table shows it, the time a sample, and the most device memory that was in use; two pictures
are drawn into the output folder: the learning curves with the memory, and what the best one says about some images.

It needs: pip install "tinyedge[import,images,demo]".
"""

import argparse
import gc
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from image_data import read_images, split

import tinyedge as te
from tinyedge import optim
from tinyedge.nn import functional as F

ACCUMULATE = 16
HEAD_TIMES = 10
"""The new last layer begins with random weights, and learns at so many times the rate of the others."""


@dataclass
class Result:
    policy: str
    rate: float
    trained: int
    accuracies: list
    ms: float
    peak_bytes: int
    answers: np.ndarray


def everything(model, head, options):
    for parameter in model.parameters():
        parameter.requires_grad_(True)


def last_block(model, head, options):
    te.adapt.last(model, options.block)


def biases(model, head, options):
    te.adapt.bias_only(model)
    train_too(head)


def adapters(model, head, options):
    names = te.adapt.adaptable(model)
    modules = dict(model.named_modules())
    layers = [name for name in names if all(modules[name].weight is not parameter for parameter in head)]
    te.adapt.lora(model, rank=options.rank, alpha=2 * options.rank, targets=layers)
    train_too(head)


def head_alone(model, head, options):
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    train_too(head)


def train_too(head):
    for parameter in head:
        parameter.requires_grad_(True)


POLICIES = {
    "all": everything, "last block": last_block, "bias only": biases, "LoRA": adapters, "head": head_alone,
}  # fmt: skip
"""What is trained."""


def load(options, classes):
    """The model with a new last layer, without its softmax, and the parameters of that layer."""
    te.manual_seed(0)
    model = te.load_model(options.model)
    model.replace_head(classes)
    logits = model.logits()
    return logits, [logits.get_parameter(name) for name in logits.head_parameters()]


def answers(model, samples, numbers):
    """The class that the model gives to each of these samples."""
    predict = te.compile(lambda x: model(x).flatten(1).argmax(1))
    with te.no_grad():
        return np.array([predict(te.tensor(samples[n][None])).item() for n in numbers])


def tune(policy, rate, options, samples, labels, train, asked, classes, each_epoch=True):
    """Train by one policy, from the file's weights; the accuracy on the images ``asked``, after each epoch or once."""
    gc.collect()  # what the run before left shall not count
    model, head = load(options, classes)
    POLICIES[policy](model, head, options)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    others = [parameter for parameter in trained if all(parameter is not own for own in head)]
    groups = [{"params": head, "lr": HEAD_TIMES * rate}, *([{"params": others, "lr": rate}] if others else [])]
    optimizer = optim.AdamW(groups, accumulate=ACCUMULATE)
    schedule = optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=options.epochs)
    backend = te.get_backend()

    @te.compile
    def train_sample(x, y):
        loss = F.cross_entropy(model(x).flatten(1), y)
        loss.backward()
        return loss

    def one(n):
        train_sample(te.tensor(samples[n][None]), te.tensor(labels[n : n + 1]))

    with te.no_grad():
        before = [parameter.detach().numpy().copy() for parameter in trained]
    one(train[0])  # the first calls record and build: that is not what is measured
    one(train[0])
    optimizer.zero_grad()
    assert all((a == b.detach().numpy()).all() for a, b in zip(before, trained))
    accuracies, seconds, peak_bytes = [], 0.0, 0
    if each_epoch:
        accuracies.append(float(np.mean(answers(model, samples, asked) == labels[asked])))
    random = np.random.default_rng(0)
    for epoch in range(options.epochs):
        backend.memory.reset_peak()
        started = time.perf_counter()
        for n in te.data.progress(
            random.permutation(train), desc=f"{policy}, {rate:g}, epoch {epoch + 1} of {options.epochs}"
        ):
            one(n)
            optimizer.step()
        if epoch + 1 == options.epochs:
            optimizer.flush()
        schedule.step()
        backend.finish()
        seconds += time.perf_counter() - started
        peak_bytes = max(peak_bytes, backend.memory.peak_bytes)
        if each_epoch or epoch + 1 == options.epochs:
            found = answers(model, samples, asked)
            accuracies.append(float(np.mean(found == labels[asked])))
    count = sum(parameter.numel() for parameter in trained)
    ms = 1000 * seconds / (len(train) * options.epochs)
    return Result(policy, rate, count, accuracies, ms, peak_bytes, found)


def tuned(policy, options, samples, labels, train, test, classes):
    """The best run on three quarters of the training images, and one at its rate on all of them, asked once."""
    inner, validation = split(labels[train], held_out=0.25, seed=1)
    tries = [
        tune(policy, rate, options, samples, labels, train[inner], train[validation], classes) for rate in options.rates
    ]
    best = max(tries, key=lambda result: result.accuracies[-1])
    return best, tune(policy, best.rate, options, samples, labels, train, test, classes, each_epoch=False)


def draw(tries, results, images, labels, test, names, output):
    """The curves and the memory; and some images with what the best model says."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 4), layout="constrained")
    for best, result in zip(tries, results):
        left.plot([100 * a for a in best.accuracies], marker="o", label=f"{best.policy}, at {best.rate:g}")
        label = f"{result.policy}: {result.peak_bytes / 1e6:.1f} MB, {result.ms:.1f} ms a sample"
        right.scatter(result.peak_bytes / 1e6, 100 * result.accuracies[-1], s=90, label=label)
    left.set(xlabel="epoch", ylabel="accuracy on validation images (%)", ylim=(0, 105))
    left.legend()
    right.set(xlabel="device memory at the peak (MB)", ylabel="accuracy on test images (%)", ylim=(0, 105))
    right.legend(loc="best")
    right.set_xlim(left=0)
    left.xaxis.get_major_locator().set_params(integer=True)
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.margins(x=0.15)
    figure.savefig(output / "transfer.png", dpi=130)

    best = max(results, key=lambda result: result.accuracies[-1])
    figure, grid = pyplot.subplots(3, 8, figsize=(11, 4.8), layout="constrained")
    order = np.random.default_rng(0).permutation(len(test))
    for axes in grid.flat:
        axes.set_axis_off()
    for axes, k in zip(grid.flat, order):
        axes.imshow(images[test[k]].squeeze(), cmap="gray")
        right_one = best.answers[k] == labels[test[k]]
        axes.set_title(names[best.answers[k]], color="black" if right_one else "crimson", fontsize=9)
    figure.suptitle(f"what the model says after training: {best.policy} (wrong in red)")
    figure.savefig(output / "transfer_images.png", dpi=130)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="a MobileNet as .tflite, .onnx or .pb")
    parser.add_argument("--images", type=Path, help="a folder of images, one folder for each class (default: digits)")
    parser.add_argument("--most", type=int, default=40, help="images of each class that are used at most")
    parser.add_argument("--policies", nargs="+", choices=list(POLICIES), default=list(POLICIES), metavar="POLICY")
    parser.add_argument("--block", type=int, default=4, help="how many layers the last block has, with the last layer")
    parser.add_argument("--rank", type=int, default=4, help="of the adapters")
    parser.add_argument("--epochs", type=int, default=3, help="passes over the training images, in each run")
    parser.add_argument("--rates", type=float, nargs="+", default=[1e-4, 1e-3, 3e-3], help="learning rates to try")
    parser.add_argument("--output", type=Path, default=Path("out"), help="folder for the pictures (default: ./out)")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)

    te.manual_seed(0)
    dims = te.load_model(options.model).inputs[0].dims
    first = dims[1] in (1, 3)  # of ONNX's images the channels come first
    channels, height, width = dims[1:] if first else (dims[3], *dims[1:3])
    images, labels, names = read_images(options.images, height, width, channels)
    train, test = split(labels, most=options.most)
    used = np.concatenate([train, test])
    images, labels = images[used], labels[used]
    train, test = np.arange(len(train)), np.arange(len(train), len(used))
    samples = images.astype(np.float32) / np.float32(127.5) - 1  # MobileNets take numbers from -1 to 1
    samples = np.ascontiguousarray(samples.transpose(0, 3, 1, 2)) if first else samples
    print(f"{options.model.name} on {te.get_backend().description}")
    rates = ", ".join(f"{rate:g}" for rate in options.rates)
    print(f"{len(train)} images of {len(names)} classes to train on, {len(test)} to test; {options.epochs} epochs")
    print(f"rates tried: {rates}; the new last layer learns {HEAD_TIMES} times as fast\n")

    found = [tuned(policy, options, samples, labels, train, test, len(names)) for policy in options.policies]
    tries, results = zip(*found)
    heads = ("what is trained", "parameters", "rate", "validation", "test", "ms a sample", "peak MB")
    print("{:16} {:>10} {:>7} {:>10} {:>7} {:>12} {:>8}".format(*heads))
    for best, r in found:
        print(
            f"{r.policy:16} {r.trained:10,} {r.rate:7g} {best.accuracies[-1]:10.1%} {r.accuracies[-1]:7.1%} "
            f"{r.ms:12.2f} {r.peak_bytes / 1e6:8.2f}"
        )
    draw(tries, results, images, labels, test, names, options.output)
    print(f"\nwritten to {options.output}: transfer.png, transfer_images.png")


if __name__ == "__main__":
    main()
