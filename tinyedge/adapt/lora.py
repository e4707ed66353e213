"""LoRA: low-rank adapters on frozen layers, which are trained in the place of the layers' own weights.

In: a model, and which of its layers to adapt. Out: the model, in which each of these layers is wrapped in a LoraLayer
that adds ``scale * B(A(x))`` to what the layer computes. Only A and B are trained. There may be several adapters, of
which some are active; an adapter can be merged into the layer's weight, so that it costs nothing, and taken out again.
How adapters are saved is in ``adapt/peft.py``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, cast

from tinyedge.autograd.modes import no_grad
from tinyedge.convert.graph import GraphModel, NodeLayer
from tinyedge.dtypes import DType
from tinyedge.errors import ArgumentError
from tinyedge.nn import functional as F
from tinyedge.nn import init
from tinyedge.nn.convolution import Conv1d, Conv2d, Conv3d
from tinyedge.nn.linear import Embedding, Linear
from tinyedge.nn.module import Module
from tinyedge.nn.parameters import ParameterDict
from tinyedge.tensor import Parameter, Tensor, full, require_trainable

Targets = str | Sequence[str]


@dataclass(frozen=True)
class LoraConfig:
    """What an adapter is: its rank, how its result is scaled, and the options of ``lora``."""

    rank: int = 8
    alpha: float = 16
    dropout: float = 0.0
    use_rslora: bool = False
    dora: bool = False

    @property
    def scale(self) -> float:
        """By what B(A(x)) is multiplied: alpha / rank, with ``use_rslora`` alpha / sqrt(rank)."""
        return self.alpha / (math.sqrt(self.rank) if self.use_rslora else self.rank)


class LoraLayer(Module):
    """A frozen layer, ``base_layer``, and its adapters by name. Made by ``lora``."""

    base_layer: Module
    kinds: tuple[type[Module], ...] = ()

    def __init__(self, base_layer: Module) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.lora_A = ParameterDict()
        self.lora_B = ParameterDict()
        self.lora_magnitude = ParameterDict()
        self.configs: dict[str, LoraConfig] = {}
        self.active: tuple[str, ...] = ()
        self.merged: tuple[str, ...] = ()
        self._unmerged: Tensor | None = None  # the weight as it was, since a sum that is taken back leaves rounding

    @property
    def weight(self) -> Tensor:
        """The layer's own weight, with what is merged into it."""
        weight: Tensor = self.base_layer.weight
        return weight

    @classmethod
    def shapes(cls, base: Any, rank: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The shapes of A and B for a layer."""
        raise NotImplementedError

    def added(self, x: Tensor, a: Tensor, b: Tensor) -> Tensor:
        """B(A(x))."""
        raise NotImplementedError

    def product(self, a: Tensor, b: Tensor) -> Tensor:
        """What merging adds to the weight, but for the scale."""
        raise NotImplementedError

    output_dim = 0
    """The dim of the weight along which the layer's outputs lie; with DoRA each has a length of its own."""
    channel_dim = -1
    """The dim of the layer's result along which its outputs lie."""

    def plain(self, x: Tensor) -> Tensor:
        """The layer's result without its bias."""
        raise NotImplementedError

    def fill(self, a: Parameter, b: Parameter) -> None:
        """The values with which an adapter begins: B(A(x)) is 0."""
        init.kaiming_uniform_(a, a=math.sqrt(5))
        init.zeros_(b)

    @classmethod
    def lengths_shape(cls, base: Any) -> tuple[int, ...]:
        """The shape in which PEFT's files have the lengths of DoRA, which are a vector here."""
        return (base.weight.shape[0],)

    @classmethod
    def require(cls, call: str, path: str, base: Any, config: LoraConfig) -> None:
        """Raise ArgumentError if a layer can have no such adapter."""
        shape_a, shape_b = cls.shapes(base, 1)
        most = min(math.prod(shape_a), math.prod(shape_b))
        if not 1 <= config.rank <= most:
            raise ArgumentError(
                call, f"a rank in [1, {most}] for {path!r}, as its weight has no more", f"got {config.rank}",
                "Choose a smaller rank, or leave this layer out of targets.",
            )  # fmt: skip

    def add(self, name: str, config: LoraConfig) -> None:
        """Add an adapter, which changes nothing until it is trained."""
        weight = self.weight
        dtype = weight.dtype.computes  # also where the layer is stored in 16 bits
        a, b = (
            Parameter(full(shape, 0.0, dtype=dtype, device=weight.backend))
            for shape in self.shapes(self.base_layer, config.rank)
        )
        with no_grad():
            self.fill(a, b)
        self.lora_A[name], self.lora_B[name] = a, b
        if config.dora:
            with no_grad():
                self.lora_magnitude[name] = Parameter(self.lengths(_dense(weight, dtype)))
        self.configs[name] = config

    def delta(self, name: str) -> Tensor:
        """What an adapter adds to the weight."""
        return self.product(self.lora_A[name], self.lora_B[name]) * self.configs[name].scale

    def lengths(self, weight: Tensor) -> Tensor:
        """The length of what the weight has for each output, as a vector."""
        dims = [dim for dim in range(weight.ndim) if dim != self.output_dim]
        return (weight * weight).sum(dims).sqrt()

    def along(self, dim: int, ndim: int, values: Tensor) -> Tensor:
        """A vector, shaped so that it lies along ``dim`` of ``ndim``."""
        return values.reshape([-1 if k == dim % ndim else 1 for k in range(ndim)])

    def forward(self, input: Tensor, *others: Tensor | None) -> Tensor:
        result = cast("Tensor", self.base_layer(input, *others))
        for name in self.active if not self.merged else ():
            config, a, b = self.configs[name], self.lora_A[name], self.lora_B[name]
            x = input
            if x.is_floating_point():  # and no index
                x = (F.dropout(x, config.dropout, self.training) if config.dropout else x).to(a.dtype)
            added = self.added(x, a, b) * config.scale
            if config.dora:
                is_dropped = bool(config.dropout) and self.training and input.is_floating_point()
                plain = self.plain(x) if is_dropped else self._less(result.to(added.dtype), self.bias(*others))
                added = self._with_magnitude(name, added, plain)
            result = result + added.to(result.dtype)
        return result

    def bias(self, *others: Tensor | None) -> Tensor | None:
        """What the layer adds to each output; ``others`` are its inputs after the first."""
        bias: Tensor | None = getattr(self.base_layer, "bias", None)
        return bias

    def _less(self, result: Tensor, bias: Tensor | None) -> Tensor:
        """A result without the layer's bias, so that its product need not be computed again."""
        if bias is None:
            return result
        along = self.along(self.channel_dim, result.ndim, bias) if bias.ndim == 1 else bias
        return result - along.to(result.dtype)

    def _with_magnitude(self, name: str, added: Tensor, plain: Tensor) -> Tensor:
        """DoRA: what brings the sum with ``plain``, the result so far without bias, to the lengths that are learnt. Of
        several adapters each scales those before it, as PEFT's do; its lengths are those of the layer's own weight and
        its own product.
        """
        with no_grad():  # as its authors do, the length is no part of the gradient
            lengths = self.lengths(_dense(self.weight, added.dtype) + self.delta(name))
        ratio = self.along(self.channel_dim, added.ndim, self.lora_magnitude[name] / lengths)
        return plain.to(added.dtype) * (ratio - 1) + added * ratio

    def merge(self) -> None:
        """Add the active adapters to the weight, so that they cost nothing."""
        if self.merged or not self.active:
            return
        if self.weight.dtype.blocks is not None:
            raise ArgumentError(
                "merge", "layers that are not quantised, as merging into blocks would round the adapter away",
                f"one has a weight of {self.weight.dtype.name}",
                "Keep the adapter beside it, or call te.adapt.dequantize(model) first.",
            )  # fmt: skip
        with no_grad():
            weight = self.weight
            dtype, total = weight.dtype.computes, weight.detach().to(weight.dtype.computes)
            for name in self.active:
                delta = self.delta(name).to(dtype)
                total = total + delta
                if self.configs[name].dora:
                    ratio = self.lora_magnitude[name].detach() / self.lengths(weight.detach().to(dtype) + delta)
                    total = total * self.along(self.output_dim, total.ndim, ratio)
            self._unmerged = weight.detach().clone()
            weight.copy_(total)
        self.merged = self.active

    def unmerge(self) -> None:
        """Give the weight its own values back, to the bit."""
        if self._unmerged is not None:
            with no_grad():
                self.weight.copy_(self._unmerged)
        self._unmerged, self.merged = None, ()

    def extra_repr(self) -> str:
        shown = []
        for name, config in self.configs.items():
            kinds = ["rslora"] * config.use_rslora + ["dora"] * config.dora + ["inactive"] * (name not in self.active)
            marks = f" ({', '.join(kinds)})" if kinds else ""
            shown.append(f"{name}: rank={config.rank}, alpha={config.alpha}{marks}")
        return ", ".join(shown)


class LoraLinear(LoraLayer):
    """A linear layer with a product of low rank added to its weight."""

    kinds = (Linear,)

    @classmethod
    def shapes(cls, base: Any, rank: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        out_features, in_features = base.weight.shape
        return (rank, in_features), (out_features, rank)

    def added(self, x: Tensor, a: Tensor, b: Tensor) -> Tensor:
        return F.linear(F.linear(x, a), b)

    def plain(self, x: Tensor) -> Tensor:
        return F.linear(x, _for(self.weight, x))

    def product(self, a: Tensor, b: Tensor) -> Tensor:
        product: Tensor = b @ a
        return product


class LoraConv(LoraLayer):
    """A convolution, to which one of low rank and a pointwise one are added."""

    kinds = (Conv1d, Conv2d, Conv3d)

    @classmethod
    def shapes(cls, base: Any, rank: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        out_channels, _, *kernel = base.weight.shape
        return (rank, base.in_channels, *kernel), (out_channels, rank // base.groups or 1, *(1,) * len(kernel))

    @classmethod
    def lengths_shape(cls, base: Any) -> tuple[int, ...]:
        return (1, base.weight.shape[0], *(1,) * (base.weight.ndim - 2))

    @classmethod
    def require(cls, call: str, path: str, base: Any, config: LoraConfig) -> None:
        super().require(call, path, base, config)
        if config.rank % (groups := base.groups):
            raise ArgumentError(
                call, f"a rank that the {groups} groups of {path!r} divide", f"got {config.rank}",
                "Choose another rank, or leave this layer out of targets.",
            )  # fmt: skip
        if config.dora and groups > 1:
            raise ArgumentError(
                call, "dora for convolutions of one group",
                f"{path!r} has {groups}, and its adapter sees all channels, so that the sum is no weight with a length",
                "Leave it out of targets, or use dora=False.",
            )  # fmt: skip

    def _convolve(self, x: Tensor, weight: Tensor, **options: Any) -> Tensor:
        convolution: Any = {3: F.conv1d, 4: F.conv2d, 5: F.conv3d}[weight.ndim]
        result: Tensor = convolution(x, weight, **options)
        return result

    def added(self, x: Tensor, a: Tensor, b: Tensor) -> Tensor:
        base: Any = self.base_layer
        placed, padding = base._placed(x)
        inner = self._convolve(placed, a, stride=base.stride, padding=padding, dilation=base.dilation)
        return self._convolve(inner, b, groups=base.groups)

    @property
    def channel_dim(self) -> int:  # type: ignore[override]
        return 1 - self.weight.ndim  # also where there is no batch

    def plain(self, x: Tensor) -> Tensor:
        base: Any = self.base_layer
        placed, padding = base._placed(x)
        options = {"stride": base.stride, "padding": padding, "dilation": base.dilation, "groups": base.groups}
        return self._convolve(placed, _for(self.weight, x), **options)

    def product(self, a: Tensor, b: Tensor) -> Tensor:
        return (b.flatten(1) @ a.flatten(1)).reshape(self.weight.shape)

    def merge(self) -> None:
        if self.base_layer.groups > 1:
            raise ArgumentError(
                "merge", "layers of one group", f"one has {self.base_layer.groups}, and its adapter sees all channels",
                "Keep it as an adapter.",
            )  # fmt: skip
        super().merge()


class LoraEmbedding(LoraLayer):
    """An embedding, to whose rows a product of low rank is added."""

    kinds = (Embedding,)

    @classmethod
    def shapes(cls, base: Any, rank: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        count, size = base.weight.shape
        return (rank, count), (size, rank)

    @classmethod
    def lengths_shape(cls, base: Any) -> tuple[int, ...]:
        return (base.weight.shape[1],)

    def fill(self, a: Parameter, b: Parameter) -> None:
        init.zeros_(a)
        init.normal_(b)

    output_dim = 1

    def added(self, x: Tensor, a: Tensor, b: Tensor) -> Tensor:
        base: Any = self.base_layer
        rows = F.embedding(x, a.T, base.padding_idx, scale_grad_by_freq=base.scale_grad_by_freq)
        return F.linear(rows, b)

    def plain(self, x: Tensor) -> Tensor:
        return cast("Tensor", self.base_layer(x))

    def product(self, a: Tensor, b: Tensor) -> Tensor:
        return (b @ a).T


class LoraNode(LoraLayer):
    """Of a product or a convolution of an imported model."""

    kinds = (NodeLayer,)

    @classmethod
    def shapes(cls, base: Any, rank: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        if base.is_turned:
            in_features, out_features = base.weight.shape
            return (rank, in_features), (out_features, rank)
        out_channels, *rest = base.weight.shape
        return (rank, *rest), (out_channels, rank, *(1,) * (len(rest) - 1))

    @classmethod
    def lengths_shape(cls, base: Any) -> tuple[int, ...]:
        return LoraConv.lengths_shape(base) if base.is_convolution else (base.weight.shape[int(base.is_turned)],)

    def added(self, x: Tensor, a: Tensor, b: Tensor) -> Tensor:
        base: Any = self.base_layer
        if not base.is_convolution:
            return F.linear(F.linear(x, a), b)
        mix: Any = {3: F.conv1d, 4: F.conv2d, 5: F.conv3d}[b.ndim]
        result: Tensor = mix(base(x, a, None), b)
        return result

    @property
    def output_dim(self) -> int:  # type: ignore[override]
        return 1 if cast("Any", self.base_layer).is_turned else 0

    @property
    def channel_dim(self) -> int:  # type: ignore[override]
        return 1 - self.weight.ndim if cast("Any", self.base_layer).is_convolution else -1

    def plain(self, x: Tensor) -> Tensor:
        return cast("Tensor", self.base_layer(x, _for(self.weight, x), None))

    def bias(self, *others: Tensor | None) -> Tensor | None:
        bias = others[1] if len(others) > 1 else None
        beta = cast("Any", self.base_layer).node.arguments.get("beta", 1.0)
        return bias if bias is None or beta == 1.0 else bias * beta

    def product(self, a: Tensor, b: Tensor) -> Tensor:
        base: Any = self.base_layer
        product: Tensor = b.flatten(1) @ a.flatten(1)
        return product.T if base.is_turned else product.reshape(base.weight.shape)


LAYERS: tuple[type[LoraLayer], ...] = (LoraLinear, LoraConv, LoraEmbedding, LoraNode)


def _dense(weight: Tensor, dtype: DType) -> Tensor:
    """The weight in ``dtype``, also if it is quantised."""
    plain: Tensor = weight.dequantize().to(dtype)
    return plain


def _for(weight: Tensor, x: Tensor) -> Tensor:
    """The weight as a product with ``x`` reads it: blocks stay blocks."""
    return weight if weight.dtype.blocks is not None else weight.to(x.dtype)


def adapted_by(module: Module) -> type[LoraLayer] | None:
    """The kind of LoraLayer that wraps such a layer."""
    return next((layer for layer in LAYERS if isinstance(module, layer.kinds)), None)


def lora_layers(model: Module) -> Iterator[tuple[str, LoraLayer]]:
    """The adapted layers of a model, with the names of the layers that they wrap."""
    for path, module in model.named_modules():
        if isinstance(module, LoraLayer):
            yield path, module


def plain_name(path: str) -> str:
    """The name that a module or parameter had before an adapter wrapped its layer."""
    return ".".join(part for part in path.split(".") if part != "base_layer")


def plain_names(model: Module) -> dict[str, Module]:
    """The modules by the names that they had before any was wrapped."""
    found: dict[str, Module] = {}
    for path, module in model.named_modules():
        found.setdefault(plain_name(path), module)
    return found


def chosen(call: str, model: Module, targets: Targets) -> list[str]:
    """The names of the layers that ``targets`` mean."""
    layers = adaptable(model)
    known = plain_names(model)
    if targets == "all-linear":
        linear = [path for path in layers if _is_linear(base_of(known[path]))]
        if len(linear) > 1:
            return linear[:-1]  # the last one is the head
        raise ArgumentError(
            call, "a model with Linear layers before its last one, or targets by name", f"it has {len(linear)} Linear",
            f"There are: {', '.join(layers[:6]) or 'none'}.",
        )  # fmt: skip
    return matching(call, layers, targets, "can be adapted (Linear, convolutions, Embedding)")


def matching(call: str, layers: Sequence[str], targets: Targets, what: str) -> list[str]:
    """Those of ``layers`` that ``targets`` name. Errors: ArgumentError, saying ``what`` they must be, if one names
    none.
    """
    if isinstance(targets, str):
        try:
            found = [path for path in layers if re.fullmatch(targets, path)]
        except re.error as error:
            raise ArgumentError(call, "names of layers, or a regular expression", f"{targets!r}: {error}") from None
    else:
        if not isinstance(targets, Iterable) or not all(isinstance(name, str) for name in targets):
            raise ArgumentError(call, "names of layers, or a regular expression", f"got {targets!r}")
        missing = [name for name in targets if not any(_is_named(path, name) for path in layers)]
        if missing:
            near = get_close_matches(missing[0], layers, n=4, cutoff=0.3) or layers[:4]
            raise ArgumentError(
                call, f"targets that name layers which {what}",
                f"none is called {missing[0]!r}", f"Near ones: {', '.join(near) or 'none'}.",
            )  # fmt: skip
        found = [path for path in layers if any(_is_named(path, name) for name in targets)]
    if not found:
        raise ArgumentError(
            call, f"targets that match a layer which {what}",
            f"{targets!r} matches none of {len(layers)}", f"There are: {', '.join(layers[:6]) or 'none'}.",
        )  # fmt: skip
    return found


def adaptable(model: Module) -> list[str]:
    """The names of the layers that ``lora`` can adapt: Linear, convolutions, Embedding; of an imported model its
    products, and its convolutions of one group.
    """
    for module in list(model.modules()):
        if isinstance(module, GraphModel):
            module.expose_layers()
    return [
        path
        for path, module in plain_names(model).items()
        if path and (isinstance(module, LoraLayer) or adapted_by(module) is not None)
    ]


def _is_linear(layer: Module) -> bool:
    return isinstance(layer, Linear) or (isinstance(layer, NodeLayer) and not layer.is_convolution)


def _is_named(path: str, name: str) -> bool:
    return path == name or path.endswith("." + name)


def base_of(module: Module) -> Any:
    """The layer that was wrapped, or the module itself."""
    return module.base_layer if isinstance(module, LoraLayer) else module


def lora(
    model: Module,
    rank: int = 8,
    alpha: float = 16,
    dropout: float = 0.0,
    targets: Targets = "all-linear",
    *,
    use_rslora: bool = False,
    dora: bool = False,
    name: str = "default",
    train_too: Iterable[str] = (),
) -> Module:
    """Adapt layers of ``model``, in place, and freeze everything else. Returns the model.

    Each chosen layer computes ``layer(x) + scale * B(A(dropout(x)))``, with A of ``rank`` rows and B of ``rank``
    columns; B begins as 0, so the model computes what it did. ``scale`` is ``alpha / rank``, with ``use_rslora``
    ``alpha / sqrt(rank)``. With ``dora`` the length of what the weight has for each output is learnt too: of a
    Linear layer's rows, of a convolution's filters, of an Embedding's columns.

    ``targets``: names of layers, of which the last parts are enough (``["q_proj", "v_proj"]``); or a regular expression
    for the whole name; or "all-linear", which means all Linear layers but the last one, the head.
    ``name``: of the adapter; a second one is added beside the first, and becomes the active one.
    ``train_too``: names of modules that are trained as a whole as well, such as a new head.

    Errors: ArgumentError if a target or a name of ``train_too`` matches no layer, for a rank that is larger than a
            layer, for a name that is taken, and while adapters are merged.
    Source: Hu et al., arXiv:2106.09685; rsLoRA: arXiv:2312.03732; DoRA: arXiv:2402.09353.

    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> model = te.adapt.lora(model, rank=2, targets=["0"])
    >>> [path for path, parameter in model.named_parameters() if parameter.requires_grad]
    ['0.lora_A.default', '0.lora_B.default']
    """
    numbers = all(isinstance(number, (int, float)) for number in (alpha, dropout))
    if isinstance(rank, bool) or not isinstance(rank, int) or not numbers or not 0.0 <= dropout < 1.0:
        numbers = False
    if not numbers or not math.isfinite(alpha) or not alpha:
        raise ArgumentError(
            "lora", "an int for rank, a finite alpha, and dropout in [0, 1)",
            f"got {rank!r}, {alpha!r} and {dropout!r}", "" if alpha else "An alpha of 0 trains nothing.",
        )  # fmt: skip
    config = LoraConfig(rank, alpha, dropout, use_rslora, dora)
    train_too = (train_too,) if isinstance(train_too, str) else tuple(train_too)
    paths = chosen("lora", model, targets)
    known = plain_names(model)
    whole = {path: known[path] for path in train_too if path in known}
    if missing := [path for path in train_too if path not in known]:
        raise ArgumentError(
            "lora",
            "names of modules in train_too",
            f"there is no {missing[0]!r}",
            "model.named_modules() gives the names.",
        )
    for path, module in whole.items():
        for own, param in module.named_parameters():
            require_trainable("lora", param.dtype, f"{path}.{own}")
    wrapped = add_adapter("lora", model, name, dict.fromkeys(paths, config))
    for param in model.parameters():
        param.requires_grad_(False)
    for layer in wrapped:
        for adapters in (layer.lora_A, layer.lora_B, layer.lora_magnitude):
            if name in adapters:
                adapters[name].requires_grad_(True)
    for module in whole.values():
        for param in module.parameters():
            param.requires_grad_(True)
    model.freeze_batch_norm_statistics()
    set_adapter(model, name)
    return model


def add_adapter(call: str, model: Module, name: str, configs: Mapping[str, LoraConfig]) -> list[LoraLayer]:
    """Wrap the layers of these names, and give each an adapter; all, or none if one cannot have it."""
    if not isinstance(name, str) or not name or "." in name:
        raise ArgumentError(call, "a name for the adapter, without dots", f"got {name!r}")
    for path, layer in lora_layers(model):
        if layer.merged:
            raise ArgumentError(call, "adapters that are not merged", f"{path!r} has one", "Call unmerge() first.")
    known = plain_names(model)
    layers: dict[str, LoraLayer] = {}
    for path, config in configs.items():
        module = known[path]
        kind = type(module) if isinstance(module, LoraLayer) else adapted_by(module)
        if kind is None:
            raise ArgumentError(
                call,
                f"a layer {path!r} that can be adapted",
                f"it is {type(module).__name__}",
                "te.adapt.adaptable(model) names those that can.",
            )
        kind.require(call, path, base_of(module), config)
        layers[path] = layer = module if isinstance(module, LoraLayer) else kind(module)
        if layer is module and name in layer.configs:
            raise ArgumentError(
                call, "another name for each adapter", f"{path!r} has one called {name!r}", "Pass name=..."
            )
    for path, layer in layers.items():
        if known[path] is not layer:
            _replace(model, known[path], layer)
        for param in layer.base_layer.parameters():
            param.requires_grad_(False)
        layer.add(name, configs[path])
        layer.training = layer.base_layer.training
    return list(layers.values())


def _replace(model: Module, old: Module, new: Module) -> None:
    for module in list(model.modules()):
        for name, child in list(module._modules.items()):
            if child is old and module is not new:
                module._modules[name] = new


def set_adapter(model: Module, names: str | Sequence[str] | None) -> None:
    """Use these adapters, whose results are added up; None uses none of them.

    Errors: ArgumentError if no layer has an adapter of that name, and while adapters are merged.
    """
    wanted = () if names is None else (names,) if isinstance(names, str) else tuple(names)
    layers = [layer for _, layer in lora_layers(model)]
    have = {name for layer in layers for name in layer.configs}
    if missing := [name for name in wanted if name not in have]:
        raise ArgumentError(
            "set_adapter", f"adapters of this model: {', '.join(sorted(have)) or 'none'}", f"got {missing[0]!r}"
        )
    if any(layer.merged for layer in layers):
        raise ArgumentError("set_adapter", "adapters that are not merged", "they are", "Call unmerge() first.")
    for layer in layers:
        layer.active = tuple(name for name in wanted if name in layer.configs)


def merge(model: Module) -> None:
    """Add the active adapters to their layers' weights: inference costs then what it cost without them.

    Errors: ArgumentError for convolutions with groups, and for quantised weights.
    """
    layers = [layer for _, layer in lora_layers(model)]
    done: list[LoraLayer] = []
    try:
        for layer in layers:
            layer.merge()
            done.append(layer)
    except BaseException:
        for layer in done:
            layer.unmerge()
        raise


def unmerge(model: Module) -> None:
    """Take merged adapters out again: every weight is what it was, to the bit."""
    for _, layer in lora_layers(model):
        layer.unmerge()


def unload(model: Module) -> Module:
    """Put the plain layers back in the place of the adapted ones; what is merged stays in their weights."""
    for _, layer in list(lora_layers(model)):
        _replace(model, layer, layer.base_layer)
    return model
