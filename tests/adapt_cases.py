"""Small models, and ways to train parts of them, each with a plain reference: the same function in float64 on NumPy's
backend, with whole weights, one batch for a minibatch, no checkpoint, no program, and no quantised block.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

import tinyedge as te
import tinyedge.nn.functional as F
from tinyedge import nn, optim
from tinyedge.adapt.layers import NORMS
from tinyedge.adapt.lora import LoraConv, LoraEmbedding, LoraLayer, LoraNode

CLASSES = 5
LR = 0.05


class Mlp(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.stem = nn.Linear(width, width)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU(), nn.Linear(width, width, bias=False))
            for _ in range(2)
        )
        self.head = nn.Linear(width, CLASSES)

    def forward(self, x: te.Tensor) -> te.Tensor:
        x = F.silu(self.stem(x))
        for block in self.blocks:
            x = x + block(x)
        y: te.Tensor = self.head(x)
        return y


class Cnn(nn.Module):
    """Convolutions with batch norms, one of them depthwise, and a residual."""

    def __init__(self, channels: int, side: int, norm: Callable[[int], nn.Module], bias: bool) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, channels, 3, padding=1, bias=bias), norm(channels), nn.SiLU())
        self.blocks = nn.ModuleList(
            [
                nn.Sequential(
                    nn.Conv2d(channels, channels, side, padding="same", bias=bias), norm(channels), nn.Tanh()
                ),
                nn.Sequential(
                    nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False), norm(channels), nn.SiLU()
                ),
            ]
        )
        self.head = nn.Linear(channels, CLASSES)

    def forward(self, x: te.Tensor) -> te.Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = x + block(x)
        y: te.Tensor = self.head(x.mean((2, 3)))
        return y


class Encoder(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.bert = te.models.bert(
            {
                "vocab_size": 40, "hidden_size": width, "intermediate_size": width, "num_hidden_layers": 2,
                "num_attention_heads": 4, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
                "initializer_range": 0.15,
            },
            add_pooling_layer=False,
        )  # fmt: skip
        self.blocks = self.bert.encoder.layer
        self.head = nn.Linear(width, CLASSES)

    def forward(self, x: te.Tensor) -> te.Tensor:
        y: te.Tensor = self.head(self.bert.embed(x))
        return y


class Decoder(nn.Module):
    def __init__(self, model: nn.Module, blocks: Any) -> None:
        super().__init__()
        self.model = model
        self.blocks = blocks

    def forward(self, x: te.Tensor) -> te.Tensor:
        y: te.Tensor = self.model(x)
        return y


def _transformer(width: int) -> nn.Module:
    model = te.models.transformer(40, width, 2, 4, 16)
    return Decoder(model, model.blocks)


def _llama(width: int) -> nn.Module:
    model = te.models.llama(
        {
            "vocab_size": 40, "hidden_size": width, "intermediate_size": width, "num_hidden_layers": 2,
            "num_attention_heads": 4, "num_key_value_heads": 2, "initializer_range": 0.15,
        }
    )  # fmt: skip
    return Decoder(model, model.model.layers)


@cache
def _file(kind: str) -> str:
    from tests.test_cli_models import onnx_file
    from tests.test_tflite import network

    path = Path(tempfile.mkdtemp()) / f"a.{kind}"
    (onnx_file if kind == "onnx" else network)(path)
    return str(path)


class Imported(nn.Module):
    """A model of a file, that ends where its softmax begins."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.graph = te.load_model(_file(kind)).logits()
        self.kind = kind
        self.blocks = [self.graph]

    def forward(self, x: te.Tensor) -> te.Tensor:
        y = self.graph(x)
        return y if self.kind == "onnx" else y[0]


