# Written by tools/stubs.py: run make stubs.

from tinyedge.ops.series import linalg_vander as vander
from tinyedge.ops.statistics import vector_norm as vector_norm

__all__ = [
    "vander",
    "vector_norm",
]
