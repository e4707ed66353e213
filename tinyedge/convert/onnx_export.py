"""to_onnx: a model written in tinyedge as an ONNX file."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np

from tinyedge import files
from tinyedge.convert.nodes import Array
from tinyedge.convert.onnx_emit import ELEMENTS, Emitter, Unwritable, V
from tinyedge.convert.onnx_graph import Grapher, parameters_of
from tinyedge.convert.onnx_lengths import Symbol, other_lengths
from tinyedge.convert.onnx_trace import Place, Trace, place_of
from tinyedge.dtypes import DType
from tinyedge.errors import ArgumentError, CaptureError, MissingPackageError, UnsupportedOpError
from tinyedge.nn.module import Module
from tinyedge.tensor import Tensor, map_tensors, tensor, tensors_in

OPSET, IR_VERSION = 18, 8
Axes = Mapping[str, Mapping[int, str] | Sequence[int]]
CALL = "to_onnx"


def to_onnx(
    model: Module,
    example: Tensor | Sequence[Any],
    path: str | os.PathLike[str],
    *,
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
    dynamic_axes: Axes | None = None,
    overwrite: bool = False,
) -> None:
    """Write ``model`` as an ONNX file of opset 18: what its forward pass computes, in evaluation mode, for ``example``:
    the argument, or a sequence of all of them. Initializers have the state dict's names.

    ``dynamic_axes`` names the dims of inputs whose lengths are any, by the input's name, as PyTorch's:
    ``{"input": {0: "batch"}}``. To see what follows from them, the forward pass also runs on an example of other
    lengths: longer ones, or what the model takes. Which dims of the outputs are dynamic is found so. Inputs are named
    as the parameters of ``forward`` (with "_1" and so on for more tensors of one argument), and outputs "output",
    "output_1" and so on, unless other names are given.

    Errors: UnsupportedOpError, listing all that ONNX lacks, and what follows the lengths of inputs in ways that have no
            counterpart. CaptureError if the forward pass looks at values, or draws random numbers. ArgumentError for
            names that do not fit, and if ``path`` is there and not ``overwrite``. MissingPackageError without onnx.

    >>> te.convert.to_onnx(model, te.zeros(1, 3, 224, 224), "a.onnx", dynamic_axes={"x": {0: "n"}})  # doctest: +SKIP
    """
    package = _package()
    name = os.fspath(path)
    if os.path.lexists(name) and not overwrite:
        raise ArgumentError(
            CALL, "a new name", f"{name!r} is there", "Pass overwrite=True to replace it, or choose another name."
        )
    arguments = (example,) if isinstance(example, Tensor) else tuple(example)
    inputs = list(tensors_in(arguments))
    names = _input_names(model, arguments, input_names)
    axes = _axes(names, inputs, output_names or ["output"], dynamic_axes)
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        content = _written(package, model, arguments, names, axes, output_names)
    finally:
        for module, training in modes:
            module.training = training
    try:
        files.write_whole(path, content)
    except files.IrregularFileError as error:
        raise ArgumentError(CALL, "the name of a regular file, or a new name", str(error)) from None


def _package() -> Any:
    try:
        import onnx
    except ImportError as error:
        raise MissingPackageError(
            CALL, "the package onnx writes ONNX files", "it is not installed",
            'Install it: pip install "tinyedge[import]".',
        ) from error  # fmt: skip
    return onnx


def _input_names(model: Module, arguments: tuple[Any, ...], given: Sequence[str] | None) -> list[str]:
    if given is None:
        own = parameters_of(model.forward)
        found: list[str] = []
        for number, argument in enumerate(arguments):
            for place in range(len(list(tensors_in((argument,))))):
                name = own[number] if number < len(own) else f"input_{len(found)}"
                name += f"_{place}" if place and number < len(own) else ""
                while name in found or (place and name in own):
                    name += "_"
                found.append(name)
        return found
    names, count = list(given), len(list(tensors_in(arguments)))
    if len(names) != count or len(set(names)) != len(names) or not all(names):
        raise ArgumentError(CALL, f"{count} different input_names", f"got {names}")
    return names


def _axes(
    names: Sequence[str], inputs: Sequence[Tensor], outputs: Sequence[str], given: Axes | None
) -> list[tuple[str, int, str, int]]:
    """The dims whose lengths are any: the input's name, the dim, its name, and its length in the example."""
    found: list[tuple[str, int, str, int]] = []
    sizes: dict[str, int] = {}
    for name, dims in (given or {}).items():
        if name not in names:
            if name in outputs:
                continue  # these are found
            raise ArgumentError(CALL, f"names of inputs in dynamic_axes, such as {', '.join(names)}", f"got {name!r}")
        tensor_ = inputs[names.index(name)]
        entries = dims if isinstance(dims, Mapping) else {dim: f"{name}_dim_{dim}" for dim in dims}
        for dim, symbol in entries.items():
            if not -tensor_.ndim <= dim < tensor_.ndim or not symbol:
                raise ArgumentError(CALL, f"dims of {name!r}, {tensor_.shape}", f"got {dim}: {symbol!r}")
            found.append((name, dim % tensor_.ndim, symbol, sizes.setdefault(symbol, max(tensor_.shape[dim], 2))))
    return found


