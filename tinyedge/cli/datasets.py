"""The data of ``tinyedge finetune``: a folder of images, a .csv or a .npz file, as samples for a model's input."""

from __future__ import annotations

import csv
import errno
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tinyedge.convert.nodes import Port
from tinyedge.data import progress
from tinyedge.errors import ArgumentError, MissingPackageError

Array = npt.NDArray[Any]
CALL = "tinyedge finetune"
PAIRS = (("x", "y"), ("x_train", "y_train"), ("images", "labels"), ("data", "target"), ("features", "labels"))
"""Names in .npz files, of samples and of labels."""

LABELS = ("label", "class", "target", "y")
"""Names of a .csv file's column of labels; without one it is the last column."""

MODES = {1: "L", 3: "RGB", 4: "RGBA"}
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@dataclass(frozen=True)
class Layout:
    """How images lie in the model's input; None for an input that is none of images."""

    height: int
    width: int
    channels: int
    first: bool

    @property
    def shape(self) -> tuple[int, ...]:
        size = (self.height, self.width)
        return (self.channels, *size) if self.first else (*size, self.channels)


@dataclass(frozen=True)
class Scaling:
    """``(pixel * scale - mean) / std``, for each channel."""

    scale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __str__(self) -> str:
        def numbers(values: tuple[float, ...]) -> str:
            return ",".join(f"{value:g}" for value in dict.fromkeys(values)) if values else "0"

        return f"(pixel * {self.scale:.6g} - {numbers(self.mean)}) / {numbers(self.std)}"

    def applied(self, pixels: Array) -> Array:
        """Of an image with its channels last."""
        mean, std = (np.array(values, np.float32) for values in (self.mean, self.std))
        result: Array = (pixels.astype(np.float32) * np.float32(self.scale) - mean) / std
        return result


@dataclass
class Samples:
    """Samples and labels. Images are kept as pixels, channels last, and scaled when they are used."""

    values: Array
    labels: npt.NDArray[np.int64]
    classes: list[str]
    layout: Layout | None
    scaling: Scaling | None
    skipped: int = 0

    def __len__(self) -> int:
        return len(self.labels)

    def sample(self, number: int, dtype: Any) -> Array:
        """One sample, as a batch of one."""
        value = self.values[number]
        if self.scaling is not None:
            value = self.scaling.applied(value)
        if self.layout is not None and self.layout.first:
            value = np.moveaxis(value, -1, 0)
        return np.ascontiguousarray(value[None]).astype(dtype)

    def split(self, held_out: float, seed: int) -> tuple[list[int], list[int]]:
        """The numbers of the samples to train on, and of those held out: the same part of each class.

        Errors: ArgumentError if a class has fewer than two samples.
        """
        generator = np.random.default_rng(seed)
        train: list[int] = []
        held: list[int] = []
        for number, name in enumerate(self.classes):
            members = np.flatnonzero(self.labels == number)
            if len(members) < 2:
                raise ArgumentError(
                    CALL, "two samples or more of each class", f"{name!r} has {len(members)}", "Add some."
                )
            generator.shuffle(members)
            count = min(max(round(held_out * len(members)), 1), len(members) - 1)
            held += members[:count].tolist()
            train += members[count:].tolist()
        return train, held


def layout_of(port: Port, suffix: str, size: int | None) -> Layout | None:
    """How images lie in an input: by its dims, or as files of this kind have them. None if it is not of rank 4."""
    dims = port.dims
    if dims is None or len(dims) != 4:
        return None
    last, first = (isinstance(d, int) and d in MODES for d in (dims[3], dims[1]))
    is_first = first if first != last else suffix == ".onnx"
    channels = dims[1] if is_first else dims[3]
    sizes = dims[2:] if is_first else dims[1:3]
    height, width = (d if isinstance(d, int) else size or 224 for d in sizes)
    return Layout(height, width, channels if isinstance(channels, int) else 3, is_first)


def scaling_of(
    layout: Layout, suffix: str, integers: bool, scale: float | None, mean: str | None, std: str | None
) -> Scaling:
    """What the command line says, and where it says nothing what models of this kind usually take: TFLite's and
    TensorFlow's numbers from -1 to 1, ONNX's ImageNet's mean and deviation, or from 0 to 1 in one channel.
    """
    if integers:
        own: tuple[float, Any, Any] = (1.0, (0.0,), (1.0,))
    elif suffix != ".onnx":
        own = (1 / 255, (0.5,), (0.5,))
    else:
        own = (1 / 255, *(IMAGENET if layout.channels == 3 else ((0.0,), (1.0,))))
    given = own[0] if scale is None else scale
    means, deviations = (
        _numbers(name, text, layout.channels) if text is not None else default
        for name, text, default in (("--mean", mean, own[1]), ("--std", std, own[2]))
    )
    if any(value == 0 for value in deviations):
        raise ArgumentError(CALL, "--std without 0", f"got {std!r}")
    return Scaling(given, means, deviations)


