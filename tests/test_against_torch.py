"""PyTorch's own sample inputs, through tinyedge: a value or a gradient may be refused, but never be wrong. And its own
error inputs, which must be refused.

Run with ``-m torch`` where PyTorch and ``expecttest`` are installed. For each public function, the samples of PyTorch's
OpInfo of that name are called in both, forward and gradients. A call that tinyedge refuses, with an error of its own or
because it has no such parameter, is counted; the table at the end of the run shows how often.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tinyedge as te
from tinyedge.autograd.methods import Methods
from tinyedge.autograd.registry import entries, functions
from tinyedge.backends import Backend
from tinyedge.errors import TinyedgeError
from tinyedge.tensor import Tensor

pytestmark = [
    pytest.mark.torch,
    pytest.mark.filterwarnings("ignore"),  # PyTorch's test helpers warn about PyTorch's own deprecations
]

MAX_SAMPLES = 40
RTOL, ATOL = 1e-4, 2e-5  # PyTorch's own are 1.3e-6 and 1e-5, for a result of the same algorithm
LOOSER = {"layer_norm": 1e-3}  # of one element, its gradient is 0; PyTorch's rounding is multiplied by 1 / sqrt(eps)
LOOSER |= {"svd": 2e-4, "eigh": 2e-4}  # quotients by differences of eigenvalues
LOOSER |= {"ctc_loss": 5e-3}  # exponentials of logarithms near -300
LOOSER |= {"scaled_dot_product_attention": 1e-4}  # scores near 200, where floats lie 1e-5 apart
LOOSER |= {"cov": 1e-4}  # differences of numbers near 100
LOOSER |= {"logcumsumexp": 5e-3}  # the logarithms are near 10,000, where floats lie 1e-3 apart
OF_THE_LARGEST = {"matrix_exp": 1e-5}
"""Functions whose errors are relative to the largest element of a matrix, of values and of gradients."""

RANDOM = {"bernoulli", "dropout", "empty", "empty_like", "normal_", "rand", "rand_like", "randint", "randn"}
RANDOM |= {"multinomial", "normal", "poisson", "randint_like", "exponential_", "geometric_", "cauchy_", "random_"}
RANDOM |= {"alpha_dropout", "feature_alpha_dropout", "dropout1d", "dropout2d", "dropout3d", "gumbel_softmax"}
RANDOM |= {"multi_head_attention_forward"}  # its sample drops probabilities
RANDOM |= {
    "fractional_max_pool2d",
    "fractional_max_pool3d",
    "new_empty",
    "log_normal_",
    "randn_like",
    "randperm",
    "rrelu",
    "uniform_",
}
"""Functions whose values are not determined: dtype and shape are compared."""

SIGNS = {"linalg.eigh", "linalg.svd", "svd"}
"""Functions whose vectors have no determined sign: sizes are compared, and their gradients."""

TAKES_NUMBERS = {"clamp_max", "clamp_min"}
"""Functions of whose error inputs only numbers in the place of a tensor are errors, also in PyTorch itself."""

METHODS = [
    name
    for name in {**vars(Methods), **vars(Tensor)}
    if callable(getattr(Tensor, name)) and (name[0] != "_" or name.startswith("__r"))
]
NAMES = sorted({*functions, *METHODS, "__getitem__", "T", "mT"} - {"__repr__"})


@functools.cache
def op_infos() -> dict[str, list[Any]]:
    """PyTorch's OpInfos by the last part of their names."""
    pytest.importorskip("torch")
    pytest.importorskip("expecttest")
    from torch.testing._internal.common_methods_invocations import op_db

    found: dict[str, list[Any]] = {}
    for info in op_db:
        if info.name.count(".") == 0 or info.name.startswith("nn.functional."):
            found.setdefault(info.name.rpartition(".")[2], []).append(info)
        elif info.name.startswith(("linalg.", "special.")):
            found.setdefault(info.name.replace(".", "_"), []).append(info)
    return found


def infos_of(name: str) -> list[Any]:
    """The OpInfos of a function, at each of the places where it is."""
    entry = entries.get(name)
    names = {name} | ({f"{entry.space}_{entry.shown_name}"} if entry is not None and entry.space else set())
    return [info for found in sorted(names) for info in op_infos().get(found, [])]