def _resized(arguments: Any, names: Sequence[str], lengths: Mapping[tuple[str, int], int]) -> Any:
    """The arguments, each tensor a new one; dims that are any have these lengths, and elements are repeated."""
    order = iter(names)

    def put(given: Tensor) -> Tensor:
        name, array = next(order), given.detach().numpy()
        for dim, size in enumerate(array.shape):
            if (name, dim) in lengths:
                array = np.take(array, np.arange(lengths[name, dim]) % max(size, 1), dim)
        return tensor(array, dtype=given.dtype, device=given.backend)

    return map_tensors(arguments, put)


Traced = tuple[Trace, list[Place], list[Place]]


def _others(
    model: Module, arguments: Any, names: Sequence[str], axes: Sequence[tuple[str, int, str, int]]
) -> list[tuple[Traced, list[Symbol]]]:
    """Calls with examples of other lengths, which the model takes: two, if it takes so many."""
    failed: list[Exception] = []
    for several in other_lengths({name: size for _, _, name, size in axes}):
        found: list[tuple[Traced, list[Symbol]]] = []
        for lengths in several:
            try:
                call = _traced(model, _resized(arguments, names, {axis[:2]: lengths[axis[2]] for axis in axes}))
            except CaptureError:
                raise
            except Exception as error:  # the model's own, for lengths that it does not take
                failed.append(error)
                break
            found.append((call, [Symbol(*axis, lengths[axis[2]]) for axis in axes]))
        if found:
            return found
    raise failed[0]  # there are always longer ones


def _emitted(
    named: Mapping[str, Tensor], names: Sequence[str], first: Traced, other: Traced, symbols: Sequence[Symbol]
) -> tuple[list[V], Emitter, list[V]]:
    """The results, the graph, and the inputs. Errors: UnsupportedOpError."""
    (trace, places, results), (twin, twin_places, twin_results) = first, other
    emitter = Emitter(symbols)
    emitter.taken.update(names, named)
    own = {value._slot.storage.number: name for name, value in named.items()}
    grapher = Grapher(emitter, trace, twin, own)
    values = []
    for name, place, twin_place in zip(names, places, twin_places):
        grapher.input(name, place, twin_place)
        values.append(V(name, place.dtype, place.shape, twin_place.shape))
    try:
        return grapher.run(list(zip(results, twin_results, strict=True))), emitter, values
    except Unwritable as error:
        raise UnsupportedOpError(CALL, "a model that ONNX can hold", str(error)) from None


def _traced(model: Module, arguments: Any) -> Traced:
    """What a call runs; the places of its inputs and of its results."""
    inputs = list(tensors_in(arguments))
    trace = Trace([given._slot for given in inputs])
    trace.held += [value._slot.storage for value in (*model.parameters(), *model.buffers())]
    results = list(tensors_in(trace.run(lambda: model(*arguments))))
    if not results:
        raise ArgumentError(CALL, "a model that returns tensors", "got none")
    return trace, [place_of(given._slot) for given in inputs], [trace.result(result._slot) for result in results]


