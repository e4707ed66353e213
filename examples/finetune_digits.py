"""Fine-tune a small network on the device that has the data.

In the data centre: a depthwise-separable CNN learns the handwritten digits 0-4, and is saved.
On the device:      the network is loaded, gets a new head, and learns the digits 5-9 from one sample at a time.
                    All but its last block and head stay frozen; gradients add up over 32 samples to one update.

    python examples/finetune_digits.py                      # the best OpenCL device
    python examples/finetune_digits.py --backend numpy      # the reference, for comparison

The 1,797 digits ship inside scikit-learn; nothing is downloaded. Writes pretrained.safetensors,
finetuned.safetensors and learning_curve.png into the output folder.
"""

import argparse
import time
from pathlib import Path

import numpy as np

import tinyedge as te
from tinyedge import nn, optim
from tinyedge.data import DataLoader, TensorDataset, progress, random_split
from tinyedge.nn import functional as F

MINIBATCH = 32  # samples to one update


class DepthwiseSeparable(nn.Sequential):
    """A 3 x 3 convolution of each channel by itself, then a 1 x 1 convolution that mixes the channels."""

    def __init__(self, in_channels, out_channels, stride=1):
        super().__init__(
            nn.Conv2d(in_channels, in_channels, 3, stride, padding=1, groups=in_channels, bias=False),
            nn.BatchNorm2d(in_channels),
            nn.ReLU6(),
            nn.Conv2d(in_channels, out_channels, 1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU6(),
        )


class DigitsNet(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.features = nn.Sequential(
            nn.Sequential(nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU6()),  # 16 x 8 x 8
            DepthwiseSeparable(16, 32),  # 32 x 8 x 8
            DepthwiseSeparable(32, 64, stride=2),  # 64 x 4 x 4
            DepthwiseSeparable(64, 128),  # 128 x 4 x 4
        )
        self.classifier = nn.Linear(128 * 4 * 4, num_classes)

    def forward(self, x):
        return self.classifier(self.features(x).flatten(1))


def digits_of(digits, classes):
    """The samples of five classes, with labels from 0, as a part to train on and a held-out fifth: always the same."""
    images, labels = digits.subset(np.isin(digits.arrays[1], classes)).arrays
    return random_split(TensorDataset(images, labels - classes[0]), [0.8, 0.2], seed=0)


def accuracy(model, dataset):
    """The fraction of ``dataset`` that the model gets right."""
    was_training = model.training
    model.eval()
    with te.no_grad():
        right = sum((model(x).argmax(1) == y).sum().item() for x, y in DataLoader(dataset, batch_size=256))
    model.train(was_training)
    return right / len(dataset)


def pretrain(model, train, epochs, seed):
    """Ordinary training in minibatches, as in a data centre."""
    optimizer = optim.AdamW(model.parameters(), lr=5e-3)
    loader = DataLoader(train, batch_size=MINIBATCH, shuffle=True, seed=seed)
    schedule = optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=epochs)
    for _ in progress(range(epochs), desc="pretrain on 0-4, epochs"):
        for x, y in loader:
            optimizer.zero_grad()
            F.cross_entropy(model(x), y, label_smoothing=0.1).backward()
            optimizer.step()
        schedule.step()


def finetune(model, train, held_out, epochs, seed):
    """One sample at a time, as on a device. Returns what was measured on the way."""
    trained = [param for param in model.parameters() if param.requires_grad]
    optimizer = optim.SGD(trained, lr=0.03, momentum=0.9, accumulate=MINIBATCH)
    schedule = optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=epochs)
    loader = DataLoader(train, batch_size=1, shuffle=True, seed=seed)
    backend = te.get_backend()

    @te.compile  # optional: the first call records, later calls replay what the device was told to do
    def train_sample(x, y):
        loss = F.cross_entropy(model(x), y, label_smoothing=0.1)
        loss.backward()  # adds to the gradients that are there
        return loss

    losses, accuracies, seconds, peak_bytes = [], [accuracy(model, held_out)], 0.0, 0
    for epoch in range(epochs):
        epoch_losses = []
        backend.memory.reset_peak()
        started = time.perf_counter()
        for x, y in progress(loader, desc=f"fine-tune on 5-9, epoch {epoch + 1} of {epochs}"):
            epoch_losses.append(train_sample(x, y))  # read later, so that nothing waits for the device here
            optimizer.step()  # counts: every 32nd call updates by the mean, and clears the gradients
        if epoch + 1 == epochs:
            optimizer.flush()  # minibatches go on from epoch to epoch; the last one is shorter
        schedule.step()
        backend.finish()  # the device may still be at work
        seconds += time.perf_counter() - started
        peak_bytes = max(peak_bytes, backend.memory.peak_bytes)
        losses += [loss.item() for loss in epoch_losses]
        accuracies.append(accuracy(model, held_out))
    return losses, accuracies, seconds, peak_bytes


