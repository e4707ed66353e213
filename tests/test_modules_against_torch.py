"""PyTorch's own sample inputs of modules, through tinyedge's: results, gradients, buffers, and state dicts both ways.

Run with ``-m torch`` where PyTorch and ``expecttest`` are installed. Each module of PyTorch's ``module_db`` is made
with the arguments of its samples, in both libraries; ours gets PyTorch's weights, and is trained and evaluated.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tinyedge as te
from tests.test_against_torch import Translation, difference, flat, is_refusal
from tinyedge.backends import Backend

pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore")]

MAX_SAMPLES = 24
ATOL = 5e-5
"""Absolute, of results; of a gradient, of its largest element if that is above 1."""


@functools.cache
def infos() -> dict[str, Any]:
    pytest.importorskip("torch")
    pytest.importorskip("expecttest")
    from torch.testing._internal.common_modules import module_db

    return {info.name.removeprefix("nn."): info for info in module_db}


def names() -> list[str]:
    try:
        import expecttest  # noqa: F401
        import torch  # noqa: F401
    except ImportError:
        return ["none"]
    return sorted(infos())


class Same(Translation):
    """Arguments of a call, in which the same tensor may stand twice."""

    def __call__(self, item: Any) -> Any:
        for leaf, made in self.pairs:
            if leaf is item:
                return made
        return super().__call__(item)


class Settings(Translation):
    """Arguments of a constructor, layers of a transformer among them."""

    def __call__(self, item: Any) -> Any:
        import torch

        if isinstance(item, (torch.nn.TransformerEncoderLayer, torch.nn.TransformerDecoderLayer)):
            attention = item.self_attn
            return getattr(te.nn, type(item).__name__)(
                attention.embed_dim, attention.num_heads, item.linear1.out_features, item.dropout.p,
                batch_first=attention.batch_first, norm_first=item.norm_first, bias=item.linear1.bias is not None,
                activation=item.activation.__name__,
            )  # fmt: skip
        return super().__call__(item)


def drawn(module: Any) -> bool:
    """Whether the module draws numbers as it is called."""
    return module.training and any(
        getattr(part, "p", 0) or getattr(part, "dropout", 0)
        for part in module.modules()
        if "Dropout" in type(part).__name__ or isinstance(getattr(part, "dropout", None), float)
    )


def seeded(results: list[Any], library: Any) -> Any:
    """The sum of the differentiable results, each element by a factor of its own."""
    random = np.random.default_rng(0)
    total: Any = 0.0
    for y in results:
        factor = random.uniform(0.5, 1.5, tuple(y.shape)).astype(np.float32)
        if y.requires_grad:
            total = total + (y * library.tensor(factor)).sum()
    return total


def wrong_of(info: Any, sample: Any, training: bool, backend: Backend) -> str:
    """What is wrong with one sample, or ""; raises what a call raises."""
    import torch

    made, called = sample.constructor_input, sample.forward_input
    torch.manual_seed(0)
    theirs = info.module_cls(*made.args, **made.kwargs).train(training)
    if drawn(theirs):
        return ""
    settings, translate = Settings(backend), Same(backend)
    ours = getattr(te.nn, info.module_cls.__name__)(*settings(made.args), **settings(made.kwargs)).train(training)
    if info.is_lazy:  # its weights are there after a call
        with torch.no_grad():
            theirs(*called.args, **called.kwargs)
        ours(*settings(called.args), **settings(called.kwargs))
    ours.load_state_dict({key: te.tensor(value.numpy()) for key, value in theirs.state_dict().items()})
    got = [y for y in flat(ours(*translate(called.args), **translate(called.kwargs))) if y is not None]
    expected = [y for y in flat(theirs(*called.args, **called.kwargs)) if y is not None]
    if len(got) != len(expected):
        return f"{len(got)} results, expected {len(expected)}"
    for mine, wanted in zip(got, expected, strict=True):
        if text := difference("the result", mine, wanted, True, ATOL):
            return text
    loss = seeded(expected, torch)
    parameters = dict(theirs.named_parameters())
    if isinstance(loss, torch.Tensor) and loss.requires_grad:
        own = dict(ours.named_parameters())
        if own.keys() != parameters.keys():
            return f"parameters {sorted(own)}, expected {sorted(parameters)}"
        pairs = [(f"input {k}", leaf, mine) for k, (leaf, mine) in enumerate(translate.pairs)]
        pairs += [(key, leaf, own[key]) for key, leaf in parameters.items() if leaf.requires_grad]
        found = torch.autograd.grad(loss, [leaf for _, leaf, _ in pairs], allow_unused=True)  # inputs may be results
        seeded(got, te).backward()
        for (what, leaf, mine), wanted in zip(pairs, found, strict=True):
            wanted = torch.zeros_like(leaf) if wanted is None else wanted
            grad = mine.grad if mine.grad is not None else te.tensor(np.zeros(mine.shape, mine.dtype.numpy))
            atol = ATOL * max(1.0, float(wanted.abs().max()) if wanted.numel() else 1)
            if text := difference(f"the gradient of {what}", grad, wanted, True, atol):
                return text
    after = {key: value.numpy() for key, value in ours.state_dict().items()}
    wanted_after = theirs.state_dict()
    if [*after] != [*wanted_after]:
        return f"the state dict has {[*after]}, expected {[*wanted_after]}"
    theirs.load_state_dict({key: torch.from_numpy(np.array(value)) for key, value in after.items()})
    for key, value in wanted_after.items():
        if not np.allclose(after[key], value.numpy(), 1e-4, 1e-5):
            return f"{key} is {after[key].reshape(-1)[:6]}, expected {value.reshape(-1)[:6]}"
    if info.is_lazy or any("Attention" in type(part).__name__ or hasattr(part, "options") for part in theirs.modules()):
        return ""  # the reprs of these name what is PyTorch's own
    if repr(ours) != repr(theirs):
        return f"the repr is {ours!r}, expected {theirs!r}"
    return ""


@pytest.mark.parametrize("name", names())
def test_samples_of_modules(name: str, backend: Backend, record_property: Callable[[str, object], None]) -> None:
    import torch

    info = infos()[name]
    agree, refused, wrong, texts = 0, 0, [], []
    for training in (True, False):
        torch.manual_seed(0)
        dtype = torch.float64 if "Fractional" in name else torch.float32  # as its samples of places are
        samples = info.module_inputs_func(info, "cpu", dtype, True, training)
        for sample in samples[:: -(-len(samples) // MAX_SAMPLES)]:
            if sample.forward_input is None:
                continue
            try:
                text = wrong_of(info, sample, training, backend)
            except Exception as error:
                if is_refusal(error) or (isinstance(error, AttributeError) and "is not in tinyedge" in str(error)):
                    refused += 1
                    texts.append(str(error))
                    continue
                text = f"{type(error).__name__}: {error}"
            if text:
                made = sample.constructor_input
                wrong.append(f"{name}({made.args!r:.200}, {made.kwargs!r:.200}), {sample.desc}: {text:.400}")
            else:
                agree += 1
    record_property("against torch", (f"nn.{name}", backend.name, agree, refused, len(wrong)))
    record_property("refused", texts[:3])
    assert not wrong, f"{len(wrong)} of {len(wrong) + agree + refused} samples:\n" + "\n".join(wrong[:4])


@pytest.mark.parametrize("name", names())
def test_error_inputs_of_modules(name: str, backend: Backend) -> None:
    """What PyTorch's ModuleInfos say must be refused is refused by an error of tinyedge's own."""
    import torch
    from torch.testing._internal.common_modules import ModuleErrorEnum

    info = infos()[name]
    if info.module_error_inputs_func is None:
        pytest.skip("PyTorch has no error inputs for it")
    answered = []
    for training in (True, False):
        for error_input in info.module_error_inputs_func(info, "cpu", torch.float32, True, training):
            sample = error_input.module_error_input
            made, called = sample.constructor_input, sample.forward_input
            translate = Translation(backend)
            what = f"{name}({made.args!r:.200}, {made.kwargs!r:.200})"
            try:
                module = getattr(te.nn, info.module_cls.__name__)(*translate(made.args), **translate(made.kwargs))
                if error_input.error_on is not ModuleErrorEnum.CONSTRUCTION_ERROR:
                    module(*translate(called.args), **translate(called.kwargs))
            except Exception as error:
                if is_refusal(error):
                    continue
                what += f": {type(error).__name__}: {error}"
            answered.append(what)
    assert not answered, "\n".join(answered[:4])
