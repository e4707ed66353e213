"""Small frozen TensorFlow graphs for tests: written with the message classes that read them."""

from __future__ import annotations

from typing import Any

import numpy as np

KINDS = {"float32": 1, "float64": 2, "int32": 3, "uint8": 4, "int16": 5, "int8": 6, "int64": 9, "bool": 10,
         "float16": 19}  # fmt: skip
NUMBERS = {1: "float_val", 2: "double_val", 9: "int64_val", 10: "bool_val", 19: "half_val"}


class Graph:
    """Nodes in the order in which they are added."""

    def __init__(self) -> None:
        from tensorboard.compat.proto import graph_pb2

        self.proto = graph_pb2.GraphDef()

    def node(self, op: str, name: str, inputs: list[str] = [], **attributes: Any) -> str:  # noqa: B006  it is read only
        """A node; strings, booleans, numbers and tuples of integers are attributes as they are."""
        node = self.proto.node.add(op=op, name=name, input=inputs)
        for key, value in attributes.items():
            entry = node.attr[key]
            if isinstance(value, np.dtype):
                entry.type = KINDS[value.name]
            elif isinstance(value, bool):
                entry.b = value
            elif isinstance(value, str):
                entry.s = value.encode()
            elif isinstance(value, float):
                entry.f = value
            elif isinstance(value, int):
                entry.i = value
            elif value and isinstance(value[0], str):
                entry.list.s.extend(text.encode() for text in value)
            else:
                entry.list.i.extend(value)
        return name

    def placeholder(self, name: str, dims: tuple[int, ...] | None, kind: str = "float32") -> str:
        self.node("Placeholder", name, dtype=np.dtype(kind))
        shape = self.proto.node[-1].attr["shape"].shape
        shape.unknown_rank = dims is None
        for size in dims or ():
            shape.dim.add(size=size)
        return name

    def const(self, name: str, array: Any, numbers: int = -1, kind: int = 0) -> str:
        """A constant; with ``numbers`` so many of them stand one by one, and the last one stands for the rest."""
        array = np.asarray(array)
        self.node("Const", name)
        tensor = self.proto.node[-1].attr["value"].tensor
        tensor.dtype = kind or KINDS[array.dtype.name]
        for size in array.shape:
            tensor.tensor_shape.dim.add(size=size)
        if numbers < 0:
            tensor.tensor_content = array.tobytes()
            return name
        flat = array.reshape(-1)[:numbers]
        flat = flat.view(np.uint16) if array.dtype == np.float16 else flat
        getattr(tensor, NUMBERS.get(tensor.dtype, "int_val")).extend(flat.tolist())
        return name

    def content(self) -> bytes:
        return bytes(self.proto.SerializeToString())
