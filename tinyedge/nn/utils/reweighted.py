"""``weight_norm`` and ``spectral_norm`` in PyTorch's first form, with its names in state dicts.

In: a layer. Out: the same layer, whose weight is computed of other parameters when it is read.
"""

from __future__ import annotations

from typing import Any, TypeVar

from tinyedge.autograd.modes import no_grad
from tinyedge.errors import ArgumentError
from tinyedge.nn.module import Module
from tinyedge.nn.utils.computed import compute, uncompute
from tinyedge.ops import dot, movedim, mv, randn_like
from tinyedge.ops.distance import normalize
from tinyedge.ops.statistics import vector_norm
from tinyedge.tensor import Parameter, Tensor

M = TypeVar("M", bound=Module)


def norm_except_dim(v: Tensor, dim: int) -> Tensor:
    """The 2-norms over all dims but ``dim``, which stay with length 1; over all dims, without any, if ``dim`` is -1."""
    if dim == -1:
        return vector_norm(v)
    others = tuple(axis for axis in range(v.ndim) if axis != dim % v.ndim)
    return vector_norm(v, 2, others, True) if others else v.abs()


def weighted(v: Tensor, g: Tensor, dim: int) -> Tensor:
    """``v`` with norms ``g``."""
    return v * (g / norm_except_dim(v, dim))


def unit(x: Tensor, eps: float) -> Tensor:
    """``x`` in the direction that it has, of length 1."""
    return normalize(x, dim=0, eps=eps)


def as_matrix(weight: Tensor, dim: int) -> Tensor:
    """``weight`` with ``dim`` first, and all others as one."""
    if dim:
        weight = movedim(weight, dim, 0)
    return weight.reshape(weight.shape[0], -1)


def _parameter_of(call: str, module: Module, name: str) -> Parameter:
    found = module._parameters.get(name)
    if found is None:
        raise ArgumentError(
            call,
            f"a {type(module).__name__} with a parameter {name!r}",
            "it has none",
            "module.named_parameters() gives the names.",
        )
    return found


def _unassigned(module: Any, value: Any) -> None:
    raise ArgumentError(
        "weight_norm or spectral_norm", "no assignment to a weight that is computed", f"got {type(value).__name__}",
        "Change what it is computed of, or remove the norm first.",
    )  # fmt: skip


def weight_norm(module: M, name: str = "weight", dim: int | None = 0) -> M:
    """Let the parameter ``name`` of ``module`` be computed of its length ``name_g`` and direction ``name_v``.

    ``dim`` is the dim along which there is a length for each index; None: one for all. Returns the module.

    Errors: ArgumentError if it has no such parameter.
    Source: Salimans and Kingma, Weight normalization, arXiv:1602.07868.
    """
    weight, along = _parameter_of("weight_norm", module, name), -1 if dim is None else dim
    with no_grad():
        length, direction = norm_except_dim(weight.detach(), along), weight.detach()
    del module._parameters[name]
    module.register_parameter(f"{name}_g", Parameter(length))
    module.register_parameter(f"{name}_v", Parameter(direction))

    def get(self: Any) -> Tensor:
        return weighted(getattr(self, f"{name}_v"), getattr(self, f"{name}_g"), along)

    compute(module, name, get, _unassigned)
    return module


def remove_weight_norm(module: M, name: str = "weight") -> M:
    """Make the computed weight a parameter again. Returns the module.

    Errors: ArgumentError if the module has no weight norm of that name.
    """
    if f"{name}_g" not in module._parameters:
        raise ArgumentError("remove_weight_norm", f"a module with a weight norm of {name!r}", "it has none")
    return _fixed(module, name, (f"{name}_g", f"{name}_v"))


def _fixed(module: M, name: str, parts: tuple[str, ...]) -> M:
    with no_grad():
        value = getattr(module, name).detach().clone()
    uncompute(module, name)
    for part in parts:
        delattr(module, part)
    module.register_parameter(name, Parameter(value))
    return module


def power_iterations(matrix: Tensor, u: Tensor, v: Tensor, count: int, eps: float, u_first: bool) -> None:
    """Turn ``u`` and ``v``, in place, towards the singular vectors of the largest singular value."""
    with no_grad():
        matrix = matrix.detach()
        for _ in range(count):
            for target in (u, v) if u_first else (v, u):
                product = mv(matrix, v) if target is u else mv(matrix.T, u)
                target.copy_(unit(product, eps))


def spectral_norm(
    module: M, name: str = "weight", n_power_iterations: int = 1, eps: float = 1e-12, dim: int | None = None
) -> M:
    """Divide the parameter ``name`` of ``module`` by its largest singular value, estimated by power iterations.

    The parameter becomes ``name_orig``; the buffers ``name_u`` and ``name_v`` are turned at each call in training mode.
    ``dim`` is the dim of the outputs: 0, or 1 of transposed convolutions. Returns the module.

    Errors: ArgumentError if it has no such parameter, or for less than one iteration.
    Source: Miyato et al., Spectral normalization for GANs, arXiv:1802.05957.
    """
    weight = _parameter_of("spectral_norm", module, name)
    if n_power_iterations < 1:
        raise ArgumentError("spectral_norm", "n_power_iterations of at least 1", f"got {n_power_iterations}")
    along = (1 if type(module).__name__.startswith("ConvTranspose") else 0) if dim is None else dim
    with no_grad():
        matrix = as_matrix(weight.detach(), along)
        u, v = (unit(randn_like(part), eps) for part in (matrix[:, 0], matrix[0]))
    del module._parameters[name]
    module.register_parameter(f"{name}_orig", weight)
    module.register_buffer(f"{name}_u", u)
    module.register_buffer(f"{name}_v", v)

    def get(self: Any) -> Tensor:
        original: Tensor = getattr(self, f"{name}_orig")
        found = as_matrix(original, along)
        u, v = (getattr(self, f"{name}_{part}").clone() for part in "uv")
        divided: Tensor = original / dot(u, mv(found, v))
        return divided

    compute(module, name, get, _unassigned)
    module.register_forward_pre_hook(_Turn(name, n_power_iterations, eps, along))
    return module


class _Turn:
    """The hook that turns the singular vectors."""

    def __init__(self, name: str, count: int, eps: float, dim: int) -> None:
        self.name, self.count, self.eps, self.dim = name, count, eps, dim

    def __call__(self, module: Any, args: Any) -> None:
        if module.training:
            matrix = as_matrix(getattr(module, f"{self.name}_orig"), self.dim)
            u, v = (getattr(module, f"{self.name}_{part}") for part in "uv")
            power_iterations(matrix, u, v, self.count, self.eps, u_first=False)


def remove_spectral_norm(module: M, name: str = "weight") -> M:
    """Make the computed weight a parameter again. Returns the module.

    Errors: ArgumentError if the module has no spectral norm of that name.
    """
    if f"{name}_orig" not in module._parameters:
        raise ArgumentError("remove_spectral_norm", f"a module with a spectral norm of {name!r}", "it has none")
    hooks = module._pre_hooks
    for number, (hook, _) in list(hooks.items()):
        if isinstance(hook, _Turn) and hook.name == name:
            hooks.pop(number)
    return _fixed(module, name, (f"{name}_orig", f"{name}_u", f"{name}_v"))


__all__ = ["remove_spectral_norm", "remove_weight_norm", "spectral_norm", "weight_norm"]