TEXT = ("transformer", "llama", "encoder")
FILES = ("onnx", "tflite")
NETS = ("mlp", "cnn", "cnn_group", *TEXT, *FILES)
CHOICES = (
    "all", "lora", "rslora", "dora", "lora_all", "lora_two", "lora_head", "bias_only", "norm_only", "head_only", "last",
    "except",
)  # fmt: skip
BASES = ("float32", "int8", "q8_0", "q4_0", "q4_1", "q4_k", "q6_k")
OPTIMIZERS = ("sgd", "adamw", "rmsprop")


def build(net: str, wide: bool, bias: bool = True) -> nn.Module:
    """``wide``: rows hold blocks of 256. ``bias``: of convolutions; a norm over the batch takes it out again."""
    width = 256 if wide else 32
    if net == "mlp":
        return Mlp(width)
    if net == "cnn":
        return Cnn(64 if wide else 32, 2 if wide else 3, nn.BatchNorm2d, bias)
    if net == "cnn_group":
        return Cnn(64 if wide else 32, 2 if wide else 3, lambda channels: nn.GroupNorm(4, channels), bias)
    if net == "encoder":
        return Encoder(width)
    if net in FILES:
        return Imported(net)
    return _transformer(width) if net == "transformer" else _llama(width)


def draw(net: str, random: np.random.Generator, count: int) -> tuple[Any, Any]:
    """A minibatch: inputs and labels, with the samples along the first dim."""
    if net in TEXT:
        tokens = random.integers(1, 40, (count, 7)).astype(np.int32)
        labels = random.integers(0, 40, (count, 7)).astype(np.int32)
        return tokens, (labels[:, 0] % CLASSES if net == "encoder" else labels)
    shape = {"mlp": None, "onnx": (3, 12, 12), "tflite": (7, 7, 2)}.get(net, (3, 5, 5))
    return random.standard_normal((count, *shape) if shape else (count, 32)).astype(np.float32), random.integers(
        0, 4, count
    ).astype(np.int32)


def loss_of(model: nn.Module, x: te.Tensor, y: te.Tensor) -> te.Tensor:
    logits = model(x)
    return F.cross_entropy(logits.flatten(0, -2), y.flatten())


@dataclass(frozen=True)
class Case:
    net: str
    choice: str = "lora"
    base: str = "float32"
    first: bool = False
    """Quantise before anything is chosen."""
    statistics: str = "frozen"
    """Of batch norms: "frozen" or "minibatch"."""
    accumulate: int | None = 2
    """None: no accumulation by the optimizer; two samples are added up by hand."""
    short: bool = False
    """The last minibatch ends short, and is flushed."""
    checkpointed: int = 0
    """Bits: which blocks are computed again in backward."""
    compiled: str = "no"
    """"no", "sample" (the backward of a sample), or "whole" (with the update)."""
    optimizer: str = "sgd"
    seed: int = 0


def wanted(case: Case, model: nn.Module) -> set[str]:
    """The names of what shall train, said without ``te.adapt``."""
    names = [name for name, _ in model.named_parameters()]
    if case.choice == "all":
        return set(names)
    if "lora" in case.choice or case.choice == "dora":
        found = {name for name in names if ".lora_" in name}
        return found | ({name for name in names if name.startswith("head.")} if case.choice == "lora_head" else set())
    if case.net in FILES:
        of = {
            "onnx": {
                "bias_only": {"conv.bias", "bn.bias", "fc.bias"}, "norm_only": {"bn.weight", "bn.bias"},
                "head_only": {"fc.weight", "fc.bias"}, "last": {"bn.weight", "bn.bias", "fc.weight", "fc.bias"},
                "except": {"fc.weight", "fc.bias"},
            },
            "tflite": {
                "bias_only": {"conv/b", "deep/b", "head/b", "shift"}, "head_only": {"head/w", "head/b"},
                "last": {"head/w", "head/b", "shift"}, "except": {"head/w", "head/b"},
            },
        }  # fmt: skip
        return {f"graph.{name}" for name in of[case.net][case.choice]}
    if case.choice == "bias_only":
        return {name for name in names if name.endswith("bias")}
    if case.choice == "norm_only":
        norms = [path for path, module in model.named_modules() if isinstance(module, NORMS)]
        return {name for name in names if name.rpartition(".")[0] in norms}
    head = {"transformer": "model.head.", "llama": "model.lm_head."}.get(case.net, "head.")
    heads = {name for name in names if name.startswith(head)}
    if case.choice in ("head_only", "except"):
        return heads
    before = {
        "mlp": "blocks.1.3.", "cnn": "blocks.1.1.", "cnn_group": "blocks.1.1.", "transformer": "model.norm.",
        "llama": "model.model.norm.", "encoder": "bert.encoder.layer.1.output.LayerNorm.",
    }[case.net]  # fmt: skip
    return heads | {name for name in names if name.startswith(before)}