def plot(losses, accuracies, title, path):
    """Accuracy after each epoch, and the training loss, over the samples seen."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    percent = 100 * np.array(accuracies)
    seen = np.linspace(0, len(losses), len(accuracies))
    figure, (top, bottom) = pyplot.subplots(2, 1, sharex=True, figsize=(7, 6), layout="constrained")
    top.plot(seen, percent, marker="o", color="tab:blue")
    top.axhline(20, color="gray", linestyle=":")
    top.text(seen[-1], 21, "chance", color="gray", ha="right", va="bottom")
    top.annotate(f"before: {percent[0]:.1f} %", (seen[0], percent[0]), (8, -4), textcoords="offset points", va="top")
    top.annotate(
        f"after: {percent[-1]:.1f} %",
        (seen[-1], percent[-1]),
        (0, -10),
        textcoords="offset points",
        ha="right",
        va="top",
    )
    top.set(title=title, ylabel="accuracy on held-out 5-9 (%)", ylim=(0, 105))
    updates = np.array_split(losses, max(len(losses) // MINIBATCH, 1))
    bottom.plot(
        np.cumsum([len(part) for part in updates]),
        [part.mean() for part in updates],
        color="tab:orange",
        label=f"mean of {MINIBATCH} samples",
    )
    bottom.set(xlabel="samples seen, one at a time", ylabel="training loss (nats, labels smoothed)", ylim=(0, None))
    bottom.legend()
    for axes in (top, bottom):
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=150)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", help="numpy, opencl or opencl:N (default: the best usable device)")
    parser.add_argument("--output", type=Path, default=Path("out"), help="folder for what is written (default: ./out)")
    parser.add_argument("--epochs", type=int, default=6, help="passes over the data, in each of the two parts")
    parser.add_argument(
        "--seed", type=int, default=0, help="of the first weights and of the samples' order; one seed gives one result"
    )
    options = parser.parse_args()

    if options.backend:
        te.set_default_backend(options.backend)
    backend = te.get_backend()
    print(f"device: {backend.name}, {backend.description}")
    te.manual_seed(options.seed)
    options.output.mkdir(parents=True, exist_ok=True)
    digits = te.data.digits()

    # In the data centre
    train, held_out = digits_of(digits, range(5))
    model = DigitsNet(num_classes=5)
    pretrain(model, train, options.epochs, options.seed)
    print(f"accuracy on held-out digits 0-4: {accuracy(model, held_out):.1%}")
    te.save(model.state_dict(), options.output / "pretrained.safetensors")

    # On the device
    train, held_out = digits_of(digits, range(5, 10))
    model = DigitsNet(num_classes=5)
    model.load_state_dict(te.load(options.output / "pretrained.safetensors"))
    model.classifier = nn.Linear(128 * 4 * 4, 5)
    model.freeze(except_=["features.3", "classifier"])  # every batch norm keeps its statistics, in these two also
    losses, accuracies, seconds, peak_bytes = finetune(model, train, held_out, options.epochs, options.seed)
    te.save(model.state_dict(), options.output / "finetuned.safetensors")

    print(f"accuracy on held-out digits 5-9: {accuracies[0]:.1%} before, {accuracies[-1]:.1%} after")
    print(f"time: {1000 * seconds / len(losses):.2f} ms a sample (forward, backward, update)")
    print(f"memory: {peak_bytes / 1024:.0f} KiB of device memory at the peak of training")
    title = f"Fine-tuning on {len(train)} digits 5-9, {options.epochs} epochs, {backend.name}"
    plot(losses, accuracies, title, options.output / "learning_curve.png")
    print(f"written to {options.output}: pretrained.safetensors, finetuned.safetensors, learning_curve.png")


if __name__ == "__main__":
    main()
