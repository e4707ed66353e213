"""``nn.utils.parametrizations``: weight norm, spectral norm and orthogonal matrices as parametrizations."""

from __future__ import annotations

from typing import Any, TypeVar

from tinyedge.autograd.modes import no_grad
from tinyedge.errors import ArgumentError, ShapeError
from tinyedge.nn.module import Module
from tinyedge.nn.utils.parametrize import register_parametrization
from tinyedge.nn.utils.reweighted import as_matrix, norm_except_dim, power_iterations, unit, weighted
from tinyedge.ops import cat, diagonal, dot, eye, matmul, mv, randn_like, sign, tril, where, zeros, zeros_like
from tinyedge.ops.decomposition import linalg_qr
from tinyedge.ops.solve import linalg_solve
from tinyedge.tensor import Tensor

M = TypeVar("M", bound=Module)


class _WeightNorm(Module):
    def __init__(self, dim: int | None = 0) -> None:
        super().__init__()
        self.dim = -1 if dim is None else dim

    def forward(self, weight_g: Tensor, weight_v: Tensor) -> Tensor:
        return weighted(weight_v, weight_g, self.dim)

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        return norm_except_dim(weight, self.dim), weight


def weight_norm(module: M, name: str = "weight", dim: int | None = 0) -> M:
    """Compute the parameter ``name`` of its length ``original0`` and direction ``original1``. Returns the module.

    Errors: ArgumentError if there is no such parameter.
    Source: Salimans and Kingma, Weight normalization, arXiv:1602.07868.
    """
    return register_parametrization(module, name, _WeightNorm(dim), unsafe=True)


class _SpectralNorm(Module):
    def __init__(self, weight: Tensor, n_power_iterations: int, dim: int, eps: float) -> None:
        super().__init__()
        if n_power_iterations < 1:
            raise ArgumentError("spectral_norm", "n_power_iterations of at least 1", f"got {n_power_iterations}")
        self.n_power_iterations, self.eps = n_power_iterations, eps
        self.dim = dim if dim >= 0 else dim + weight.ndim
        if weight.ndim > 1:
            with no_grad():
                matrix = as_matrix(weight.detach(), self.dim)
                u, v = (unit(randn_like(part), eps) for part in (matrix[:, 0], matrix[0]))
            self.register_buffer("_u", u)
            self.register_buffer("_v", v)
            power_iterations(matrix, u, v, 15, eps, u_first=True)

    def forward(self, weight: Tensor) -> Tensor:
        if weight.ndim == 1:
            return unit(weight, self.eps)
        matrix = as_matrix(weight, self.dim)
        u, v = self._buffers["_u"], self._buffers["_v"]
        assert u is not None
        assert v is not None
        if self.training:
            power_iterations(matrix, u, v, self.n_power_iterations, self.eps, u_first=True)
        return weight / dot(u.clone(), mv(matrix, v.clone()))

    def right_inverse(self, value: Tensor) -> Tensor:
        return value


def spectral_norm(
    module: M, name: str = "weight", n_power_iterations: int = 1, eps: float = 1e-12, dim: int | None = None
) -> M:
    """Divide the parameter ``name`` by its largest singular value, estimated by power iterations. Returns the module.

    In training mode each reading of the parameter makes ``n_power_iterations`` more.

    Errors: ArgumentError if there is no such parameter, or for less than one iteration.
    Source: Miyato et al., Spectral normalization for GANs, arXiv:1802.05957.
    """
    weight = module._parameters.get(name)
    if weight is None:
        raise ArgumentError(
            "spectral_norm",
            f"a {type(module).__name__} with a parameter {name!r}",
            "it has none",
            "module.named_parameters() gives the names.",
        )
    if dim is None:
        dim = 1 if type(module).__name__.startswith("ConvTranspose") else 0
    return register_parametrization(module, name, _SpectralNorm(weight, n_power_iterations, dim, eps))