def targets(case: Case) -> Any:
    """Layers for adapters."""
    return {
        "mlp": ["1", "stem"], "cnn": ["stem.0", "blocks.0.0"], "cnn_group": ["stem.0", "head"],
        "transformer": ["qkv", "token_embedding"], "llama": ["q_proj", "down_proj", "embed_tokens"],
        "encoder": ["query", "value", "word_embeddings"],
    }.get(case.net, ".*")  # fmt: skip


def adapt(case: Case, model: nn.Module) -> None:
    if case.first and case.base != "float32":
        te.quantize(model, case.base)
    few = targets(case)
    if case.choice in ("lora", "rslora", "dora", "lora_head", "lora_all", "lora_two"):
        options: dict[str, Any] = {"use_rslora": case.choice == "rslora", "dora": case.choice == "dora"}
        if case.choice == "lora_head":
            options["train_too"] = ["head"]
        rank = 2
        if case.choice == "lora_all" and case.net.startswith("cnn"):  # one has groups, which divide its rank
            rank, few = model.head.in_features, ["blocks.0.0", "blocks.1.0"]
        elif case.choice == "lora_all":
            few = te.adapt.adaptable(model)
        te.adapt.lora(model, rank=rank, alpha=3, targets=few, **options)
        if case.choice == "lora_two":
            te.adapt.lora(model, rank=3, alpha=2, targets=few, name="second")
            te.adapt.set_adapter(model, ["default", "second"])
            for name, param in model.named_parameters():
                param.requires_grad_(".lora_" in name)
    elif case.choice == "except":
        names = {"transformer": "model.head", "llama": "model.lm_head", "onnx": "graph.fc", "tflite": "graph.head*"}
        model.freeze(except_=names.get(case.net, "head"))
    elif case.choice == "last":
        te.adapt.last(model, 2)
    elif case.choice != "all":
        getattr(te.adapt, case.choice)(model)
    else:
        model.freeze_batch_norm_statistics()
    if case.statistics == "minibatch":
        model.freeze_batch_norm_statistics(False)
    if not case.first and case.base != "float32":
        te.quantize(model, case.base)


