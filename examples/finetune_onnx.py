"""Tune a real ONNX file on images of your own with LoRA, and run the tuned ONNX file with ONNX Runtime.

    python examples/finetune_onnx.py model.onnx                        # the digits of scikit-learn
    python examples/finetune_onnx.py model.onnx --images flowers/      # flowers/daisy/1.jpg, flowers/rose/1.jpg

The file gets a new last layer for your classes. Its convolutions stay frozen, and each gets an adapter of low rank; the
adapters and the last layer are trained, one sample at a time. Then the adapters are put into the weights, so that the
tuned file has the nodes of the original, and costs what it did. At the end ONNX Runtime runs it on the held-out images,
where it is installed (pip install onnxruntime).

It needs: pip install "tinyedge[import,images,demo]". The model: any .onnx file of a float network that has images as
its input, channels first, and gives one number for each class.
"""

import argparse
from pathlib import Path

import numpy as np
from image_data import read_images, split

import tinyedge as te
from tinyedge import optim
from tinyedge.nn import functional as F

IMAGENET = (
    np.float32([0.485, 0.456, 0.406]),
    np.float32([0.229, 0.224, 0.225]),
)  # mean and deviation of PyTorch's models


def tune(model, samples, labels, numbers, epochs, lr, accumulate=16, seed=0):
    """Train what requires gradients, one sample at a time. Returns the mean loss of each epoch."""
    optimizer = optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=lr, accumulate=accumulate)
    schedule = optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=epochs)

    @te.compile
    def train_sample(x, y):
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        return loss

    random = np.random.default_rng(seed)
    means = []
    for epoch in range(epochs):
        total = te.zeros(())
        for n in te.data.progress(random.permutation(numbers), desc=f"epoch {epoch + 1} of {epochs}"):
            total = total + train_sample(te.tensor(samples[n][None]), te.tensor(labels[n : n + 1]))
            optimizer.step()
        schedule.step()
        means.append(total.item() / len(numbers))
    optimizer.flush()
    return means


def accuracy(model, samples, labels, numbers):
    """The fraction of these samples that the model gets right."""
    predict = te.compile(lambda x: model(x).argmax(1))
    with te.no_grad():
        return float(np.mean([predict(te.tensor(samples[n][None])).item() == labels[n] for n in numbers]))


def accuracy_in_onnxruntime(path, samples, labels, numbers):
    """The same, as ONNX Runtime runs the file; None where it is not installed."""
    try:
        import onnxruntime
    except ImportError:
        return None
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return float(np.mean([session.run(None, {name: samples[n][None]})[0].argmax() == labels[n] for n in numbers]))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="an .onnx file")
    parser.add_argument("--images", type=Path, help="a folder of images, one folder for each class (default: digits)")
    parser.add_argument("--most", type=int, default=60, help="images of each class that are used at most")
    parser.add_argument("--rank", type=int, default=4, help="of the adapters")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--output", type=Path, default=Path("out"), help="folder for the tuned file (default: ./out)")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    te.manual_seed(0)

    model = te.load_model(options.model)
    _, channels, height, width = model.inputs[0].dims
    images, labels, names = read_images(options.images, height, width, channels)
    train, held_out = split(labels, most=options.most)
    used = np.concatenate([train, held_out])
    images, labels = images[used].astype(np.float32) / 255, labels[used]
    train, held_out = np.arange(len(train)), np.arange(len(train), len(used))
    if channels == 3:
        images = (images - IMAGENET[0]) / IMAGENET[1]
    samples = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
    print(f"{len(train)} images of {len(names)} classes to train on, {len(held_out)} held out")

    model.replace_head(len(names))
    logits = model.logits()  # the model without a last softmax, if it has one
    head = [logits.get_parameter(name) for name in logits.head_parameters()]
    names_of_layers = te.adapt.adaptable(logits)  # the products, and the convolutions of one group
    modules = dict(logits.named_modules())
    layers = [name for name in names_of_layers if all(modules[name].weight is not parameter for parameter in head)]
    te.adapt.lora(logits, rank=options.rank, alpha=2 * options.rank, targets=layers)
    for parameter in head:
        parameter.requires_grad_(True)
    count = sum(parameter.numel() for parameter in logits.parameters() if parameter.requires_grad)
    print(f"{count} parameters are trained: adapters of {len(layers)} layers, and the last layer")

    before = accuracy(logits, samples, labels, held_out)
    losses = tune(logits, samples, labels, train, options.epochs, options.lr)
    te.adapt.merge(logits)  # into the weights, which are the model's too
    te.adapt.unload(logits)
    after = accuracy(logits, samples, labels, held_out)
    print(f"mean loss of each epoch: {', '.join(f'{loss:.3f}' for loss in losses)}")
    print(f"accuracy on held-out images: {before:.1%} before, {after:.1%} after")

    path = options.output / f"{options.model.stem}-tuned.onnx"
    model.save(path, overwrite=True)
    there = accuracy_in_onnxruntime(path, samples, labels, held_out)
    print(f"written: {path}")
    if there is None:
        print("ONNX Runtime is not installed: pip install onnxruntime")
    else:
        print(f"accuracy of the tuned file in ONNX Runtime: {there:.1%}")
        assert abs(there - after) < 0.02, "ONNX Runtime and tinyedge differ"


if __name__ == "__main__":
    main()
