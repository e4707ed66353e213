"""Models as ONNX files: the checker takes them, and ONNX Runtime computes the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

import tinyedge as te
from tests.calls import Made
from tests.strategies import call_of, place
from tinyedge import nn
from tinyedge.autograd.registry import Entry, entries
from tinyedge.backends import Backend
from tinyedge.convert.onnx_emit import CONVERTERS
from tinyedge.errors import ArgumentError, CaptureError, TinyedgeError, UnsupportedOpError
from tinyedge.ir.step import Op, registry
from tinyedge.nn import functional as F
from tinyedge.tensor import Tensor, call_all, map_tensors, tensors_in

onnx = pytest.importorskip("onnx")
runtime = pytest.importorskip("onnxruntime")
runtime.set_default_logger_severity(3)
RNG = np.random.default_rng(0)


class Calls(nn.Module):
    """A model that calls a function."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: Any) -> Any:
        return self.function(*inputs)


def x(*shape: int) -> Tensor:
    return te.tensor(RNG.standard_normal(shape).astype(np.float32))


def run(path: Path, inputs: list[Tensor]) -> list[Any]:
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    wanted = [entry.name for entry in session.get_inputs()]
    given = [entry.name for entry in onnx.load(path).graph.input]
    feeds = {name: value.detach().numpy() for name, value in zip(given, inputs) if name in wanted}
    return list(session.run(None, feeds))


def agree(found: list[Any], wanted: list[Tensor], rtol: float = 1e-4, atol: float = 1e-5) -> None:
    assert len(found) == len(wanted)
    for array, value in zip(found, wanted):
        expected = value.detach().numpy()
        assert array.dtype == expected.dtype
        assert array.shape == expected.shape
        scale = np.abs(expected[np.isfinite(expected)]).max(initial=1.0) if expected.dtype.kind == "f" else 1.0
        np.testing.assert_allclose(array, expected, rtol=rtol, atol=atol * float(scale))


def check(tmp_path: Path, model: nn.Module, *inputs: Tensor, longer: tuple[int, ...] = (), **more: Any) -> Any:
    """The file's graph, once it computed what the model does: for ``longer`` times as long an input too."""
    path = tmp_path / "model.onnx"
    if longer:
        more["input_names"] = [f"in{n}" for n in range(len(inputs))]
        more["dynamic_axes"] = {name: {0: "batch"} for name in more["input_names"]}
    training = model.training
    te.convert.to_onnx(model, inputs, path, overwrite=True, **more)
    assert model.training == training
    onnx.checker.check_model(str(path), full_check=True)
    model.eval()
    for times in (1, *longer):
        given = [te.tensor(np.concatenate([value.numpy()] * times)) for value in inputs]
        with te.no_grad():
            wanted = tensors_in(model(*given))
        agree(run(path, given), wanted)
    model.train(training)
    return onnx.load(path).graph


def names(graph: Any) -> set[str]:
    return {entry.name for entry in graph.initializer}


def stirred(model: nn.Module) -> nn.Module:
    """With statistics and biases that are not 0 and 1."""
    with te.no_grad():
        for name, value in (*model.named_parameters(), *model.named_buffers()):
            if value.is_floating_point() and value.ndim == 1:
                value.copy_(te.tensor(RNG.uniform(0.5, 1.5, value.shape).astype(np.float32)))
            assert name
    return model


