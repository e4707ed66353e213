"""Handwritten digits, without a download."""

from __future__ import annotations

import numpy as np

from tinyedge.data.dataset import TensorDataset


def digits() -> TensorDataset:
    """The 1,797 handwritten digits that ship inside scikit-learn.

    Shapes: images (1797, 1, 8, 8) float32; labels (1797,) int64.
    Units:  pixels from 0 (paper) to 1 (ink).
    Errors: ImportError without scikit-learn.
    Source: Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository (1998).
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError('te.data.digits needs scikit-learn. Install it: pip install "tinyedge[demo]"') from error
    source = load_digits()
    images = (source.images / 16).astype(np.float32)[:, np.newaxis]
    return TensorDataset(images, source.target.astype(np.int64))