def _written(
    package: Any,
    model: Module,
    arguments: tuple[Any, ...],
    names: Sequence[str],
    axes: Sequence[tuple[str, int, str, int]],
    output_names: Sequence[str] | None,
) -> bytes:
    named = {**dict(model.named_buffers()), **dict(model.named_parameters())}
    first = _traced(model, _resized(arguments, names, {axis[:2]: axis[3] for axis in axes}))
    others = _others(model, arguments, names, axes) if axes else [(first, list[Symbol]())]
    found, emitter, values = _emitted(named, names, first, *others[0])
    for twin, symbols in others[1:]:
        again = _emitted(named, names, first, twin, symbols)[1]
        if [str(node) for node in emitter.nodes] != [str(node) for node in again.nodes]:
            raise UnsupportedOpError(
                CALL, "a model in which it is clear which length follows which", "it is not, for this example",
                "Give an example of other lengths, of which none is a part of another one.",
            )  # fmt: skip
    symbols = others[0][1]
    outputs = _output_names(len(found), output_names, emitter)
    for value, name in zip(found, outputs):
        emitter.nodes.append(package.helper.make_node("Identity", [value.name], [name], f"/{name}"))
    nodes = _without_copies(emitter.nodes, outputs)
    read = {name for node in nodes for name in node.input}
    graph = package.helper.make_graph(
        nodes,
        type(model).__name__,
        [_info(package, value, symbols) for value in values],
        [_info(package, value._replace(name=name), symbols) for value, name in zip(found, outputs)],
        [_tensor(package, name, array, dtype) for name, (array, dtype) in emitter.arrays.items() if name in read],
    )
    proto = package.helper.make_model(
        graph, producer_name="tinyedge", opset_imports=[package.helper.make_opsetid("", OPSET)], ir_version=IR_VERSION
    )
    if proto.ByteSize() < 2**31 - 1:
        package.checker.check_model(proto)
        return cast("bytes", proto.SerializeToString())
    raise ArgumentError(CALL, "a model of less than 2 GiB, the most that an ONNX file holds", "it has more")


def _output_names(count: int, given: Sequence[str] | None, emitter: Emitter) -> list[str]:
    if given is None:
        names = ["output", *(f"output_{number}" for number in range(1, count))]
        names = [name if name not in emitter.taken else emitter.new_name(name) for name in names]
    else:
        names = list(given)
    if len(names) != count or len({*names}) != count or not all(names) or emitter.taken.intersection(names):
        raise ArgumentError(CALL, f"{count} different output_names that nothing else has", f"got {names}")
    return names


def _without_copies(nodes: list[Any], outputs: Sequence[str]) -> list[Any]:
    """The nodes without those whose results nothing reads, and outputs under their own names."""
    makers = {name: node for node in nodes for name in node.output}
    readers: dict[str, int] = {}
    for node in nodes:
        for name in node.input:
            readers[name] = readers.get(name, 0) + 1
    for node in list(nodes):
        if node.op_type != "Identity" or node.output[0] not in outputs:
            continue
        maker = makers.get(node.input[0])
        if maker is not None and readers[node.input[0]] == 1 and node.input[0] not in outputs:
            place = list(maker.output).index(node.input[0])
            maker.output[place] = node.output[0]
            nodes.remove(node)
    needed, kept = set(outputs), []
    for node in reversed(nodes):
        if needed.intersection(node.output):
            needed.update(node.input)
            kept.append(node)
    return kept[::-1]


def _info(package: Any, value: V, symbols: Sequence[Symbol]) -> Any:
    dims: list[Any] = []
    for dim, (size, twin) in enumerate(zip(value.shape, value.twin)):
        name = next((s.name for s in symbols if (s.size, s.twin) == (size, twin)), f"{value.name}_dim_{dim}")
        dims.append(size if size == twin else name)
    if value.dtype.name not in ELEMENTS:
        raise UnsupportedOpError(CALL, "dtypes that ONNX has", f"{value.name!r} is {value.dtype.name}")
    return package.helper.make_tensor_value_info(value.name, ELEMENTS[value.dtype.name], dims)


def _tensor(package: Any, name: str, array: Array, dtype: DType) -> Any:
    if dtype.name not in ELEMENTS:
        raise UnsupportedOpError(CALL, "dtypes that ONNX has", f"{name!r} is {dtype.name}")
    content = np.ascontiguousarray(dtype.pack(array) if dtype.packed else array)
    content = content.astype(content.dtype.newbyteorder("<"))
    return package.TensorProto(name=name, data_type=ELEMENTS[dtype.name], dims=array.shape, raw_data=content.tobytes())


__all__ = ["to_onnx"]