def _numbers(option: str, text: str, channels: int) -> tuple[float, ...]:
    try:
        found = tuple(float(part) for part in text.split(","))
    except ValueError:
        found = ()
    if len(found) not in (1, channels):
        raise ArgumentError(CALL, f"{option} of one number, or {channels} with commas", f"got {text!r}")
    return found


def read(path: str, port: Port, layout: Layout | None, scaling: Scaling | None) -> Samples:
    """The samples of a folder, a .csv or a .npz file. Errors: ArgumentError, naming the place."""
    if not os.path.exists(path):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
    if os.path.isdir(path):
        if layout is None or scaling is None:
            raise ArgumentError(CALL, "a model whose input is images, for a folder of images", f"its input is {port}")
        return _folder(path, layout, scaling)
    if path.lower().endswith(".npz"):
        return _npz(path, port, layout, scaling)
    if path.lower().endswith(".csv"):
        return _csv(path, port)
    raise ArgumentError(CALL, "DATA that is a folder of images, a .csv or a .npz file", f"got {path!r}")


def pillow() -> Any:
    """Errors: MissingPackageError without Pillow."""
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        raise MissingPackageError(
            CALL, "Pillow reads images", "it is not installed", 'Install it: pip install "tinyedge[images]".'
        ) from error
    return Image, ImageOps


def _folder(path: str, layout: Layout, scaling: Scaling) -> Samples:
    image, image_ops = pillow()
    classes = sorted(entry.name for entry in os.scandir(path) if entry.is_dir() and not entry.name.startswith("."))
    if len(classes) < 2:
        raise ArgumentError(CALL, f"a folder of images for each class in {path!r}", f"there are {len(classes)}")
    known = tuple(image.registered_extensions())
    files, skipped = [], 0
    for number, name in enumerate(classes):
        for entry in sorted(os.scandir(os.path.join(path, name)), key=lambda entry: entry.name):
            if entry.is_file() and entry.name.lower().endswith(known):
                files.append((entry.path, number))
            else:
                skipped += 1
    values = np.empty((len(files), layout.height, layout.width, layout.channels), np.uint8)
    for place, (file, _) in enumerate(progress(files, desc="reading images")):
        try:
            with image.open(file) as opened:
                values[place] = _fitted(image, image_ops, opened, layout)
        except (OSError, ValueError, SyntaxError, image.DecompressionBombError) as error:
            raise ArgumentError(CALL, f"an image in {file!r}", f"it cannot be read: {error}", "Remove it.") from error
    labels = np.array([label for _, label in files], np.int64)
    return Samples(values, labels, classes, layout, scaling, skipped)


def _fitted(image: Any, image_ops: Any, opened: Any, layout: Layout) -> Array:
    """The middle of an image in the size of the model's input."""
    turned = image_ops.exif_transpose(opened).convert(MODES[layout.channels])
    fitted = image_ops.fit(turned, (layout.width, layout.height), image.Resampling.BILINEAR)
    return np.asarray(fitted).reshape(layout.height, layout.width, layout.channels)


def _npz(path: str, port: Port, layout: Layout | None, scaling: Scaling | None) -> Samples:
    try:
        with np.load(path, allow_pickle=False) as file:
            pair = next((pair for pair in PAIRS if all(name in file for name in pair)), None)
            if pair is None:
                expected = " or ".join(f"{x!r} and {y!r}" for x, y in PAIRS[:3])
                raise ArgumentError(CALL, f"arrays called {expected} in {path!r}", f"there are {', '.join(file)}")
            values, labels = file[pair[0]], file[pair[1]]
    except (ValueError, OSError, EOFError) as error:
        if isinstance(error, (ArgumentError, FileNotFoundError)):
            raise
        raise ArgumentError(CALL, f"a .npz file in {path!r}", str(error)) from error
    if values.ndim < 2 or labels.shape != (len(values),):
        raise ArgumentError(CALL, "one label for each sample", f"got {values.shape} and {labels.shape}")
    numbers, classes = _classes(labels.tolist())
    if layout is not None and scaling is not None and values.dtype == np.uint8:
        return Samples(_images(values, layout), numbers, classes, layout, scaling)
    return Samples(_shaped(values, port), numbers, classes, None, None)