def callables(name: str) -> Iterator[tuple[str, Callable[..., Any]]]:
    if name in ("T", "mT"):
        yield name, lambda x: getattr(x, name)
    elif name in ("embedding", "embedding_bag"):  # PyTorch's samples have these two in another order
        yield name, lambda weight, index, **options: functions[name](index, weight, **options)
    elif name == "einsum":
        yield name, lambda tensors, equation: functions[name](equation, *tensors)
    elif name == "polygamma":
        yield name, lambda x, n: functions[name](n, x)
    elif name == "where":
        yield name, lambda x, condition, other: functions[name](condition, x, other)
    elif name in functions:
        yield name, functions[name]
    if name in METHODS or name == "__getitem__":
        yield f"Tensor.{name}", lambda x, *args, **kwargs: getattr(x, name)(*args, **kwargs)


def of_product(function: Callable[..., Any]) -> Callable[..., Any]:
    """What PyTorch's samples of matrices of a lower rank are given to."""
    return lambda a, b, **options: function(a @ b.mT, **options)


def samples_of(info: Any) -> list[Any]:
    """At most MAX_SAMPLES float32 samples, from the whole range of those that there are; the same in each run."""
    import torch

    torch.manual_seed(0)
    dtype = torch.float32 if torch.float32 in info.dtypes else torch.int64
    samples = list(info.sample_inputs("cpu", dtype, requires_grad=info.supports_autograd and dtype.is_floating_point))
    stride = -(-len(samples) // MAX_SAMPLES)
    return samples[::stride]


class Translation:
    """Arguments of PyTorch as arguments of tinyedge, and the tensors among them that ask for gradients."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.pairs: list[tuple[Any, Tensor]] = []

    def __call__(self, item: Any) -> Any:
        import torch

        if isinstance(item, torch.Tensor):
            made = te.tensor(item.detach().resolve_neg().numpy().copy(), device=self.backend)
            if item.requires_grad:
                made.requires_grad_()
                self.pairs.append((item, made))
            return made
        if isinstance(item, torch.nn.Module):
            return getattr(te.nn, type(item).__name__)()
        if isinstance(item, torch.memory_format):
            return getattr(te, str(item).removeprefix("torch."))
        if isinstance(item, getattr(torch.nn, "LinearCrossEntropyOptions", ())):  # newer than PyTorch 2.11
            return te.nn.LinearCrossEntropyOptions(batch_chunk_size=item.batch_chunk_size)
        if isinstance(item, torch.Size):
            return tuple(item)
        if isinstance(item, (list, tuple)):
            return type(item)(self(part) for part in item)
        if isinstance(item, dict):
            return {key: self(value) for key, value in item.items()}
        if isinstance(item, torch.dtype):
            return str(item).removeprefix("torch.")
        if isinstance(item, torch.device) or item == "cpu":
            return self.backend.name
        return item


def flat(result: Any) -> list[Any]:
    if isinstance(result, (list, tuple)):
        return [leaf for part in result for leaf in flat(part)]
    return [result]


def is_of_functional(label: str) -> bool:
    """Whether a function is in ``nn.functional`` only: a method of its name is another function."""
    return label in entries and entries[label].functional and not entries[label].top


def is_refusal(error: Exception) -> bool:
    """tinyedge's own errors, and Python's for a parameter that a function does not have."""
    text = str(error)
    return isinstance(error, TinyedgeError) or (
        isinstance(error, TypeError)
        and any(part in text for part in ("unexpected keyword", "positional argument", "required keyword-only"))
    )


def difference(
    what: str, got: Any, expected: Any, values: bool, atol: float = ATOL, of_largest: float | None = None
) -> str:
    """What is wrong with ``got``, or "". ``of_largest``: how far it may be off, of the largest of its matrix."""
    import torch

    if not isinstance(expected, torch.Tensor):
        return "" if got == pytest.approx(expected, rel=RTOL, nan_ok=True) else f"{what} is {got}, expected {expected}"
    if tuple(got.shape) != tuple(expected.shape):
        return f"{what} has shape {tuple(got.shape)}, expected {tuple(expected.shape)}"
    if got.dtype.name != str(expected.dtype).removeprefix("torch."):
        return f"{what} is {got.dtype.name}, expected {expected.dtype}"
    if values:
        if expected.dtype is torch.bfloat16:  # which NumPy lacks
            expected = expected.float()
        mine, theirs = got.detach().numpy(), expected.detach().numpy(force=True)
        if of_largest and theirs.size:
            largest = np.abs(theirs).max((-2, -1), keepdims=True)
            mine, theirs, atol = mine / largest, theirs / largest, of_largest
        if not np.allclose(mine, theirs, RTOL, atol, equal_nan=True):
            return f"{what} is {mine.reshape(-1)[:6]}, expected {theirs.reshape(-1)[:6]}"
    return ""


def compare(
    function: Callable[..., Any], sample: Any, expected: list[Any], name: str, backend: Backend, values: bool
) -> str:
    """What is wrong with one call, or ""; raises what the call raises."""
    import torch

    translate = Translation(backend)
    arguments = translate((sample.input, *sample.args))
    keywords = translate(sample.kwargs)
    got = flat(function(*arguments, **keywords))
    if name in SIGNS:
        if len(got) == 3:  # nor those that belong to no singular value
            k = got[1].shape[-1]
            got, expected = (
                [u[..., :k], s, v[..., :k, :] if name == "linalg.svd" else v[..., :k]] for u, s, v in (got, expected)
            )
        got, expected = [y.abs() for y in got], [y.abs() for y in expected]
    if name == "linalg.lstsq":  # one of PyTorch's entries returns a part
        got = got[: len(expected)]
    if len(got) != len(expected):
        return f"{len(got)} results, expected {len(expected)}"
    for mine, theirs in zip(got, expected, strict=True):
        if text := difference("the result", mine, theirs, values, ATOL, OF_THE_LARGEST.get(name)):
            return text
    floating = [k for k, y in enumerate(expected) if isinstance(y, torch.Tensor) and y.requires_grad]
    if not values or not floating:
        return ""
    random = np.random.default_rng(0)
    seeds = {k: random.uniform(0.5, 1.5, tuple(expected[k].shape)).astype(np.float32) for k in floating}
    leaves = [leaf for leaf, _ in translate.pairs]
    wanted = torch.autograd.grad(
        [expected[k] for k in floating],
        leaves,
        [torch.from_numpy(np.asarray(seeds[k])).to(expected[k].dtype) for k in floating],
        allow_unused=True,
    )
    for k in floating:
        if got[k].requires_grad:
            got[k].backward(te.tensor(seeds[k], device=backend), retain_graph=True)
    for number, ((leaf, mine), theirs) in enumerate(zip(translate.pairs, wanted, strict=True)):
        theirs = torch.zeros_like(leaf) if theirs is None else theirs
        grad = mine.grad if mine.grad is not None else te.tensor(np.zeros(mine.shape, mine.dtype.numpy), device=backend)
        atol = LOOSER.get(name.rpartition(".")[2], ATOL)
        if text := difference(f"gradient {number}", grad, theirs, True, atol, OF_THE_LARGEST.get(name)):
            return text
    return ""


@pytest.mark.parametrize("name", NAMES)
def test_samples_of_torch(name: str, backend: Backend, record_property: Callable[[str, object], None]) -> None:
    infos = infos_of(name)
    if not infos:
        pytest.skip("PyTorch has no samples for it")
    for label, function in callables(name):
        agree, refused, wrong = 0, 0, []
        for info in infos:
            if info.name.startswith("nn.functional.") and label.startswith("Tensor."):
                continue
            if is_of_functional(label) and not info.name.startswith("nn.functional."):
                continue
            for sample in samples_of(info):
                try:
                    expected = flat(info.op(sample.input, *sample.args, **sample.kwargs))
                except NotImplementedError:  # PyTorch's own, on the CPU
                    continue
                try:
                    determined = name not in RANDOM and not sample.kwargs.get("dropout_p")
                    called = of_product(function) if info.variant_test_name == "singular" else function
                    text = compare(called, sample, expected, info.name, backend, values=determined)
                except Exception as error:
                    if is_refusal(error):
                        refused += 1
                        continue
                    text = f"{type(error).__name__}: {error}"
                if text:
                    wrong.append(f"{label}({sample.input!r:.200}, {sample.args!r:.200}, {sample.kwargs}): {text:.400}")
                else:
                    agree += 1
        record_property("against torch", (label, backend.name, agree, refused, len(wrong)))
        assert not wrong, f"{len(wrong)} of {len(wrong) + agree + refused} samples:\n" + "\n".join(wrong[:4])


@pytest.mark.parametrize("name", NAMES)
def test_error_inputs_of_torch(name: str, backend: Backend, record_property: Callable[[str, object], None]) -> None:
    """What PyTorch's OpInfos say must be refused is refused by an error of tinyedge's own."""
    answered, count = [], 0
    for info in infos_of(name):
        if info.error_inputs_func is None:
            continue
        for error_input in info.error_inputs("cpu"):
            sample = error_input.sample_input
            for label, function in callables(name):
                is_method = label.startswith("Tensor.")
                if is_of_functional(label) and not info.name.startswith("nn.functional."):
                    continue
                if "out" in sample.kwargs or (is_method and info.name.startswith("nn.functional.")):
                    continue
                if name in TAKES_NUMBERS and not isinstance(sample.input, (int, float)):
                    continue
                if is_method and isinstance(sample.input, (int, float)):  # the number's own method
                    continue
                translate = Translation(backend)
                try:
                    arguments = translate((sample.input, *sample.args))
                    keywords = translate(sample.kwargs)
                except (TinyedgeError, ValueError):  # complex numbers, or more dims than NumPy has
                    continue
                count += 1
                what = f"{label}({sample.input!r:.200}, {sample.args!r:.200}, {sample.kwargs})"
                try:
                    function(*arguments, **keywords)
                except Exception as error:
                    if is_refusal(error):
                        continue
                    what += f": {type(error).__name__}: {error}"
                answered.append(what)
    if not count:
        pytest.skip("PyTorch has no error inputs for it")
    record_property("errors of torch", (count - len(answered), len(answered)))
    assert not answered, f"{len(answered)} of {count}:\n" + "\n".join(answered[:4])


MODELS: dict[str, tuple[str, str, tuple[int, ...]]] = {
    "lenet5": ("lenet", "lenet5()", (2, 1, 28, 28)),
    "mobilenet_v1": ("mobilenet", "mobilenet_v1(0.25, 4, dropout=0.0)", (2, 3, 64, 64)),
    "mobilenet_v2": ("mobilenet", "mobilenet_v2(0.35, 4, dropout=0.0)", (2, 3, 64, 64)),
    "resnet18": ("resnet", "resnet18(4)", (2, 3, 64, 64)),
    "transformer": ("transformer", "transformer(16, 32, 2, 2, 8)", (2, 6)),
}


def on_torch(module: str, call: str) -> Any:
    """What ``call`` gives where a model's own source imports PyTorch instead: the names are PyTorch's."""
    source = Path(te.models.__file__).with_name(module + ".py").read_text()
    for ours, theirs in (
        ("tinyedge.nn", "torch.nn"),
        ("tinyedge.tensor", "torch"),
        ("tinyedge import nn", "torch import nn"),
    ):
        source = source.replace("from " + ours, "from " + theirs)
    namespace: dict[str, Any] = {"__name__": module}
    exec(compile(source, module, "exec"), namespace)
    return eval(call, namespace)


@pytest.mark.parametrize("training", [False, True], ids=["frozen", "training"])
@pytest.mark.parametrize("name", MODELS)
def test_models(name: str, training: bool, backend: Backend) -> None:
    """Loss and gradients of each model are those of its own source run on PyTorch, in float64, same weights."""
    torch = pytest.importorskip("torch")
    module, call, shape = MODELS[name]
    torch.manual_seed(0)
    theirs = on_torch(module, call).double().train()
    ours = eval(call, vars(te.models)).double().train()
    ours.load_state_dict({key: value.numpy() for key, value in theirs.state_dict().items()})
    if not training:
        for model in (ours, theirs):
            for part in model.modules():
                if "BatchNorm" in type(part).__name__:
                    part.eval()
    random = np.random.default_rng(0)
    x = random.integers(0, 16, shape) if len(shape) == 2 else random.standard_normal(shape)
    results = []
    for package, model in ((te, ours), (torch, theirs)):
        logits = model(package.tensor(x)).flatten(0, -2)
        target = package.tensor(np.arange(logits.shape[0]) % 4)
        loss = package.nn.functional.cross_entropy(logits, target)
        loss.backward()
        gradients = {key: param.grad.numpy() for key, param in model.named_parameters()}
        results.append((loss.item(), gradients, {key: b.numpy() for key, b in model.named_buffers()}))
    (loss_a, grads_a, buffers_a), (loss_b, grads_b, buffers_b) = results
    assert abs(loss_a - loss_b) < 1e-9 * abs(loss_b)
    assert list(grads_a) == list(grads_b)
    largest = max(np.abs(gradient).max() for gradient in grads_b.values())
    for key, gradient in grads_b.items():
        np.testing.assert_allclose(grads_a[key], gradient, rtol=1e-6, atol=1e-8 * largest, err_msg=key)
    for key, value in buffers_b.items():
        np.testing.assert_allclose(buffers_a[key], value, rtol=1e-6, atol=1e-9, err_msg=key)