class _Orthogonal(Module):
    """An orthogonal matrix of the lower triangle of another: its skew part ``A``, through Cayley's map or exp."""

    def __init__(self, weight: Tensor, orthogonal_map: str) -> None:
        super().__init__()
        self.orthogonal_map = orthogonal_map
        with no_grad():
            self.register_buffer("base", _nearest(weight.detach()))

    def forward(self, X: Tensor) -> Tensor:
        wide = X.shape[-2] < X.shape[-1]
        if wide:
            X = X.mT
        n, k = X.shape[-2:]
        A = tril(X, -1)
        if n != k:
            A = cat([A, zeros((*X.shape[:-2], n, n - k), dtype=X.dtype, device=X.backend)], -1)
        A = A - A.mT
        identity = eye(n, dtype=X.dtype, device=X.backend)
        if self.orthogonal_map == "cayley":
            Q = linalg_solve(identity - A / 2, identity + A / 2)
        else:
            Q = _exponential(A, identity)
        base = self._buffers["base"]
        assert base is not None
        Q = matmul(base, Q)[..., :k]
        return Q.mT if wide else Q

    def right_inverse(self, Q: Tensor) -> Tensor:
        """Zeros, with the orthogonal matrix next to ``Q`` as the base."""
        base = self._buffers["base"]
        assert base is not None
        base.copy_(_nearest(Q))
        return zeros_like(Q)


def _nearest(weight: Tensor) -> Tensor:
    """A square orthogonal matrix, of whose columns the first span those of ``weight``."""
    tall = weight.mT if weight.shape[-2] < weight.shape[-1] else weight
    n, k = tall.shape[-2:]
    Q, R = linalg_qr(tall, "complete")
    signs = sign(diagonal(R, 0, -2, -1))
    signs = where(signs == 0, 1.0, signs)
    signed = Q[..., :k] * signs.reshape((*signs.shape[:-1], 1, k))
    return cat([signed, Q[..., k:]], -1) if n > k else signed


SQUARINGS, TERMS = 6, 10
"""exp(A) is exp(A / 64) to the 64th power, and that a series, whose rest is below float32's rounding for |A| to 10."""


def _exponential(A: Tensor, identity: Tensor) -> Tensor:
    small = A / 2**SQUARINGS
    total: Tensor = identity + small / TERMS
    for number in range(TERMS - 1, 0, -1):
        total = identity + matmul(small, total) / number
    for _ in range(SQUARINGS):
        total = matmul(total, total)
    return total


def orthogonal(
    module: M, name: str = "weight", orthogonal_map: str | None = None, *, use_trivialization: bool = True
) -> M:
    """Keep the matrices in the parameter ``name`` orthogonal: ``Q.mT @ Q`` is the identity; of wide ones, ``Q @ Q.mT``.

    ``orthogonal_map`` is "matrix_exp", the default, or "cayley". The parameter starts as the orthogonal matrix next to
    it; ``original`` says how far, and where, it is from there (a trivialization). Returns the module.

    Errors: ArgumentError if there is no such parameter, for "householder", and without ``use_trivialization``;
            ShapeError if it has less than two dims.
    Source: Lezcano-Casado, Trivializations for gradient-based optimization on manifolds, arXiv:1909.09501.
    """
    weight: Any = module._parameters.get(name)
    if weight is None:
        raise ArgumentError(
            "orthogonal",
            f"a {type(module).__name__} with a parameter {name!r}",
            "it has none",
            "module.named_parameters() gives the names.",
        )
    if weight.ndim < 2:
        raise ShapeError("orthogonal", "a parameter of matrices, with at least two dims", f"it has {weight.shape}")
    chosen = "matrix_exp" if orthogonal_map is None else orthogonal_map
    if chosen not in ("matrix_exp", "cayley") or not use_trivialization:
        raise ArgumentError(
            "orthogonal", 'orthogonal_map "matrix_exp" or "cayley", with use_trivialization',
            f"got {orthogonal_map!r}, {use_trivialization}",
        )  # fmt: skip
    return register_parametrization(module, name, _Orthogonal(weight, chosen))


__all__ = ["orthogonal", "spectral_norm", "weight_norm"]