MODELS: dict[str, Callable[[], tuple[nn.Module, Tensor]]] = {
    "lenet5": lambda: (te.models.lenet5(), x(2, 1, 28, 28)),
    "mobilenet_v1": lambda: (te.models.mobilenet_v1(num_classes=10), x(2, 3, 32, 32)),
    "mobilenet_v2": lambda: (te.models.mobilenet_v2(num_classes=10), x(2, 3, 32, 32)),
    "resnet18": lambda: (te.models.resnet18(num_classes=10), x(1, 3, 32, 32)),
    "transformer": lambda: (
        te.models.transformer(vocabulary=20, width=16, layers=2, heads=2, context=8),
        te.tensor(RNG.integers(0, 20, (2, 8))),
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_models(tmp_path: Path, backend: Backend, name: str) -> None:
    model, example = MODELS[name]()
    graph = check(tmp_path, stirred(model), example, longer=(3,))
    assert names(graph) >= {key for key, _ in model.named_parameters()}
    assert graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    assert graph.output[0].type.tensor_type.shape.dim[0].dim_param == "batch"


LAYERS: dict[str, Callable[[], tuple[nn.Module, Tensor]]] = {
    "lstm": lambda: (nn.LSTM(5, 6, 2, bidirectional=True, batch_first=True), x(2, 7, 5)),
    "gru": lambda: (nn.GRU(5, 6, 2, bidirectional=True, batch_first=True), x(2, 7, 5)),
    "rnn": lambda: (nn.RNN(5, 6, nonlinearity="relu", batch_first=True), x(2, 7, 5)),
    "encoder": lambda: (nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), x(2, 7, 8)),
    "conv_transpose": lambda: (nn.ConvTranspose2d(4, 6, 3, 2, 1, 1, groups=2), x(2, 4, 5, 5)),
    "conv1d": lambda: (nn.Conv1d(3, 4, 3, padding=1), x(2, 3, 9)),
    "conv3d": lambda: (nn.Conv3d(3, 4, 3, padding=1), x(2, 3, 5, 5, 5)),
    "norms": lambda: (
        nn.Sequential(nn.GroupNorm(2, 4), nn.InstanceNorm2d(4, affine=True), nn.LayerNorm((6, 6)), nn.PReLU(4)),
        x(2, 4, 6, 6),
    ),
    "embedding": lambda: (nn.Embedding(9, 4), te.tensor(RNG.integers(0, 9, (2, 5)))),
    "pools": lambda: (
        nn.Sequential(nn.MaxPool2d(3, 2, 1, ceil_mode=True), nn.AvgPool2d(3, 2, 1, True), nn.AdaptiveAvgPool2d((3, 2))),
        x(2, 3, 17, 17),
    ),
    "half": lambda: (nn.Linear(8, 3).half(), x(2, 8).half()),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layers(tmp_path: Path, backend: Backend, name: str) -> None:
    model, example = LAYERS[name]()
    check(tmp_path, model, example, longer=(3,))


@pytest.mark.parametrize("name", [*(name for name in LAYERS if name != "pools"), "lenet5", "transformer"])
def test_there_and_back(tmp_path: Path, backend: Backend, name: str) -> None:
    """A model that was written and loaded has the same parameters, results and gradients."""
    model, example = {**LAYERS, **MODELS}[name]()
    path = tmp_path / "a.onnx"
    te.convert.to_onnx(model.eval(), example, path)
    again = te.load_model(path)
    wanted, found = tensors_in(model(example)), tensors_in(again(example))
    agree([value.detach().numpy() for value in found], wanted)
    for results in (wanted, found):
        te.autograd.backward(results, [te.ones_like(value) for value in results])
    params, others = dict(model.named_parameters()), dict(again.named_parameters())
    assert set(params) == set(others)
    # Some gradients are 0 but for rounding, that of sums of such terms as the largest ones: a key's bias in attention.
    largest = max(float(np.abs(param.grad.numpy()).max()) for param in params.values() if param.grad is not None)
    for key, param in params.items():
        grad = others[key].grad
        assert param.grad is not None
        assert grad is not None
        scale = float(np.abs(param.grad.numpy()).max())
        np.testing.assert_allclose(
            grad.numpy(), param.grad.numpy(), rtol=1e-3, atol=1e-4 * scale + 3e-6 * max(1.0, largest)
        )


def _changed(t: Tensor) -> Tensor:
    t = t.clone()
    t[:, 1] = 3.0
    t[0, :, 2] += 1
    return t


FIXED: dict[str, Callable[[Tensor], Any]] = {"changes in place": _changed, "unfold": lambda t: t.unfold(2, 3, 2)}
FUNCTIONS: dict[str, Callable[[Tensor], Any]] = {
    "cat": lambda t: te.cat([t, t * 2], 0),
    "stack": lambda t: te.stack([t, t * 2], 1),
    "brackets": lambda t: t[:, -1] + t[:, 1:3, ::2].sum(1).repeat(1, 2),
    "last of a batch": lambda t: t[-1],
    "pad": lambda t: F.pad(t, (1, 2, 3, 4), value=2.0),
    "reflect": lambda t: F.pad(t, (1, 2), mode="reflect"),
    "where": lambda t: te.where(t > 0, t, 0.5).masked_fill(t > 1, -1.0),
    "moments": lambda t: t.var(-1) + t.std(-1) + t.norm(dim=-1) + t.logsumexp(-1),
    "arange": lambda t: t + te.arange(t.shape[0], device=t.device).float()[:, None, None],
    "zeros": lambda t: te.cat([te.zeros(t.shape[0], 1, 8, device=t.device), t], 1),
    "einsum": lambda t: te.einsum("bij,bkj->bik", t, t),
    "topk": lambda t: list(t.topk(3)),
    "causal": lambda t: F.scaled_dot_product_attention(t, t, t, is_causal=True),
    "rotary": lambda t: F.rotary_embedding(t),
    "flatten": lambda t: t.reshape(-1, 8).sum(1).reshape(t.shape[0], -1),
    "divided": lambda t: te.cat([t.sum(0, keepdim=True) / t.shape[0], t.std(0, keepdim=True)]),
    "above": lambda t: te.triu(te.ones(t.shape[0], t.shape[0], dtype=te.bool_), 1) & (t[:, 0, 0] > 0),
    "mask": lambda t: te.full((t.shape[0], t.shape[0]), float("-inf")).triu(1) + t[:, 0, 0],
    "split": lambda t: list(t.transpose(1, 2).split(3, 1)),
}  # fmt: skip


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_of_a_batch_of_any_length(tmp_path: Path, backend: Backend, name: str) -> None:
    check(tmp_path, Calls(FUNCTIONS[name]), x(2, 5, 8), longer=(3,))


@pytest.mark.parametrize("name", FIXED)
def test_functions_of_one_shape(tmp_path: Path, backend: Backend, name: str) -> None:
    check(tmp_path, Calls(FIXED[name]), x(2, 5, 8))


def test_several_lengths_of_an_input(tmp_path: Path, reference: Backend) -> None:
    model = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    path = tmp_path / "a.onnx"
    te.convert.to_onnx(model, x(1, 5, 8), path, input_names=["x"], dynamic_axes={"x": {0: "batch", 1: "time"}})
    for shape in ((1, 5, 8), (4, 3, 8)):
        given = x(*shape)
        agree(run(path, [given]), [model(given)])
    dims = onnx.load(path).graph.output[0].type.tensor_type.shape.dim
    assert [dim.dim_param for dim in dims][:2] == ["batch", "time"]


@pytest.mark.parametrize("mode", ["nearest", "nearest-exact", "bilinear", "bicubic", "area"])
@pytest.mark.parametrize("given", [{"scale_factor": 2}, {"size": (7, 9)}, {"size": (3, 1)}, {"scale_factor": 1.7}])
def test_interpolate(tmp_path: Path, reference: Backend, mode: str, given: Any) -> None:
    for aligned in (False, True) if mode in ("bilinear", "bicubic") else (None,):

        def function(t: Tensor, aligned: Any = aligned) -> Tensor:
            return F.interpolate(t, mode=mode, align_corners=aligned, **given)

        check(tmp_path, Calls(function), x(2, 3, 5, 6), longer=(2,))


SAMPLED = sorted(
    name for name in CONVERTERS if not registry[name].is_view and name not in ("clone", "recurrence", "cast")
)  # fmt: skip


def sampled(op: type[Op], seed: int) -> Any:
    """A call of an op without empty inputs."""
    for number in range(seed * 100, seed * 100 + 100):
        call = call_of(op, op.sample(Random(number)), number)
        if op.name in ("floor_divide", "trunc_divide"):  # by 0 or -1 integers overflow, and ONNX says nothing of that
            call.inputs["b"][np.isin(call.inputs["b"], (0, -1))] = 3  # type: ignore[index]
        if all(array is None or array.size for array in call.inputs.values()):
            return call
    raise AssertionError("every sample has an empty input")


@pytest.mark.parametrize("name", [*SAMPLED, "recurrence"])
def test_each_op(tmp_path: Path, reference: Backend, name: str) -> None:
    """Every op that has a converter, on calls that are drawn from its own samples."""
    op, done = registry[name], 0
    for seed in range(12):
        call = sampled(op, seed)
        inputs = {key: Tensor._wrap(place(array, reference)) for key, array in call.inputs.items() if array is not None}

        def function(*given: Tensor, call: Any = call, inputs: Any = inputs) -> Any:
            by_name = dict(zip(inputs, given, strict=True))
            results = call_all(
                call.op, *[by_name.get(key) for key in call.op.inputs], scalars=dict(call.scalars), **call.attrs
            )
            return [y for key, y in zip(call.op.outputs, results) if key not in call.op.hidden and y.numel()]

        model, path = Calls(function), tmp_path / "a.onnx"
        try:
            wanted = function(*inputs.values())
        except TinyedgeError:
            continue  # such an index, say
        try:
            te.convert.to_onnx(model, list(inputs.values()), path, overwrite=True)
        except UnsupportedOpError:
            continue
        onnx.checker.check_model(str(path))
        try:
            found = run(path, list(inputs.values()))
        except runtime.capi.onnxruntime_pybind11_state.NotImplemented:
            continue  # ONNX has the op for these types, and this runtime does not
        agree(found, wanted, max(op.rtol, 1e-4), max(op.atol, 2e-5))
        done += 1
    assert done, "every call was refused"


def of_tensors(entry: Entry) -> bool:
    return bool(tensors_in((Made(entry).args, Made(entry).kwargs)))


def test_public_functions(tmp_path: Path, reference: Backend) -> None:
    """As ``tests/calls.py`` calls them: written and equal, or refused by name. How many are written is held."""
    written, refused = [], []
    for entry in sorted(entries.values(), key=lambda entry: entry.name):
        made = Made(entry, gradients=False)
        whole = (made.args, made.kwargs)
        inputs = tensors_in(whole)
        if not inputs or "rand" in entry.name or "empty" in entry.name:
            continue

        def function(*given: Tensor, entry: Entry = entry, whole: Any = whole) -> Any:
            values = iter(given)
            args, kwargs = map_tensors(whole, lambda _: next(values))
            return tensors_in([entry.function(*args, **kwargs)])

        path = tmp_path / "a.onnx"
        copies = [te.tensor(value.numpy(), dtype=value.dtype) for value in inputs]
        try:
            te.convert.to_onnx(Calls(function), inputs, path, overwrite=True)
            found = run(path, inputs)
        except (UnsupportedOpError, CaptureError, ArgumentError) as error:
            refused.append(
                f"{entry.name}: {str(error).splitlines()[-2 if isinstance(error, UnsupportedOpError) else 0]}"
            )
            continue
        except runtime.capi.onnxruntime_pybind11_state.NotImplemented:
            refused.append(f"{entry.name}: the runtime")
            continue
        written.append(entry.name)
        try:
            agree(found, function(*copies), 2e-4, 2e-5)
        except AssertionError as error:
            raise AssertionError(f"{entry.name}: {error}") from error
    assert len(written) >= 380, refused


def test_what_has_no_counterpart_is_listed(tmp_path: Path, reference: Backend) -> None:
    with pytest.raises(UnsupportedOpError, match=r"bessel\n  lgamma"):
        te.convert.to_onnx(Calls(lambda t: te.special.i0(t) + te.lgamma(t)), x(2, 3), tmp_path / "a.onnx")
    with pytest.raises(CaptureError, match="calls numpy: a value was read"):
        te.convert.to_onnx(Calls(lambda t: t * t.sum().item()), x(2, 3), tmp_path / "a.onnx")
    with pytest.raises(CaptureError, match="drawing random numbers"):
        te.convert.to_onnx(Calls(lambda t: t + te.rand(3)), x(2, 3), tmp_path / "a.onnx")
    buffer = te.zeros(3)
    with pytest.raises(CaptureError, match="a tensor that is there before"):
        te.convert.to_onnx(Calls(lambda t: buffer.add_(t.sum(0))), x(2, 3), tmp_path / "a.onnx")
    with pytest.raises(UnsupportedOpError, match="follows the inputs' lengths"):
        te.convert.to_onnx(Calls(lambda t: t / t.shape[0] ** 0.5), x(2, 3), tmp_path / "a.onnx", input_names=["t"],
                           dynamic_axes={"t": [0]})  # fmt: skip
    assert not list(tmp_path.iterdir())


class Pair(nn.Module):
    def forward(self, states: tuple[Tensor, Tensor], t: Tensor) -> Tensor:
        return states[0] + 2 * states[1] - t


def test_inputs_are_one_for_each_tensor(tmp_path: Path, reference: Backend) -> None:
    """A tensor that the example has twice is two inputs; what is in a list does not take the next argument's name."""
    path, same = tmp_path / "a.onnx", x(2, 3).requires_grad_()
    model = Calls(lambda a, b: a - 2 * b)
    te.convert.to_onnx(model, (same, same), path)
    for given in ([same, same], [x(2, 3), x(2, 3)]):
        agree(run(path, given), [model(*given)])
    axes = {name: {0: "n"} for name in ("states", "states_1", "t")}
    te.convert.to_onnx(Pair(), ((same, same), x(2, 3)), path, overwrite=True, dynamic_axes=axes)
    assert [entry.name for entry in onnx.load(path).graph.input] == ["states", "states_1", "t"]


class Columns(nn.Module):
    """Half of the columns of an image, each a step of a sequence."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3, 2, 1)

    def forward(self, t: Tensor) -> Tensor:
        y = self.conv(t)
        return y.permute(0, 3, 1, 2).reshape(y.shape[0], y.shape[3], -1)


class Skip(nn.Module):
    """Images of even lengths alone."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(2, 4, 3, 2, 1), nn.ConvTranspose2d(4, 2, 2, 2)

    def forward(self, t: Tensor) -> Tensor:
        low = self.down(t)
        sizes = F.interpolate(low, t.shape[-2:], mode="bilinear")
        twice = [F.interpolate(low, scale_factor=2, mode=mode) for mode in ("nearest", "bilinear")]
        return te.cat([t, self.up(F.relu(low)), sizes, *twice], 1).mean((2, 3))


def _windows(t: Tensor) -> Tensor:
    (b, c, h, w), half = t.shape, (t.shape[2] // 2, t.shape[3] // 2)
    y = F.softmax(t.reshape(b, c, half[0], 2, half[1], 2).permute(0, 2, 4, 3, 5, 1).reshape(-1, 4, c), -1)
    return y.reshape(b, *half, 2, 2, c).permute(0, 5, 1, 3, 2, 4).reshape(b, c, h, w)


IMAGES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], list[tuple[int, ...]]]] = {
    "another dim's half": (Columns, (1, 1, 8, 16), [(1, 1, 8, 20), (1, 1, 6, 16)]),
    "equal lengths": (Columns, (1, 1, 8, 8), [(1, 1, 8, 20), (1, 1, 6, 4)]),
    "even lengths": (Skip, (1, 2, 8, 8), [(1, 2, 16, 12)]),
    "pools": (lambda: nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), (1, 2, 8, 6), [(1, 2, 7, 12)]),
    "norms": (lambda: nn.Sequential(nn.InstanceNorm2d(4, affine=True), nn.GroupNorm(2, 4)), (1, 4, 4, 6),
              [(1, 4, 5, 7)]),
    "windows": (lambda: Calls(_windows), (1, 3, 4, 6), [(1, 3, 8, 10), (1, 3, 2, 4)]),
    "largest": (lambda: nn.AdaptiveMaxPool2d(1), (1, 2, 8, 6), [(1, 2, 7, 12)]),
    "steps": (lambda: Calls(lambda t: t[:, :, ::2, : t.shape[3] // 2]), (1, 2, 4, 6), [(1, 2, 7, 12), (1, 2, 5, 9)]),
}  # fmt: skip


@pytest.mark.parametrize("name", IMAGES)
def test_images_of_any_size(tmp_path: Path, reference: Backend, name: str) -> None:
    """Which length a length follows is found, though another one is as long in the example, or double."""
    make, shape, others = IMAGES[name]
    model, path = make(), tmp_path / "a.onnx"
    te.convert.to_onnx(model, x(*shape), path, input_names=["t"], dynamic_axes={"t": {2: "height", 3: "width"}})
    for other in (shape, *others):
        given = x(*other)
        agree(run(path, [given]), tensors_in(model(given)))


def test_patches_of_images_of_any_size(tmp_path: Path, reference: Backend) -> None:
    """A quarter of the height is as long as the batch: in the example, and in no other one."""
    conv, path = nn.Conv2d(3, 8, 4, 4), tmp_path / "a.onnx"
    model = Calls(lambda t: conv(t).flatten(2).transpose(1, 2))
    axes = {"t": {0: "batch", 2: "height", 3: "width"}}
    te.convert.to_onnx(model, x(1, 3, 8, 12), path, input_names=["t"], dynamic_axes=axes)
    for shape in ((1, 3, 8, 12), (2, 3, 16, 8)):
        given = x(*shape)
        agree(run(path, [given]), [model(given)])


def test_lengths_up_to_a_greatest_one(tmp_path: Path, reference: Backend) -> None:
    model = te.models.transformer(vocabulary=20, width=16, layers=1, heads=2, context=8).eval()
    path = tmp_path / "a.onnx"
    axes = {"tokens": {0: "batch", 1: "time"}}
    te.convert.to_onnx(model, te.zeros(1, 8, dtype=te.int64), path, input_names=["tokens"], dynamic_axes=axes)
    for shape in ((1, 8), (3, 5), (2, 1)):
        given = te.tensor(RNG.integers(0, 20, shape))
        agree(run(path, [given]), [model(given)])


def test_a_forward_pass_that_reads_other_values_for_other_lengths_is_refused(
    tmp_path: Path, reference: Backend
) -> None:
    def function(t: Tensor) -> Tensor:
        a, b = t * 2, t * 3
        return (a if t.shape[0] < 4 else b) + 1

    def order(t: Tensor) -> Tensor:
        return te.cat([t, t * 2] if t.shape[0] < 4 else [t * 2, t], 0)

    for each in (function, order):
        with pytest.raises(UnsupportedOpError, match="other values for an input of other lengths"):
            te.convert.to_onnx(Calls(each), x(2, 3), tmp_path / "a.onnx", input_names=["t"], dynamic_axes={"t": [0]})


def test_a_part_that_is_all_of_the_example(tmp_path: Path, reference: Backend) -> None:
    """It is a view of the same memory as the whole."""
    path, model = tmp_path / "a.onnx", Calls(lambda t: t.narrow(1, 0, 4).sum(1))
    te.convert.to_onnx(model, x(2, 4), path, input_names=["t"], dynamic_axes={"t": [1]})
    given = x(2, 9)
    agree(run(path, [given]), [model(given)])


def test_names(tmp_path: Path, reference: Backend) -> None:
    model, path = nn.Sequential(nn.Linear(3, 4), nn.ReLU()), tmp_path / "a.onnx"
    te.convert.to_onnx(model, x(2, 3), path, input_names=["features"], output_names=["scores"])
    graph = onnx.load(path).graph
    assert [entry.name for entry in (*graph.input, *graph.output)] == ["features", "scores"]
    assert names(graph) == {"0.weight", "0.bias"}
    with pytest.raises(ArgumentError, match="is there"):
        te.convert.to_onnx(model, x(2, 3), path)
    with pytest.raises(ArgumentError, match="1 different input_names"):
        te.convert.to_onnx(model, x(2, 3), path, input_names=["a", "b"], overwrite=True)
    with pytest.raises(ArgumentError, match="names of inputs in dynamic_axes, such as input"):
        te.convert.to_onnx(model, x(2, 3), path, dynamic_axes={"typo": [0]}, overwrite=True)
    again = te.load_model(path)
    given = x(2, 3)
    agree([again(given).detach().numpy()], [model(given)])
    assert set(again.state_dict()) == {"0.weight", "0.bias"}


@pytest.mark.slow
def test_an_imported_model_trains_by_the_same_launches(tmp_path: Path, opencl: Backend) -> None:
    """A MobileNet v2 from a file: sources, geometry and memory of the compiled step are those of the one by hand."""
    path = tmp_path / "a.onnx"
    with te.use_backend(opencl.name):
        model = te.models.mobilenet_v2(num_classes=10)
        te.convert.to_onnx(model, x(1, 3, 32, 32), path)
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0  # a file has none
        given, target = x(1, 3, 32, 32), te.tensor([3])
        found = []
        for other in (model.freeze_batch_norm_statistics(), te.load_model(path)):

            @te.compile
            def step(a: Tensor, b: Tensor, other: nn.Module = other) -> Tensor:
                loss = F.cross_entropy(other(a), b)
                loss.backward()
                return loss

            step(given, target)
            step(given, target)
            spec = step.program.spec
            launches = [
                (launch.title, launch.global_size, launch.local_size, spec.sources[launch.source].text)
                for launch in spec.launches
            ]
            found.append((spec.chunks, launches))
        assert found[0] == found[1]
