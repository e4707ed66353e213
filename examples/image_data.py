"""Images for the examples: a folder of the user's own, one folder for each class, or the digits of scikit-learn."""

from pathlib import Path

import numpy as np

import tinyedge as te


def read_images(folder, height, width, channels=3):
    """Images as pixels from 0 to 255, their labels, and the names of the classes.

    Shapes: images (samples, height, width, channels) uint8; labels (samples,) int64.
    """
    from PIL import Image, ImageOps

    mode = {1: "L", 3: "RGB"}[channels]
    if folder is None:
        values, labels = te.data.digits().arrays
        pictures = [Image.fromarray((255 * value[0]).astype(np.uint8)) for value in values]
        names = [str(digit) for digit in range(10)]
    else:
        names = sorted(entry.name for entry in Path(folder).iterdir() if entry.is_dir())
        known = tuple(Image.registered_extensions())
        paths = [(path, label) for label, name in enumerate(names) for path in sorted((Path(folder) / name).iterdir())]
        paths = [(path, label) for path, label in paths if path.suffix.lower() in known]
        pictures, labels = [Image.open(path) for path, _ in paths], np.array([label for _, label in paths], np.int64)
    fitted = [ImageOps.fit(ImageOps.exif_transpose(p).convert(mode), (width, height)) for p in pictures]
    return np.stack([np.asarray(image).reshape(height, width, channels) for image in fitted]), labels, names


def split(labels, held_out=0.2, most=None, seed=0):
    """The numbers of the samples to train on, and of those held out: the same part of each class, always the same.

    ``most``: of each class at most so many, so that it is a small set, as a user has.
    """
    random = np.random.default_rng(seed)
    train, held = [], []
    for label in np.unique(labels):
        members = random.permutation(np.flatnonzero(labels == label))[:most]
        count = max(round(held_out * len(members)), 1)
        held.extend(members[:count])
        train.extend(members[count:])
    return np.array(train), np.array(held)
