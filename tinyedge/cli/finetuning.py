"""``tinyedge finetune``: a model file, tuned on the user's own data, one sample at a time, and written back."""

from __future__ import annotations

import argparse
import os
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import tinyedge
from tinyedge import adapt, optim
from tinyedge.autograd.modes import no_grad
from tinyedge.cli import datasets, models
from tinyedge.cli.datasets import CALL, Samples
from tinyedge.convert import GraphModel
from tinyedge.data import progress
from tinyedge.errors import ArgumentError, MissingPackageError
from tinyedge.nn import functional as F
from tinyedge.report.charts import new_figure
from tinyedge.report.text import memory_text
from tinyedge.tensor import Tensor

DESCRIPTION = """Tune a .tflite, .onnx or .pb model on your own data, on this device, and write a tuned file of the same
format. DATA is a folder of images with one folder for each class:

  flowers/daisy/1.jpg  flowers/daisy/2.jpg  flowers/rose/1.jpg  ...

or a .csv file (numbers, and a column called label; without a header the last column), or a .npz file (x and y). The
model gets a new last layer for these classes. It sees one sample at a time; gradients add up over --accumulate samples
to one update, so that the memory does not grow. A part of the data is held out, and the accuracy on it is shown after
each epoch. The original file is never changed."""

EXAMPLES = """examples:
  tinyedge finetune mobilenet.tflite flowers/
  tinyedge finetune mobilenet.tflite flowers/ --train last:3 --epochs 10 --lr 3e-4 --out flowers.tflite
  tinyedge finetune model.onnx digits.npz --train lora --budget 24MB --json
  tinyedge finetune kws.pb words.csv --inputs Mfcc --outputs labels_softmax --head keep

A .pb file takes no layer of another size: there the data must have as many classes as the file. What --train can be:
  """


READ_EVERY = 64
"""Losses are read after so many samples: seldom, so that nothing waits for the device, and before they are many."""


