"""Handwritten digits, without a download."""

from __future__ import annotations

import gzip
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from tinyedge.data.dataset import TensorDataset


def digits() -> TensorDataset:
    """The 1,797 handwritten digits that ship inside scikit-learn.

    Shapes: images (1797, 1, 8, 8) float32; labels (1797,) int64.
    Units:  pixels from 0 (paper) to 1 (ink).
    Errors: ImportError without scikit-learn.
    Source: Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository (1998).
    """
    values = _values()
    images = (values[:, :64] / 16).astype(np.float32).reshape(-1, 1, 8, 8)
    return TensorDataset(images, values[:, 64].astype(np.int64))


def _values() -> Any:
    """A row for each digit: 64 pixels and the label.

    They are read from scikit-learn's folder, since its import takes a second, which counts where each message of
    federated learning starts a process.
    """
    try:
        found = find_spec("sklearn")
    except ValueError:  # there is a module of that name without a spec
        found = None
    for folder in (found.submodule_search_locations if found is not None else None) or ():
        path = Path(folder) / "datasets" / "data" / "digits.csv.gz"
        if path.is_file():
            with gzip.open(path, "rt", encoding="ascii") as file:
                return np.loadtxt(file, delimiter=",")
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError('te.data.digits needs scikit-learn. Install it: pip install "tinyedge[demo]"') from error
    source = load_digits()
    return np.column_stack([source.data, source.target])
