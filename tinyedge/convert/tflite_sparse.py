"""TFLite's sparse tensors: which elements the file holds, level by level of its dims, blocks of them inside."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np

from tinyedge.convert.checks import MAX_DIMS
from tinyedge.convert.graph import Array

SPARSE_CSR = 1
VECTORS = {1: ("Int32Vector", "<i4"), 2: ("Uint16Vector", "<u2"), 3: ("Uint8Vector", "u1")}


def dense_places(
    package: Any, sparsity: Any, shape: tuple[int, ...], content: int, refuse: Callable[[str], NoReturn]
) -> Array:
    """Where each stored element lies in the flat dense tensor, in the file's order. ``content``: the file's bytes."""
    rank, levels = len(shape), sparsity.TraversalOrderLength()
    blocks = levels - rank
    if not rank <= levels <= 2 * rank or rank > MAX_DIMS or sparsity.DimMetadataLength() != levels:
        refuse(f"{levels} levels for {rank} dims")
    order = [int(sparsity.TraversalOrder(n)) for n in range(levels)]
    if sorted(order) != list(range(levels)) or sparsity.BlockMapLength() != blocks:
        refuse(f"the order {order} of its levels")
    owners = [int(sparsity.BlockMap(n)) for n in range(blocks)]
    if len(set(owners)) != blocks or any(not 0 <= owner < rank for owner in owners):
        refuse(f"blocks of the dims {owners}")
    sizes = _sizes(sparsity, shape, order, owners, refuse)
    total = math.prod(shape)
    coordinates: list[Array] = [np.zeros(1, np.int64) for _ in range(levels)]
    parents = 1
    for level, dim in enumerate(order):
        meta = sparsity.DimMetadata(level)
        if meta.Format() == SPARSE_CSR:
            segments = _vector(package, meta.ArraySegmentsType(), meta.ArraySegments(), content, refuse)
            indices = _vector(package, meta.ArrayIndicesType(), meta.ArrayIndices(), content, refuse)
            counts = np.diff(segments)
            good = len(segments) == parents + 1 and segments[0] == 0 and segments[-1] == len(indices)
            if not good or (counts < 0).any() or len(indices) > total:
                refuse(f"the segments of its level {level}")
            if len(indices) and not (indices.min() >= 0 and indices.max() < sizes[dim]):
                refuse(f"an index of its level {level}")
            here, repeats = indices, counts
        else:
            if parents * sizes[dim] > total:
                refuse("more elements than its shape has")
            here, repeats = np.tile(np.arange(sizes[dim]), parents), np.full(parents, sizes[dim])
        coordinates = [np.repeat(values, repeats) for values in coordinates]
        coordinates[dim] = here
        parents = len(here)
    for number, owner in enumerate(owners):
        coordinates[owner] = coordinates[owner] * sizes[rank + number] + coordinates[rank + number]
    flat = np.zeros(parents, np.int64)
    for dim, size in enumerate(shape):
        flat = flat * size + coordinates[dim]
    if len(np.unique(flat)) != len(flat):
        refuse("an element that stands there twice")
    return flat


def _sizes(
    sparsity: Any, shape: tuple[int, ...], order: list[int], owners: list[int], refuse: Callable[[str], NoReturn]
) -> list[int]:
    """The length of each level's dim: of the tensor's dims, counted in blocks, and of the blocks' own."""
    sizes = [*shape, *(0 for _ in owners)]
    for level, dim in enumerate(order):
        if dim >= len(shape):
            meta = sparsity.DimMetadata(level)
            size, owner = int(meta.DenseSize()), owners[dim - len(shape)]
            if meta.Format() == SPARSE_CSR or size < 1 or shape[owner] % size:
                refuse(f"blocks of {size} in a dim of {shape[owner]}")
            sizes[dim], sizes[owner] = size, shape[owner] // size
    for level, dim in enumerate(order):
        meta = sparsity.DimMetadata(level)
        if meta.Format() != SPARSE_CSR and meta.DenseSize() != sizes[dim]:
            refuse(f"the length {meta.DenseSize()} of its level {level}")
    return sizes


def _vector(package: Any, kind: int, table: Any, content: int, refuse: Callable[[str], NoReturn]) -> Array:
    if kind not in VECTORS or table is None:
        refuse("a list of indices of an unknown kind")
    name, stored = VECTORS[kind]
    vector = getattr(package, name)()
    vector.Init(table.Bytes, table.Pos)
    length, width = vector.ValuesLength(), np.dtype(stored).itemsize
    start = vector._tab.Vector(vector._tab.Offset(4)) if length else 0
    if not 0 <= start <= start + length * width <= content:
        refuse("a list of indices that lies outside the file")
    return np.frombuffer(bytes(table.Bytes[start : start + length * width]), stored).astype(np.int64)


__all__ = ["dense_places"]