@dataclass
class Run:
    """What happened."""

    losses: list[float] = field(default_factory=list)
    accuracies: list[float] = field(default_factory=list)
    seconds: float = 0.0
    peak_bytes: int = 0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description, parser.epilog = DESCRIPTION, EXAMPLES + models.POLICY_HELP + "."
    models.add_model(parser)
    parser.add_argument("data", metavar="DATA", help="a folder of images, a .csv or a .npz file")
    parser.add_argument("--out", metavar="FILE", help="the tuned file (MODEL's name with -tuned, where you are)")
    parser.add_argument("--overwrite", action="store_true", help="replace --out if it is there")
    what = parser.add_argument_group("what is trained")
    what.add_argument(
        "--train", type=models.policy, default="head", metavar="WHAT", help="head, last:N, all, bias or lora (head)"
    )
    what.add_argument("--head", choices=("new", "keep"), default="new", help="a new last layer, or the file's (new)")
    what.add_argument("--budget", metavar="BYTES", help="train less if it takes more memory than this, say 24MB")
    how = parser.add_argument_group("how")
    how.add_argument("--epochs", type=models.count, default=5, help="passes over the data (5)")
    how.add_argument(
        "--lr", type=models.positive, default=1e-3, help="learning rate, which falls to 0 as a cosine (1e-3)"
    )
    how.add_argument(
        "--head-lr", type=models.positive, metavar="LR",
        help="that of the last layer (5 times --lr if it is new and other layers are trained too, otherwise --lr)",
    )  # fmt: skip
    how.add_argument("--accumulate", type=models.count, default=16, metavar="N", help="samples to one update (16)")
    how.add_argument("--optimizer", choices=("adam", "sgd"), default="adam", help="sgd has momentum 0.9 (adam)")
    how.add_argument(
        "--held-out", type=models.part, default=0.2, metavar="PART", help="of each class, to measure on (0.2)"
    )
    how.add_argument("--seed", type=int, default=0, help="of the split, the order, and new weights (0)")
    data = parser.add_argument_group("images: the model gets (pixel * scale - mean) / std")
    data.add_argument("--scale", type=float, help="for pixels from 0 to 255 (1/255)")
    data.add_argument("--mean", metavar="M[,M,M]", help="(0.5; for .onnx ImageNet's)")
    data.add_argument("--std", metavar="S[,S,S]", help="(0.5; for .onnx ImageNet's)")
    data.add_argument("--size", type=models.count, help="height and width, where the model takes any (224)")
    parser.add_argument("--curve", metavar="PNG", help="where the learning curve is drawn (beside --out)")
    parser.add_argument("--json", action="store_true", help="print JSON, for machines; all else goes to stderr")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Tune, save and report; the exit status."""
    out = _target(options)
    tinyedge.manual_seed(options.seed)
    model = models.loaded(options, dtype=tinyedge.float32)
    if not isinstance(model, GraphModel):
        raise ArgumentError(
            CALL, "a .tflite, .onnx or .pb file", f"got {options.model!r}",
            "Language models are tuned from Python, with te.adapt.lora.",
        )  # fmt: skip
    samples = _samples(options, model)
    train, held = samples.split(options.held_out, options.seed)
    _say(
        options,
        f"{len(samples)} samples of {len(samples.classes)} classes: {', '.join(samples.classes[:10])}"
        + (", ..." if len(samples.classes) > 10 else "")
        + f"; {len(train)} to train on, {len(held)} held out"
        + (f"; {samples.skipped} files that are no images left out" if samples.skipped else ""),
    )
    if samples.scaling is not None:
        _say(options, f"the model gets {samples.scaling} (--scale, --mean, --std)")
    logits = _with_head(options, model, samples)
    models.trained_by(logits, options.train, _head_of(logits))
    fit = _plan(options, logits, samples)
    _say(
        options,
        f"{fit.method if options.budget else options.train}: trains {fit.trained_elements:,} of {fit.elements:,} "
        f"parameters in {memory_text(fit.total_bytes)} of device memory (a step takes {memory_text(fit.step_bytes)})",
    )
    found = _train(options, logits, samples, train, held)
    if any(isinstance(module, adapt.LoraLayer) for module in logits.modules()):
        adapt.merge(logits)
        adapt.unload(logits)
    model.save(out, overwrite=options.overwrite)
    kept = _accuracy(_again(options, out), samples, held)
    _say(options, f"written: {out} ({memory_text(os.path.getsize(out))}); read again, its accuracy is {kept:.1%}")
    curve = _curve(options, found, samples, out)
    if options.json:
        models.print_json(
            {
                "model": options.model, "out": out, "classes": samples.classes, "train": options.train,
                "trained": fit.trained_elements, "parameters": fit.elements, "planned_bytes": fit.total_bytes,
                "peak_bytes": found.peak_bytes, "samples": len(train), "held_out": len(held),
                "accuracies": found.accuracies, "losses": found.losses, "saved_accuracy": kept,
                "ms_per_sample": 1000 * found.seconds / max(len(train) * options.epochs, 1),
                "scaling": None if samples.scaling is None else str(samples.scaling), "curve": curve,
            }
        )  # fmt: skip
    return 0


def _say(options: argparse.Namespace, text: str) -> None:
    print(text, file=sys.stderr if options.json else sys.stdout, flush=True)


def _target(options: argparse.Namespace) -> str:
    """Where the tuned file goes: not over what is there, and never over the original."""
    suffix = os.path.splitext(options.model)[1]
    out: str = options.out or f"{Path(options.model).stem}-tuned{suffix}"
    if os.path.splitext(out)[1].lower() != suffix.lower():
        raise ArgumentError(CALL, f"--out that ends in {suffix}, as MODEL does", f"got {out!r}")
    if os.path.lexists(out):
        if os.path.exists(options.model) and os.path.samefile(out, options.model):
            raise ArgumentError(CALL, "--out beside the original", "it is the same file", "Choose another name.")
        if not options.overwrite:
            raise ArgumentError(CALL, "a new name for --out", f"{out!r} is there", "Pass --overwrite to replace it.")
    folder = os.path.dirname(os.path.abspath(out))
    if not os.path.isdir(folder):
        raise ArgumentError(CALL, "--out in a folder that is there", f"there is no {folder!r}")
    return out


def _samples(options: argparse.Namespace, model: GraphModel) -> Samples:
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise ArgumentError(
            CALL, "a model with one input and one output", f"it has {len(model.inputs)} and {len(model.outputs)}",
            "Use it from Python: te.load_model(path), and model.cut(at=...).",
        )  # fmt: skip
    port = model.inputs[0]
    layout = datasets.layout_of(port, model.suffix, options.size)
    integers = port.dtype is not None and not port.dtype.is_floating_point
    scaling = None
    if layout is not None:
        scaling = datasets.scaling_of(layout, model.suffix, integers, options.scale, options.mean, options.std)
    samples = datasets.read(options.data, port, layout, scaling)
    if samples.scaling is None and (options.scale, options.mean, options.std) != (None, None, None):
        raise ArgumentError(
            CALL, "pixels (uint8) for --scale, --mean and --std", "these samples are numbers already",
            "Leave them out, and scale the numbers in the file.",
        )  # fmt: skip
    return samples


def _with_head(options: argparse.Namespace, model: GraphModel, samples: Samples) -> GraphModel:
    """The model up to its logits, with a last layer for the classes."""
    count = len(samples.classes)
    if options.head == "new":
        old = _classes_of(model)
        if model.suffix == ".pb" and old != count:
            raise ArgumentError(
                CALL, f"data of {old} classes, as a .pb file takes no new layer", f"got {count}",
                "Convert it with `tinyedge convert MODEL model.onnx`, and tune that.",
            )  # fmt: skip
        model.replace_head(count)
    logits = model.logits()
    logits.eval()
    with no_grad():
        found = _call(logits, samples, 0).flatten(1).shape[1]
    if options.head == "keep" and found != count:
        raise ArgumentError(
            CALL, f"data of {found} classes, as the model has", f"got {count}", "Leave --head keep out for a new layer."
        )
    if found != count:
        raise ArgumentError(
            CALL, "a model that gives one number for each class", f"it gives {found} for {count} classes",
            "Use it from Python: te.load_model(path), and model.cut(at=...).",
        )  # fmt: skip
    return logits


def _classes_of(model: GraphModel) -> int:
    """For how many classes the last layer is."""
    bias = [model.get_parameter(name) for name in model.head_parameters()]
    return min(param.numel() for param in bias) if len(bias) > 1 else _last_dim(model)


def _last_dim(model: GraphModel) -> int:
    dims = model.outputs[0].dims
    last = dims[-1] if dims else None
    return last if isinstance(last, int) else -1


def _head_of(model: GraphModel) -> list[str]:
    try:
        return model.head_parameters()
    except ArgumentError:
        return []


def _tensors(model: GraphModel, samples: Samples, number: int) -> tuple[Tensor, Tensor]:
    port = model.inputs[0]
    dtype = port.dtype or tinyedge.float32
    device = next(model.parameters()).backend
    x = tinyedge.tensor(samples.sample(number, dtype.computes.numpy), dtype=dtype, device=device)
    return x, tinyedge.tensor(samples.labels[number : number + 1], device=device)


def _call(model: GraphModel, samples: Samples, number: int) -> Tensor:
    result: Tensor = model(_tensors(model, samples, number)[0])
    return result


def _plan(options: argparse.Namespace, model: GraphModel, samples: Samples) -> adapt.Fit:
    x, y = _tensors(model, samples, 0)
    states = 2 if options.optimizer == "adam" else 1
    sample = [(x.shape, x.dtype), (y.shape, y.dtype)]
    budget = options.budget or models.UNLIMITED
    fit = models.fit_of(model, models.classification_loss, sample, states, budget)
    return fit.apply()


def _train(options: argparse.Namespace, model: GraphModel, samples: Samples, train: list[int], held: list[int]) -> Run:
    """One sample at a time."""
    groups = _groups(options, model)
    optimizer: optim.Optimizer
    if options.optimizer == "adam":
        optimizer = optim.Adam(groups, accumulate=options.accumulate)
    else:
        optimizer = optim.SGD(groups, momentum=0.9, accumulate=options.accumulate)
    schedule = optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=options.epochs)
    backend = next(model.parameters()).backend
    found = Run()

    @tinyedge.compile
    def train_sample(x: Tensor, y: Tensor) -> Tensor:
        loss = F.cross_entropy(model(x).flatten(1), y)
        loss.backward()
        return loss

    found.accuracies.append(_accuracy(model, samples, held))
    _say(options, f"before: {found.accuracies[0]:.1%} of the held-out samples are right")
    for epoch in range(options.epochs):
        losses: list[Tensor] = []
        values: list[float] = []
        backend.memory.reset_peak()
        started = time.perf_counter()
        numbers = list(datasets.batches(train, options.seed + 1 + epoch))
        for number in progress(numbers, desc=f"epoch {epoch + 1} of {options.epochs}"):
            losses.append(train_sample(*_tensors(model, samples, number)))
            optimizer.step()
            if len(losses) == READ_EVERY:
                values += [loss.item() for loss in losses]
                losses.clear()
        if epoch + 1 == options.epochs:
            optimizer.flush()
        schedule.step()
        backend.finish()
        found.seconds += time.perf_counter() - started
        found.peak_bytes = max(found.peak_bytes, backend.memory.peak_bytes)
        values += [loss.item() for loss in losses]
        if not np.isfinite(values).all():
            raise ArgumentError(
                CALL, "losses that are finite", f"one of epoch {epoch + 1} is not", "Pass a smaller --lr."
            )
        found.losses.append(float(np.mean(values)))
        found.accuracies.append(_accuracy(model, samples, held))
        _say(
            options, f"epoch {epoch + 1}: loss {found.losses[-1]:.4f}, {found.accuracies[-1]:.1%} of the held-out right"
        )
    count = max(len(train) * options.epochs, 1)
    _say(options, f"{1000 * found.seconds / count:.2f} ms a sample, {memory_text(found.peak_bytes)} of memory at most")
    return found


def _groups(options: argparse.Namespace, model: GraphModel) -> list[dict[str, Any]]:
    """What is trained, with its learning rates: a new last layer begins with random weights, and goes ahead."""
    names = set(_head_of(model))
    trained = [(name, param) for name, param in model.named_parameters() if param.requires_grad]
    head = [param for name, param in trained if name in names]
    others = [param for name, param in trained if name not in names]
    ahead = 5 * options.lr if options.head == "new" and others else options.lr
    found = [(others, options.lr), (head, options.head_lr or ahead)]
    return [{"params": params, "lr": lr} for params, lr in found if params]


def _accuracy(model: GraphModel, samples: Samples, numbers: list[int]) -> float:
    """The fraction of these samples that the model gets right."""
    predict = tinyedge.compile(lambda x: model(x).flatten(1).argmax(1))
    with no_grad():
        right = sum(int(predict(_tensors(model, samples, n)[0]).item()) == samples.labels[n] for n in numbers)
    return float(right / len(numbers))


def _again(options: argparse.Namespace, out: str) -> GraphModel:
    """The model of the file that was written."""
    model = models.loaded(options, out, tinyedge.float32)
    assert isinstance(model, GraphModel)
    return model


def _curve(options: argparse.Namespace, found: Run, samples: Samples, out: str) -> str | None:
    """Draw the held-out accuracy and the loss after each epoch; where, or None without matplotlib."""
    path: str = options.curve or f"{os.path.splitext(out)[0]}.png"
    try:
        figure = new_figure(f"{CALL} --curve", 7.0, 5.0)
    except MissingPackageError as error:
        _say(options, f"no curve is drawn: {error}")
        return None
    top, bottom = figure.subplots(2, 1, sharex=True)
    epochs = range(len(found.accuracies))
    top.plot(epochs, [100 * value for value in found.accuracies], marker="o", color="#1b6ca8")
    top.axhline(100 / len(samples.classes), color="#888888", linestyle=":", label="chance")
    top.set(ylabel="held-out accuracy (%)", ylim=(0, 105))
    top.set_title(f"{os.path.basename(options.model)}, --train {options.train}", loc="left")
    top.legend(loc="lower right", frameon=False)
    bottom.plot(list(epochs)[1:], found.losses, marker="o", color="#e08214")
    bottom.set(xlabel="epoch", ylabel="training loss (nats)", ylim=(0, None))
    for axes in (top, bottom):
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=130)
    _say(options, f"written: {path}")
    return path
