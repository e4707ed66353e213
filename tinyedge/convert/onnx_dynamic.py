"""Networks whose weights are integers, as ONNX Runtime's dynamic quantisation writes them: what follows an integer
product says what its weight stands for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tinyedge.convert.graph import Array

PRODUCTS = {"MatMulInteger": -1, "ConvInteger": 0}
"""The dim of the weight along which its scales and zero points lie."""

ROUNDING = ("Floor", "Round", "Cast", "Reshape", "Clip")
"""What turns a bias into integers that are added to those of a product."""

MOVING = ("Gather", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Identity")
INT32 = 6


class Neighbours:
    """Who makes and who reads the values of a graph."""

    def __init__(self, graph: Any) -> None:
        self.makers: dict[str, Any] = {}
        self.users: dict[str, list[Any]] = {}
        for node in graph.node:
            self.makers.update(dict.fromkeys(node.output, node))
            for name in dict.fromkeys(node.input):
                self.users.setdefault(name, []).append(node)
        self.results = {name for node in graph.node if node.op_type in PRODUCTS for name in node.output}
        self.ends = {value.name for value in graph.output}

    def only_user(self, name: str) -> Any:
        """The node that alone reads a value, or None."""
        users = self.users.get(name, [])
        return users[0] if len(users) == 1 and name not in self.ends else None

    def scale_behind(self, product: str, arrays: Mapping[str, Array]) -> str:
        """The name of the scale of an integer product's weight, or "": the constant by which, and by the scale of what
        the weight is applied to, the product is multiplied once it is a float.
        """
        name = product
        for _ in range(3):  # a sum with a bias, a cast, a factor
            user = self.only_user(name)
            if user is None or not user.output:
                break
            if user.op_type == "Mul":
                other = next((each for each in user.input if each != name), "")
                maker = self.makers.get(other)
                while maker is not None and maker.op_type in ("Reshape", "Unsqueeze"):
                    maker = self.makers.get(maker.input[0])
                if maker is None or maker.op_type != "Mul":
                    break
                known = [each for each in maker.input if each in arrays]
                return known[0] if len(known) == 1 and arrays[known[0]].dtype.kind == "f" else ""
            if user.op_type not in ("Cast", "Add"):
                break
            name = user.output[0]
        return ""

    def rounds_a_bias(self, node: Any) -> bool:
        """Whether a node does no more than make integers of what is added to those of a product."""
        for _ in range(len(ROUNDING)):
            if node.op_type not in ROUNDING or not node.output:
                return False
            user = self.only_user(node.output[0])
            if user is None:
                return False
            if user.op_type == "Add":
                return bool(self.results.intersection(user.input))
            node = user
        return False

    def table_behind(self, name: str, arrays: Mapping[str, Array]) -> str:
        """The constant integers that a value was taken from, and only moved, if nothing else reads them; or ""."""
        for _ in range(len(MOVING)):
            maker = self.makers.get(name)
            if maker is None or maker.op_type not in MOVING or maker.domain not in ("", "ai.onnx"):
                return ""
            if self.only_user(name) is None:
                return ""
            name = maker.input[0]
            if name in arrays:
                alone = self.only_user(name) is not None and arrays[name].dtype.kind in "iu"
                return name if alone else ""
        return ""


def fits(scale: Array, weight: Array, axis: int) -> bool:
    """Whether it is one positive scale, or one for each place along a dim of the weight."""
    one = scale.size == 1 or (weight.ndim > 0 and scale.size == weight.shape[axis])
    return bool(one and np.isfinite(scale).all() and (scale > 0).all())


__all__ = ["INT32", "PRODUCTS", "Neighbours", "fits"]
