"""Small TFLite files for tests: written with the readers' own package."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

KINDS = {"float32": 0, "float16": 1, "int32": 2, "bool": 6, "int8": 9, "complex64": 8, "resource": 13}


@dataclass
class Draft:
    """Tensors and operators by name, in the order in which they are added."""

    scales: dict[str, tuple[list[float], list[int], int]] = field(default_factory=dict)
    tensors: list[tuple[str, tuple[int, ...], int, Any]] = field(default_factory=list)
    operators: list[tuple[str, list[str], list[str], str, dict[str, Any]]] = field(default_factory=list)
    variables: set[str] = field(default_factory=set)
    open_dims: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """By name: the shape with -1 for the dims that a call may choose."""
    sparse: dict[str, tuple[list[int], list[int], list[Any], Any]] = field(default_factory=dict)
    """By name: the order of traversal, the block map, the levels (a length, or segments and indices), the values."""

    def value(self, name: str, shape: tuple[int, ...], kind: str = "float32") -> str:
        self.tensors.append((name, shape, KINDS[kind], None))
        return name

    def constant(self, name: str, array: Any) -> str:
        array = np.asarray(array)
        self.tensors.append((name, array.shape, KINDS[array.dtype.name], array))
        return name

    def op(self, code: str, inputs: list[str], outputs: list[str], table: str = "", **options: Any) -> None:
        self.operators.append((code, inputs, outputs, table, options))

    def content(
        self, inputs: list[str], outputs: list[str], others: Sequence[tuple[Draft, list[str], list[str]]] = ()
    ) -> bytes:
        """The file, with ``others`` behind the first graph: each with its inputs and outputs."""
        import flatbuffers
        import tflite

        b = flatbuffers.Builder(1024)

        def table(name: str, **fields: Any) -> int:
            getattr(tflite, f"{name}Start")(b)
            for key, value in fields.items():
                getattr(tflite, f"{name}Add{key}")(b, value)
            return int(getattr(tflite, f"{name}End")(b))

        def offsets(values: list[int]) -> int:
            b.StartVector(4, len(values), 4)
            for value in reversed(values):
                b.PrependUOffsetTRelative(value)
            return int(b.EndVector())

        def ints(values: Any) -> int:
            return int(b.CreateNumpyVector(np.asarray(values, np.int32)))

        def sparsity(order: list[int], blocks: list[int], levels: list[Any]) -> int:
            metas = []
            for level in levels:
                if isinstance(level, int):
                    metas.append(table("DimensionMetadata", Format=0, DenseSize=level))
                    continue
                lists = [table("Int32Vector", Values=ints(values)) for values in level]
                parts = {"ArraySegmentsType": 1, "ArraySegments": lists[0], "ArrayIndicesType": 1}
                metas.append(table("DimensionMetadata", Format=1, **parts, ArrayIndices=lists[1]))
            parts = {"TraversalOrder": ints(order), "BlockMap": ints(blocks), "DimMetadata": offsets(metas)}
            return table("SparsityParameters", **parts)

        buffers = [table("Buffer")]
        drafts = [(self, inputs, outputs), *others]
        codes = sorted({code for draft, _, _ in drafts for code, *_ in draft.operators})
        graphs = [draft._graph(b, table, offsets, ints, sparsity, buffers, codes, *ends) for draft, *ends in drafts]
        kinds = []
        for code in codes:
            number = getattr(tflite.BuiltinOperator, code, tflite.BuiltinOperator.CUSTOM)
            name = {"CustomCode": b.CreateString(code)} if number == tflite.BuiltinOperator.CUSTOM else {}
            kinds.append(table("OperatorCode", BuiltinCode=number, DeprecatedBuiltinCode=min(number, 127), **name))
        whole = {"OperatorCodes": offsets(kinds), "Subgraphs": offsets(graphs), "Buffers": offsets(buffers)}
        b.Finish(table("Model", Version=3, **whole), b"TFL3")
        return bytes(b.Output())

    def _graph(
        self, b: Any, table: Any, offsets: Any, ints: Any, sparsity: Any, buffers: list[int], codes: list[str],
        inputs: list[str], outputs: list[str],
    ) -> int:  # fmt: skip
        import tflite

        numbers = {name: n for n, (name, *_) in enumerate(self.tensors)} | {"": -1}
        made = []
        for name, shape, kind, array in self.tensors:
            number = 0
            if array is not None:
                number = len(buffers)
                held = self.sparse[name][3] if name in self.sparse else array
                data = b.CreateNumpyVector(np.frombuffer(held.tobytes(), np.uint8))
                buffers.append(table("Buffer", Data=data))
            sizes, text = ints(shape), b.CreateString(name)
            more = {}
            if name in self.scales:
                scales, zeros, axis = self.scales[name]
                scale = b.CreateNumpyVector(np.array(scales, np.float32))
                zero = b.CreateNumpyVector(np.array(zeros, np.int64))
                parts = {"Scale": scale, "ZeroPoint": zero, "QuantizedDimension": axis}
                more["Quantization"] = table("QuantizationParameters", **parts)
            if name in self.sparse:
                more["Sparsity"] = sparsity(*self.sparse[name][:3])
            if name in self.open_dims:
                more["ShapeSignature"] = ints(self.open_dims[name])
            if name in self.variables:
                more["IsVariable"] = True
            made.append(table("Tensor", Shape=sizes, Type=kind, Buffer=number, Name=text, **more))
        operators = []
        for code, given, results, options, fields in self.operators:
            parts = {"OpcodeIndex": codes.index(code)}
            if "custom" in fields:
                parts |= {"CustomOptions": b.CreateNumpyVector(np.frombuffer(fields["custom"], np.uint8))}
            if options:
                texts = {key: b.CreateString(text) if isinstance(text, str) else text for key, text in fields.items()}
                parts |= {"BuiltinOptions": table(options, **texts)}
                parts |= {"BuiltinOptionsType": getattr(tflite.BuiltinOptions, options)}
            parts |= {"Inputs": ints([numbers[n] for n in given]), "Outputs": ints([numbers[n] for n in results])}
            operators.append(table("Operator", **parts))
        lists = {"Tensors": offsets(made), "Operators": offsets(operators)}
        ends = {"Inputs": ints([numbers[n] for n in inputs]), "Outputs": ints([numbers[n] for n in outputs])}
        return int(table("SubGraph", **lists, **ends))