def _whole(layer: Any, forward: Callable[..., Any]) -> Callable[..., te.Tensor]:
    """A layer with adapters, computed with the sum of all weights: ``forward(x, weight, *others)``."""

    def run(x: te.Tensor, *others: te.Tensor | None) -> te.Tensor:
        own = layer.base_layer.weight
        weight = own
        for name in layer.active:
            a, b, config = layer.lora_A[name], layer.lora_B[name], layer.configs[name]
            scale = config.alpha / (config.rank**0.5 if config.use_rslora else config.rank)
            out = 0
            if isinstance(layer, LoraEmbedding):
                delta, out = (b @ a).T, 1
            elif isinstance(layer, LoraConv) and layer.base_layer.groups > 1:
                groups = layer.base_layer.groups  # each output sees all inputs, through the ranks of its group
                split = b.reshape(groups, -1, b.shape[1]) @ a.reshape(groups, b.shape[1], -1)
                delta = split.reshape(b.shape[0], *a.shape[1:])
                spread = te.zeros(own.shape[0], a.shape[1], *own.shape[2:], dtype=own.dtype)
                per, outs = a.shape[1] // groups, own.shape[0] // groups
                parts = []
                for group in range(groups):
                    rows = own.narrow(0, group * outs, outs)
                    zero = spread.narrow(0, 0, outs)
                    cut = [zero.narrow(1, 0, group * per), rows, zero.narrow(1, 0, a.shape[1] - (group + 1) * per)]
                    parts.append(te.cat(cut, 1))
                weight = te.cat(parts, 0)
            elif isinstance(layer, LoraNode) and layer.base_layer.is_turned:
                delta, out = (b @ a).T, 1
            else:
                delta = (b.flatten(1) @ a.flatten(1)).reshape(own.shape)
            weight = weight + delta * scale
            if config.dora:
                dims = [dim for dim in range(own.ndim) if dim != out]
                lengths = ((own + delta * scale).detach() ** 2).sum(dims).sqrt()
                shape = [-1 if dim == out else 1 for dim in range(own.ndim)]
                weight = weight * (layer.lora_magnitude[name] / lengths).reshape(shape)
        return forward(x, weight, *others)

    return run


def reference_of(model: nn.Module, case: Case) -> nn.Module:
    """The model as it is now, with plain weights, in float64 on NumPy's backend."""
    plain = copy.deepcopy(model)
    te.adapt.dequantize(plain)
    plain.to("numpy")
    if case.net not in FILES:
        plain.double()
    for module in plain.modules():
        module.checkpoint(False)
    for module in plain.modules():
        if not isinstance(module, LoraLayer):
            continue
        base: Any = module.base_layer
        if isinstance(module, LoraEmbedding):

            def run(x: te.Tensor, weight: te.Tensor, base: Any = base) -> te.Tensor:
                return F.embedding(x, weight, base.padding_idx)
        elif isinstance(module, LoraConv):

            def run(x: te.Tensor, weight: te.Tensor, base: Any = base) -> te.Tensor:
                groups = base.groups if weight.shape[1] * base.groups == x.shape[1] else 1
                return F.conv2d(x, weight, base.bias, padding=base.padding, groups=groups)
        elif isinstance(module, LoraNode):

            def run(x: te.Tensor, weight: te.Tensor, *others: Any, base: Any = base) -> te.Tensor:
                y: te.Tensor = base(x, weight, *others[1:])
                return y
        else:

            def run(x: te.Tensor, weight: te.Tensor, base: Any = base) -> te.Tensor:
                return F.linear(x, weight, base.bias)

        module.forward = _whole(module, run)  # type: ignore[method-assign]
    return plain


def optimizer_for(case: Case, params: Any, accumulate: int | None) -> Any:
    """Where gradients are small, an update shall be too: a sign of rounding must not move a weight."""
    if case.optimizer == "sgd":
        return optim.SGD(params, lr=LR, momentum=0.9, accumulate=accumulate)
    if case.optimizer == "adamw":
        return optim.AdamW(params, lr=LR, eps=0.05, weight_decay=0.01, accumulate=accumulate)
    return optim.RMSprop(params, lr=LR / 10, eps=0.05, momentum=0.5, accumulate=accumulate)


def values_of(model: nn.Module) -> dict[str, Any]:
    state = {name: param.dequantize() for name, param in model.named_parameters()}
    state |= dict(model.named_buffers())
    return {name: value.detach().numpy().astype(np.float64) for name, value in state.items()}


