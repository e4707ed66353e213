"""The float twin of a quantised ONNX file: weights become the numbers that they stand for, and nothing is rounded."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def _spread(values: Array, rank: int, axis: int) -> Array:
    """Scales or zero points along a dim."""
    if values.size == 1:
        return values.reshape(())
    return values.reshape([-1 if dim == axis % rank else 1 for dim in range(rank)])


def float_twin(content: bytes) -> bytes:
    """What a file with QuantizeLinear and DequantizeLinear, with DynamicQuantizeLinear and integer products, or with
    DynamicQuantizeLSTM computes before it rounds.
    """
    import onnx

    model = onnx.ModelProto.FromString(content)
    graph = model.graph
    known = {proto.name: onnx.numpy_helper.to_array(proto) for proto in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            known[node.output[0]] = onnx.numpy_helper.to_array(node.attribute[0].t)
    make, made, nodes = onnx.helper.make_node, list[Any](), list[Any]()
    real: set[str] = set()  # what was rounded, and is not any more

    def constant(name: str, array: Array) -> str:
        made.append(onnx.numpy_helper.from_array(np.asarray(array, np.float32), name))
        return name

    def less_zero(node: Any, position: int, zero: int, axis: int) -> str:
        """A constant of integers less its zero point."""
        array = known[node.input[position]].astype(np.float32)
        if len(node.input) > zero and node.input[zero]:
            array = array - _spread(known[node.input[zero]].astype(np.float32), array.ndim, axis)
        return constant(f"{node.output[0]}: {position}", array)

    sums = {name for node in graph.node if node.op_type in ("ConvInteger", "MatMulInteger") for name in node.output}
    added = {name for node in graph.node if node.op_type == "Add" and sums & {*node.input} for name in node.input}
    for node in list(graph.node)[::-1]:  # a bias becomes integers by these
        if node.op_type in ("Reshape", "Cast", "Floor") and node.output[0] in added:
            added.add(node.input[0])
    for node in graph.node:
        kind, given = node.op_type, {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        if kind == "DynamicQuantizeLinear":
            nodes.append(make("Identity", [node.input[0]], [node.output[0]]))
            made += [onnx.numpy_helper.from_array(np.float32(n), name) for n, name in zip((1, 0), node.output[1:])]
        elif kind == "MatMulInteger":
            nodes.append(make("MatMul", [node.input[0], less_zero(node, 1, 3, -1)], list(node.output)))
        elif kind == "ConvInteger":
            nodes.append(make("Conv", [node.input[0], less_zero(node, 1, 3, 0)], list(node.output), **given))
        elif kind == "DynamicQuantizeLSTM":
            names = list(node.input[:8])
            for position, scale, zero in ((1, 8, 9), (2, 10, 11)):
                array = known[node.input[position]].astype(np.float64)
                parts = [known[node.input[n]].astype(np.float64) for n in (zero, scale)]
                parts = [part.reshape(len(array), 1, -1) if part.size > 1 else part.reshape(()) for part in parts]
                array = ((array - parts[0]) * parts[1]).swapaxes(1, 2)
                names[position] = constant(f"{node.output[0]}: {position}", array)
            nodes.append(make("LSTM", names, list(node.output), **given))
        elif kind == "QuantizeLinear":
            scale, zero = known[node.input[1]], known[node.input[2]]
            limits = np.iinfo(zero.dtype)
            assert scale.size == 1, "a scale for each channel of what is computed"
            ends = [
                constant(f"{node.output[0]}: {n}", (float(limit) - float(zero.item())) * float(scale.item()))
                for n, limit in enumerate((limits.min, limits.max))
            ]
            nodes.append(make("Clip", [node.input[0], *ends], list(node.output)))
            real.add(node.output[0])
        elif kind in ("Cast", "Floor") and node.output[0] in added:
            nodes.append(make("Identity", list(node.input), list(node.output)))
        elif kind == "DequantizeLinear" and node.input[0] in real:
            nodes.append(make("Identity", [node.input[0]], list(node.output)))
        else:
            if node.input and real.intersection(node.input) and kind != "DequantizeLinear":
                real.update(node.output)
            nodes.append(node)
    del graph.node[:], graph.value_info[:]
    graph.node.extend(nodes)
    graph.initializer.extend(made)
    return bytes(model.SerializeToString())


__all__ = ["float_twin"]