def _images(values: Array, layout: Layout) -> Array:
    """Arrays of pixels as images of the model's size, channels last."""
    if values.ndim == 3:
        values = values[..., None]
    if values.ndim != 4:
        raise ArgumentError(CALL, "images of shape (samples, height, width, channels)", f"got {values.shape}")
    if values.shape[3] not in MODES and values.shape[1] in MODES:
        values = np.moveaxis(values, 1, -1)
    if values.shape[3] == 1 and layout.channels > 1:
        values = np.repeat(values, layout.channels, axis=3)
    if values.shape[3] != layout.channels:
        raise ArgumentError(CALL, f"images of {layout.channels} channels", f"got {values.shape}")
    if values.shape[1:3] == (layout.height, layout.width):
        return values
    image, image_ops = pillow()
    result = np.empty((len(values), layout.height, layout.width, layout.channels), np.uint8)
    for place, pixels in enumerate(progress(values, desc="resizing images")):
        opened = image.fromarray(pixels[..., 0] if layout.channels == 1 else pixels)
        result[place] = _fitted(image, image_ops, opened, layout)
    return result


def _shaped(values: Array, port: Port) -> Array:
    """Numbers in the shape of the model's input."""
    dims = port.dims
    if dims is None:
        return values
    fixed = [d for d in dims[1:] if isinstance(d, int)]
    given = values.shape[1:]
    fits = len(given) == len(dims) - 1 and all(not isinstance(d, int) or d == n for d, n in zip(dims[1:], given))
    if fits:
        return values
    if len(fixed) == len(dims) - 1 and int(np.prod(fixed)) == int(np.prod(given)):
        return values.reshape(len(values), *fixed)
    raise ArgumentError(CALL, f"samples for the input {port}", f"each has the shape {given}")


def _csv(path: str, port: Port) -> Samples:
    with open(path, newline="", encoding="utf-8") as file:
        rows = [row for row in csv.reader(file) if row]
    if not rows:
        raise ArgumentError(CALL, f"rows of numbers and a label in {path!r}", "it is empty")
    column = len(rows[0]) - 1
    header = _is_header(rows[0])
    if header:
        names = [name.strip().lower() for name in rows[0]]
        column = next((names.index(name) for name in LABELS if name in names), column)
    lines = rows[1:] if header else rows
    labels: list[str] = []
    values: list[list[float]] = []
    for number, row in enumerate(lines, start=2 if header else 1):
        if len(row) != len(rows[0]):
            raise ArgumentError(CALL, f"{len(rows[0])} columns in {path!r}", f"row {number} has {len(row)}")
        labels.append(row[column].strip())
        try:
            values.append([float(cell) for place, cell in enumerate(row) if place != column])
        except ValueError as error:
            raise ArgumentError(CALL, f"numbers in {path!r}", f"row {number}: {error}") from error
    found = np.array(values, np.float32)
    if not np.isfinite(found).all():
        raise ArgumentError(CALL, f"finite numbers in {path!r}", "some are not")
    numbers, classes = _classes(labels)
    return Samples(_shaped(found, port), numbers, classes, None, None)


def _is_header(row: Sequence[str]) -> bool:
    """Whether no cell but one, perhaps, is a number."""
    return sum(_is_number(cell) for cell in row) <= (1 if len(row) > 2 else 0) and not all(map(_is_number, row))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _classes(labels: Sequence[Any]) -> tuple[npt.NDArray[np.int64], list[str]]:
    """Labels as numbers from 0, and the names of the classes: numbers in their order, words in the alphabet's."""
    distinct = set(labels)
    if len(distinct) < 2:
        raise ArgumentError(CALL, "two classes or more", f"got {len(distinct)}")
    if all(_is_number(str(label)) for label in distinct):
        ordered = sorted(distinct, key=lambda label: float(label))
    else:
        ordered = sorted(distinct, key=str)
    places = {label: place for place, label in enumerate(ordered)}
    return np.array([places[label] for label in labels], np.int64), [str(label) for label in ordered]


def batches(numbers: Sequence[int], seed: int) -> Iterator[int]:
    """The numbers in another order for each seed."""
    yield from np.random.default_rng(seed).permutation(np.asarray(numbers, np.int64)).tolist()
