"""The runtimes that ``tinyedge compare`` asks: LiteRT, ONNX Runtime and TensorFlow, each if it is installed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from tinyedge.errors import ArgumentError, MissingPackageError

Array = npt.NDArray[Any]
CALL = "tinyedge compare"


class Runtime(Protocol):
    """What runs a file: its name, and what it computes."""

    name: str

    def run(self, inputs: Mapping[str, Array]) -> tuple[list[Array], dict[str, Array]]:
        """The outputs in the file's order, and by name all values in between that can be had."""


class LiteRT:
    """A TFLite file."""

    def __init__(self, path: str) -> None:
        try:
            from ai_edge_litert import interpreter
        except ImportError as error:
            raise _missing("LiteRT", "ai-edge-litert") from error
        self.name = "LiteRT"
        self._package, self._path = interpreter, path
        plain = interpreter.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES  # delegates keep no values in between
        try:
            self._interpreter = interpreter.Interpreter(
                path, experimental_op_resolver_type=plain, experimental_preserve_all_tensors=True, num_threads=1
            )
        except (RuntimeError, ValueError) as error:
            raise _refused(self.name, error) from error

    def run(self, inputs: Mapping[str, Array]) -> tuple[list[Array], dict[str, Array]]:
        try:
            return self._run(self._interpreter, inputs, True)
        except (RuntimeError, ValueError):  # some ops have no kernel but that of a delegate
            pass
        try:
            return self._run(self._package.Interpreter(self._path, num_threads=1), inputs, False)
        except (RuntimeError, ValueError) as error:
            raise _refused(self.name, error) from error

    def _run(self, interpreter: Any, inputs: Mapping[str, Array], keeps: bool) -> tuple[list[Array], dict[str, Array]]:
        given = list(inputs.values())
        for entry, array in zip(interpreter.get_input_details(), given, strict=True):
            if tuple(entry["shape"]) != array.shape:
                interpreter.resize_tensor_input(entry["index"], array.shape)
        interpreter.allocate_tensors()
        for entry, array in zip(interpreter.get_input_details(), given, strict=True):
            interpreter.set_tensor(entry["index"], _quantised(array, entry))
        interpreter.invoke()
        outputs = [_real(interpreter.get_tensor(e["index"]), e) for e in interpreter.get_output_details()]
        between: dict[str, Array] = {}
        for entry in interpreter.get_tensor_details() if keeps else ():
            try:
                between.setdefault(entry["name"], _real(interpreter.get_tensor(entry["index"]), entry))
            except (RuntimeError, ValueError):
                continue  # it was never computed
        return outputs, between


def _quantised(array: Array, entry: Mapping[str, Any]) -> Array:
    """What stands for the numbers of an input where the file wants integers."""
    dtype = np.dtype(entry["dtype"])
    scale, zero = entry["quantization"]
    if dtype.kind in "iu" and array.dtype.kind == "f" and scale:
        limits = np.iinfo(dtype)
        numbers: Array = np.clip(np.rint(array / scale) + zero, limits.min, limits.max).astype(dtype)
        return numbers
    return array.astype(dtype)


def _real(array: Array, entry: Mapping[str, Any]) -> Array:
    scale, zero = entry["quantization"]
    if array.dtype.kind in "iu" and scale:
        numbers: Array = (array.astype(np.float32) - zero) * np.float32(scale)
        return numbers
    return array


class OnnxRuntime:
    """An ONNX file. Values in between are had where the package onnx is installed too."""

    def __init__(self, path: str) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise _missing("ONNX Runtime", "onnxruntime") from error
        self.name = "ONNX Runtime"
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        providers = ["CPUExecutionProvider"]
        try:
            self._plain = self._session = onnxruntime.InferenceSession(path, options, providers=providers)
        except Exception as error:  # its exceptions have no common class
            raise _refused(self.name, error) from error
        self._between: list[str] = []
        content = _with_all_outputs(path, [output.name for output in self._plain.get_outputs()])
        if content is not None:
            try:
                self._session = onnxruntime.InferenceSession(content, options, providers=providers)
            except Exception:
                return  # external data, or values without a type
            self._between = [output.name for output in self._session.get_outputs()]

    def run(self, inputs: Mapping[str, Array]) -> tuple[list[Array], dict[str, Array]]:
        packed = {entry.name: entry.type == "tensor(float16)" for entry in self._plain.get_inputs()}
        given = {
            name: array.astype(np.float16) if packed[name] else array
            for name, array in inputs.items()
            if name in packed
        }
        wanted = [output.name for output in self._plain.get_outputs()]
        try:
            found = dict(zip(self._between, self._session.run(None, given))) if self._between else {}
            outputs = [found[name] for name in wanted] if found else self._plain.run(None, given)
        except Exception as error:
            raise _refused(self.name, error) from error
        return [np.asarray(output) for output in outputs], {
            name: array for name, array in found.items() if isinstance(array, np.ndarray)
        }


def _with_all_outputs(path: str, outputs: Sequence[str]) -> bytes | None:
    """The file with every value as an output; None where it cannot be made."""
    try:
        import onnx
    except ImportError:
        return None
    model = onnx.load(path)
    names = [name for node in model.graph.node for name in node.output if name and name not in outputs]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in dict.fromkeys(names))
    content: bytes = model.SerializeToString()
    return content


class TensorFlow:
    """A frozen TensorFlow graph."""

    def __init__(self, path: str, outputs: Sequence[str]) -> None:
        try:
            import tensorflow
        except ImportError as error:
            raise _missing("TensorFlow", "tensorflow-cpu") from error
        self.name = "TensorFlow"
        self._package, self._outputs = tensorflow, list(outputs)
        definition = tensorflow.compat.v1.GraphDef()
        with open(path, "rb") as file:
            definition.ParseFromString(file.read())
        self._graph = tensorflow.Graph()
        with self._graph.as_default():
            tensorflow.import_graph_def(definition, name="")

    def run(self, inputs: Mapping[str, Array]) -> tuple[list[Array], dict[str, Array]]:
        floats = [
            op.outputs[0].name
            for op in self._graph.get_operations()
            if len(op.outputs) and op.type not in ("Const", "Placeholder") and op.outputs[0].dtype.is_floating
        ]
        wanted = [_value_name(name) for name in self._outputs]
        given = {_value_name(name): array for name, array in inputs.items()}
        with self._package.compat.v1.Session(graph=self._graph) as session:
            outputs = session.run(wanted, given)
            try:
                found = session.run(floats, given)
            except self._package.errors.OpError:
                found, floats = [], []  # some need what is not given
        return list(outputs), {name.removesuffix(":0"): value for name, value in zip(floats, found)}


def _value_name(name: str) -> str:
    return name if ":" in name else f"{name}:0"


def _missing(name: str, package: str) -> MissingPackageError:
    return MissingPackageError(
        CALL, f"{name} to compare with", "it is not installed", f"Install it: pip install {package}"
    )


def _refused(name: str, error: Exception) -> ArgumentError:
    return ArgumentError(CALL, f"a file and inputs that {name} runs", f"it says: {str(error)[:300]}")


def runtime_for(path: str, suffix: str, outputs: Sequence[str]) -> Runtime:
    """What runs such a file. Errors: MissingPackageError if it is not installed."""
    if suffix == ".tflite":
        return LiteRT(path)
    return OnnxRuntime(path) if suffix == ".onnx" else TensorFlow(path, outputs)