def check(case: Case, updates: int = 3) -> None:
    """Train, and compare with the reference after each update."""
    te.manual_seed(case.seed)
    random = np.random.default_rng(case.seed)
    wide = case.base in ("q4_k", "q6_k")
    model = build(case.net, wide, case.statistics == "frozen")
    adapt(case, model)
    names = wanted(case, model)
    assert {name for name, param in model.named_parameters() if param.requires_grad} == names
    assert names
    with te.no_grad():
        for name, param in model.named_parameters():
            if ".lora_B" in name or (".lora_A" in name and "embed" in name):  # else A gets no gradient at first
                nn.init.normal_(param, 0.0, 0.2)
    model.train()
    plain = reference_of(model, case)
    for at, block in enumerate(model.blocks):
        if case.checkpointed >> at & 1:
            block.checkpoint()
    count = case.accumulate or 2
    ours = dict(model.named_parameters())
    joined = case.statistics == "minibatch"
    optimizer = optimizer_for(case, [ours[name] for name in sorted(names)], 1 if joined else case.accumulate)
    theirs = dict(plain.named_parameters())
    with te.use_backend("numpy"):
        other = optimizer_for(case, [theirs[name] for name in sorted(names)], 1)
    minibatches: dict[int, Any] = {}

    def sample(x: te.Tensor, y: te.Tensor) -> te.Tensor:
        loss = loss_of(model, x, y) / (count if case.accumulate is None else 1)
        loss.backward()
        if case.compiled == "whole" and case.accumulate is not None:
            optimizer.step()
        return loss

    run = te.compile(sample) if case.compiled != "no" else sample
    before = values_of(model)

    def minibatch(size: int, x: Any, y: Any) -> None:
        if joined:
            if size not in minibatches:
                norm = te.adapt.minibatch_norm(model, size)

                def step(*flat: te.Tensor) -> te.Tensor:
                    return norm.backward(loss_of, [*zip(flat[::2], flat[1::2], strict=True)])

                minibatches[size] = te.compile(step) if case.compiled != "no" else step
            minibatches[size](*[te.tensor(part[k : k + 1]) for k in range(size) for part in (x, y)])
            optimizer.step()
            return
        for k in range(size):
            run(te.tensor(x[k : k + 1]), te.tensor(y[k : k + 1]))
            if case.accumulate is not None and case.compiled != "whole":
                optimizer.step()
        if case.accumulate is None:
            optimizer.step()
            optimizer.zero_grad()
        elif size < count:
            optimizer.flush()

    for update in range(updates):
        size = count - 1 if case.short and count > 1 and update == updates - 1 and case.accumulate else count
        x, y = draw(case.net, random, size)
        if wide and case.net == "mlp":
            x = np.tile(x, (1, 8))
        with te.use_backend("numpy"):
            dtype = np.float64 if x.dtype == np.float32 and case.net not in FILES else x.dtype
            if case.net == "tflite":  # its batch is 1
                for k in range(size):
                    (loss_of(plain, te.tensor(x[k : k + 1]), te.tensor(y[k : k + 1])) / size).backward()
            else:
                loss_of(plain, te.tensor(x.astype(dtype)), te.tensor(y)).backward()
            other.step()
        minibatch(size, x, y)
    found, expected = values_of(model), values_of(plain)
    assert found.keys() == expected.keys() == before.keys()
    buffers = {name for name, _ in model.named_buffers()}
    for name, value in expected.items():
        changed = float(np.abs(value - before[name]).max(initial=0.0))
        if name in buffers:
            if not joined:
                assert np.array_equal(found[name], before[name]), f"buffer {name} changed"
        elif name not in names:
            assert np.array_equal(found[name], before[name]), f"{name} is frozen, and changed"
            continue
        else:
            assert changed > 0, f"{name} does not train in the reference"
            assert not np.array_equal(found[name], before[name]), f"{name} shall train, and did not change"
        size_of = float(np.abs(value).max(initial=0.0))
        off = float(np.abs(found[name] - value).max(initial=0.0))
        assert off <= 3e-3 * changed + 2e-6 * size_of + 1e-7, (
            f"{name} is off by {off:.2e}, where it changed by {changed:.2e}"
        )
    for name, param in ours.items():
        assert name in names or param.grad is None, f"{name} is frozen, and has a gradient"
