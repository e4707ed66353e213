# Written by tools/stubs.py: run make stubs.

from collections.abc import Sequence
from typing import Any

from tinyedge.ops.decomposition import QR, OldSVD
from tinyedge.ops.lu import Packed, PackedAndInfo
from tinyedge.ops.power import Frexp
from tinyedge.ops.promotion import Operand
from tinyedge.ops.random import Generator
from tinyedge.ops.reduce import Axes, ValuesIndices
from tinyedge.ops.search import Histogram
from tinyedge.ops.solve import SignAndLogarithm, Solution
from tinyedge.ops.statistics import Extremes
from tinyedge.ops.types import Target
from tinyedge.tensor import Number, Tensor

class Methods:
    def __abs__(self) -> Tensor:
        """Absolute value; its gradient at 0 is 0."""

    def __add__(self, other: Any) -> Tensor:
        """``input + alpha * other``, broadcast."""

    def __and__(self, other: Any) -> Tensor:
        """The bits that both have; of booleans, whether both are true."""

    def __floordiv__(self, other: Any) -> Tensor:
        """``floor(input / other)``, broadcast; integers stay integers. Its gradients are zeros."""

    def __ge__(self, other: Any) -> Tensor:
        """``input >= other``, element by element."""

    def __getitem__(self, index: Any) -> Tensor:
        """``input[index]``: ints, slices with positive steps, None, Ellipsis (views); integer and bool tensors
        (copies).
        """

    def __gt__(self, other: Any) -> Tensor:
        """``input > other``, element by element."""

    def __iadd__(self, other: Any) -> Tensor:
        """``input + alpha * other``, broadcast."""

    def __iand__(self, other: Any) -> Tensor:
        """The bits that both have; of booleans, whether both are true."""

    def __ifloordiv__(self, other: Any) -> Tensor:
        """``floor(input / other)``, broadcast; integers stay integers. Its gradients are zeros."""

    def __ilshift__(self, other: Any) -> Tensor:
        """The bits ``other`` places higher; 0 if that is negative, or more than there are."""

    def __imod__(self, other: Any) -> Tensor:
        """``input - other * floor(input / other)``, as Python's ``%``."""

    def __imul__(self, other: Any) -> Tensor:
        """``input * other``, broadcast."""

    def __invert__(self) -> Tensor:
        """Each bit the other way; of booleans, the opposite."""

    def __ior__(self, other: Any) -> Tensor:
        """The bits that either has; of booleans, whether either is true."""

    def __ipow__(self, exponent: Any) -> Tensor:
        """``input ** exponent``, broadcast. Of integers it is exact, and wraps around."""

    def __irshift__(self, other: Any) -> Tensor:
        """The bits ``other`` places lower, with the sign kept; only the sign if that is negative, or more than there
        are.
        """

    def __isub__(self, other: Any) -> Tensor:
        """``input - alpha * other``, broadcast."""

    def __itruediv__(self, other: Any) -> Tensor:
        """``input / other``, broadcast; integers give float32. ``rounding_mode`` is None, "floor" or "trunc"."""

    def __ixor__(self, other: Any) -> Tensor:
        """The bits that one of both has; of booleans, whether they differ."""

    def __le__(self, other: Any) -> Tensor:
        """``input <= other``, element by element."""

    def __lshift__(self, other: Any) -> Tensor:
        """The bits ``other`` places higher; 0 if that is negative, or more than there are."""

    def __lt__(self, other: Any) -> Tensor:
        """``input < other``, element by element."""

    def __matmul__(self, other: Any) -> Tensor:
        """The matrix product; the axes before the last two broadcast."""

    def __mod__(self, other: Any) -> Tensor:
        """``input - other * floor(input / other)``, as Python's ``%``."""

    def __mul__(self, other: Any) -> Tensor:
        """``input * other``, broadcast."""

    def __neg__(self) -> Tensor:
        """``-input``."""

    def __or__(self, other: Any) -> Tensor:
        """The bits that either has; of booleans, whether either is true."""

    def __pow__(self, exponent: Any) -> Tensor:
        """``input ** exponent``, broadcast. Of integers it is exact, and wraps around."""

    def __radd__(self, other: Any) -> Tensor:
        """``input + alpha * other``, broadcast."""

    def __rand__(self, other: Any) -> Tensor:
        """The bits that both have; of booleans, whether both are true."""

    def __rfloordiv__(self, other: Any) -> Tensor:
        """``floor(input / other)``, broadcast; integers stay integers. Its gradients are zeros."""

    def __rlshift__(self, other: Any) -> Tensor:
        """The bits ``other`` places higher; 0 if that is negative, or more than there are."""

    def __rmod__(self, other: Any) -> Tensor:
        """``input - other * floor(input / other)``, as Python's ``%``."""

    def __rmul__(self, other: Any) -> Tensor:
        """``input * other``, broadcast."""

    def __ror__(self, other: Any) -> Tensor:
        """The bits that either has; of booleans, whether either is true."""

    def __rpow__(self, other: Any) -> Tensor:
        """``input ** exponent``, broadcast. Of integers it is exact, and wraps around."""

    def __rrshift__(self, other: Any) -> Tensor:
        """The bits ``other`` places lower, with the sign kept; only the sign if that is negative, or more than there
        are.
        """

    def __rshift__(self, other: Any) -> Tensor:
        """The bits ``other`` places lower, with the sign kept; only the sign if that is negative, or more than there
        are.
        """

    def __rsub__(self, other: Any) -> Tensor:
        """``input - alpha * other``, broadcast."""

    def __rtruediv__(self, other: Any) -> Tensor:
        """``input / other``, broadcast; integers give float32. ``rounding_mode`` is None, "floor" or "trunc"."""

    def __rxor__(self, other: Any) -> Tensor:
        """The bits that one of both has; of booleans, whether they differ."""

    def __setitem__(self, index: Any, value: Any) -> None:
        """``input[index] = value``, in place; ``index`` is what can be read, too. Of equal places the last stays."""

    def __sub__(self, other: Any) -> Tensor:
        """``input - alpha * other``, broadcast."""

    def __truediv__(self, other: Any) -> Tensor:
        """``input / other``, broadcast; integers give float32. ``rounding_mode`` is None, "floor" or "trunc"."""

    def __xor__(self, other: Any) -> Tensor:
        """The bits that one of both has; of booleans, whether they differ."""

    def abs(self) -> Tensor:
        """Absolute value; its gradient at 0 is 0."""

    def abs_(self) -> Tensor:
        """Absolute value; its gradient at 0 is 0."""

    def absolute(self) -> Tensor:
        """Absolute value; its gradient at 0 is 0."""

    def absolute_(self) -> Tensor:
        """Absolute value; its gradient at 0 is 0."""

    def acos(self) -> Tensor:
        """Inverse cosine; NaN outside [-1, 1]."""

    def acos_(self) -> Tensor:
        """Inverse cosine; NaN outside [-1, 1]."""

    def acosh(self) -> Tensor:
        """Inverse hyperbolic cosine; NaN below 1."""

    def acosh_(self) -> Tensor:
        """Inverse hyperbolic cosine; NaN below 1."""

    def add(self, other: Operand, *, alpha: Number = 1) -> Tensor:
        """``input + alpha * other``, broadcast."""

    def add_(self, other: Operand, *, alpha: Number = 1) -> Tensor:
        """``input + alpha * other``, broadcast."""

    def addbmm(self, batch1: Tensor, batch2: Tensor, *, beta: Number = 1, alpha: Number = 1) -> Tensor:
        """``beta * input + alpha *`` the sum of the products of a batch."""

    def addbmm_(self, batch1: Tensor, batch2: Tensor, *, beta: Number = 1, alpha: Number = 1) -> Tensor:
        """``beta * input + alpha *`` the sum of the products of a batch."""

    def addcdiv(self, tensor1: Tensor, tensor2: Tensor, *, value: float = 1) -> Tensor:
        """``input + value * tensor1 / tensor2``."""

    def addcdiv_(self, tensor1: Tensor, tensor2: Tensor, *, value: float = 1) -> Tensor:
        """``input + value * tensor1 / tensor2``."""

    def addcmul(self, tensor1: Tensor, tensor2: Tensor, *, value: float = 1) -> Tensor:
        """``input + value * tensor1 * tensor2``."""

    def addcmul_(self, tensor1: Tensor, tensor2: Tensor, *, value: float = 1) -> Tensor:
        """``input + value * tensor1 * tensor2``."""

    def addmm(self, mat1: Tensor, mat2: Tensor, *, beta: Number = 1, alpha: Number = 1) -> Tensor:
        """``beta * input + alpha * (mat1 @ mat2)``."""

    def addmm_(self, mat1: Tensor, mat2: Tensor, *, beta: Number = 1, alpha: Number = 1) -> Tensor:
        """``beta * input + alpha * (mat1 @ mat2)``."""

    def addmv(self, mat: Tensor, vec: Tensor, *, beta: Number = 1, alpha: Number = 1) -> Tensor:
        """``beta * input + alpha * (mat @ vec)``."""

    def addmv_(self, mat: Tensor, vec: Tensor, *, beta: Number = 1, alpha: Number = 1) -> Tensor:
        """``beta * input + alpha * (mat @ vec)``."""

    def addr(self, vec1: Tensor, vec2: Tensor, *, beta: Number = 1, alpha: Number = 1) -> Tensor:
        """``beta * input + alpha * outer(vec1, vec2)``."""

    def addr_(self, vec1: Tensor, vec2: Tensor, *, beta: Number = 1, alpha: Number = 1) -> Tensor:
        """``beta * input + alpha * outer(vec1, vec2)``."""

    def adjoint(self) -> Tensor:
        """The transpose of each matrix, which for real numbers is the adjoint. A view."""

    def all(self, dim: Axes = None, keepdim: bool = False) -> Tensor:
        """Whether every element is nonzero."""

    def allclose(self, other: Tensor, rtol: float = 1e-05, atol: float = 1e-08, equal_nan: bool = False) -> bool:
        """Whether all elements are close, as ``isclose`` says; waits for the device."""

    def amax(self, dim: Axes = (), keepdim: bool = False) -> Tensor:
        """The largest over ``dim``; NaN wins; equal elements share the gradient."""

    def amin(self, dim: Axes = (), keepdim: bool = False) -> Tensor:
        """The smallest over ``dim``; NaN wins; equal elements share the gradient."""

    def aminmax(self, *, dim: int | None = None, keepdim: bool = False) -> Extremes:
        """(min, max) over ``dim``, or over everything; equal elements share the gradient."""

    def angle(self) -> Tensor:
        """pi where an element is negative, else 0; NaN stays. Its gradient is zeros."""

    def any(self, dim: Axes = None, keepdim: bool = False) -> Tensor:
        """Whether any element is nonzero."""

    def arccos(self) -> Tensor:
        """Inverse cosine; NaN outside [-1, 1]."""

    def arccos_(self) -> Tensor:
        """Inverse cosine; NaN outside [-1, 1]."""

    def arccosh(self) -> Tensor:
        """Inverse hyperbolic cosine; NaN below 1."""

    def arccosh_(self) -> Tensor:
        """Inverse hyperbolic cosine; NaN below 1."""

    def arcsin(self) -> Tensor:
        """Inverse sine; NaN outside [-1, 1]."""

    def arcsin_(self) -> Tensor:
        """Inverse sine; NaN outside [-1, 1]."""

    def arcsinh(self) -> Tensor:
        """Inverse hyperbolic sine."""

    def arcsinh_(self) -> Tensor:
        """Inverse hyperbolic sine."""

    def arctan(self) -> Tensor:
        """Inverse tangent."""

    def arctan2(self, other: Tensor) -> Tensor:
        """The angle of the point (``other``, ``input``), in all four quadrants."""

    def arctan2_(self, other: Tensor) -> Tensor:
        """The angle of the point (``other``, ``input``), in all four quadrants."""

    def arctan_(self) -> Tensor:
        """Inverse tangent."""

    def arctanh(self) -> Tensor:
        """Inverse hyperbolic tangent; NaN outside [-1, 1]."""

    def arctanh_(self) -> Tensor:
        """Inverse hyperbolic tangent; NaN outside [-1, 1]."""

    def argmax(self, dim: int | None = None, keepdim: bool = False) -> Tensor:
        """The index of the first largest element along ``dim``, or in the flattened tensor; int64."""

    def argmin(self, dim: int | None = None, keepdim: bool = False) -> Tensor:
        """The index of the first smallest element along ``dim``, or in the flattened tensor; int64."""

    def argsort(self, dim: int = -1, descending: bool = False, stable: bool = True) -> Tensor:
        """The indices that ``sort`` returns."""

    def argwhere(self) -> Tensor:
        """As ``nonzero``."""

    def as_strided(self, size: Sequence[int], stride: Sequence[int], storage_offset: int | None = None) -> Tensor:
        """The elements of ``input`` that lie, in each dim, ``stride`` places apart, from place ``storage_offset``
        on.
        """

    def asin(self) -> Tensor:
        """Inverse sine; NaN outside [-1, 1]."""

    def asin_(self) -> Tensor:
        """Inverse sine; NaN outside [-1, 1]."""

    def asinh(self) -> Tensor:
        """Inverse hyperbolic sine."""

    def asinh_(self) -> Tensor:
        """Inverse hyperbolic sine."""

    def atan(self) -> Tensor:
        """Inverse tangent."""

    def atan2(self, other: Tensor) -> Tensor:
        """The angle of the point (``other``, ``input``), in all four quadrants."""

    def atan2_(self, other: Tensor) -> Tensor:
        """The angle of the point (``other``, ``input``), in all four quadrants."""

    def atan_(self) -> Tensor:
        """Inverse tangent."""

    def atanh(self) -> Tensor:
        """Inverse hyperbolic tangent; NaN outside [-1, 1]."""

    def atanh_(self) -> Tensor:
        """Inverse hyperbolic tangent; NaN outside [-1, 1]."""

    def baddbmm(self, batch1: Tensor, batch2: Tensor, *, beta: Number = 1, alpha: Number = 1) -> Tensor:
        """``beta * input + alpha * bmm(batch1, batch2)``."""

    def baddbmm_(self, batch1: Tensor, batch2: Tensor, *, beta: Number = 1, alpha: Number = 1) -> Tensor:
        """``beta * input + alpha * bmm(batch1, batch2)``."""

    def bernoulli(self, p: float | None = None, *, generator: Generator | None = None) -> Tensor:
        """1 with the probability that each element gives, or ``p``, else 0; without a gradient."""

    def bernoulli_(self, p: float | Tensor = 0.5, *, generator: Generator | None = None) -> Tensor:
        """Fill ``input`` with 1 with probability ``p``, else 0, outside autograd. Returns it."""

    def bincount(self, weights: Tensor | None = None, minlength: int = 0) -> Tensor:
        """How often each integer from 0 on occurs, or the sum of its ``weights``; counted on the host."""

    def bitwise_and(self, other: Operand) -> Tensor:
        """The bits that both have; of booleans, whether both are true."""

    def bitwise_and_(self, other: Operand) -> Tensor:
        """The bits that both have; of booleans, whether both are true."""

    def bitwise_left_shift(self, other: Operand) -> Tensor:
        """The bits ``other`` places higher; 0 if that is negative, or more than there are."""

    def bitwise_left_shift_(self, other: Operand) -> Tensor:
        """The bits ``other`` places higher; 0 if that is negative, or more than there are."""

    def bitwise_not(self) -> Tensor:
        """Each bit the other way; of booleans, the opposite."""

    def bitwise_not_(self) -> Tensor:
        """Each bit the other way; of booleans, the opposite."""

    def bitwise_or(self, other: Operand) -> Tensor:
        """The bits that either has; of booleans, whether either is true."""

    def bitwise_or_(self, other: Operand) -> Tensor:
        """The bits that either has; of booleans, whether either is true."""

    def bitwise_right_shift(self, other: Operand) -> Tensor:
        """The bits ``other`` places lower, with the sign kept; only the sign if that is negative, or more than there
        are.
        """

    def bitwise_right_shift_(self, other: Operand) -> Tensor:
        """The bits ``other`` places lower, with the sign kept; only the sign if that is negative, or more than there
        are.
        """

    def bitwise_xor(self, other: Operand) -> Tensor:
        """The bits that one of both has; of booleans, whether they differ."""

    def bitwise_xor_(self, other: Operand) -> Tensor:
        """The bits that one of both has; of booleans, whether they differ."""

    def bmm(self, mat2: Tensor) -> Tensor:
        """The products of two batches of matrices."""

    def broadcast_to(self, shape: Sequence[int]) -> Tensor:
        """``input`` expanded to ``shape``."""

    def cauchy_(self, median: float = 0.0, sigma: float = 1.0, *, generator: Generator | None = None) -> Tensor:
        """Fill ``input`` with numbers of the Cauchy distribution, outside autograd. Returns it."""

    def ceil(self) -> Tensor:
        """The smallest integer not below each element. Its gradient is zeros."""

    def ceil_(self) -> Tensor:
        """The smallest integer not below each element. Its gradient is zeros."""

    def cholesky(self, upper: bool = False) -> Tensor:
        """As ``linalg.cholesky``."""

    def cholesky_inverse(self, upper: bool = False) -> Tensor:
        """The inverse of ``L @ L.mT``, where ``input`` is L, or with ``upper`` its transpose."""

    def cholesky_solve(self, L: Tensor, upper: bool = False) -> Tensor:
        """The X with ``L @ L.mT @ X = input``; with ``upper``, L is the transpose of that triangle."""

    def chunk(self, chunks: int, dim: int = 0) -> tuple[Tensor, ...]:
        """At most ``chunks`` views of equal length along ``dim``."""

    def clamp(self, min: Operand | None = None, max: Operand | None = None) -> Tensor:
        """``input`` limited to [min, max]; either may be None. Outside, the gradient goes to the limit."""

    def clamp_(self, min: Operand | None = None, max: Operand | None = None) -> Tensor:
        """``input`` limited to [min, max]; either may be None. Outside, the gradient goes to the limit."""

    def clamp_max(self, max: Operand) -> Tensor:
        """``input``, or ``max`` where that is smaller; see ``clamp``."""

    def clamp_max_(self, max: Operand) -> Tensor:
        """``input``, or ``max`` where that is smaller; see ``clamp``."""

    def clamp_min(self, min: Operand) -> Tensor:
        """``input``, or ``min`` where that is larger; see ``clamp``."""

    def clamp_min_(self, min: Operand) -> Tensor:
        """``input``, or ``min`` where that is larger; see ``clamp``."""

    def clip(self, min: Operand | None = None, max: Operand | None = None) -> Tensor:
        """``input`` limited to [min, max]; either may be None. Outside, the gradient goes to the limit."""

    def clip_(self, min: Operand | None = None, max: Operand | None = None) -> Tensor:
        """``input`` limited to [min, max]; either may be None. Outside, the gradient goes to the limit."""

    def clone(self, *, memory_format: Any = None) -> Tensor:
        """A contiguous copy with its own memory; the gradient flows through. ``memory_format`` changes nothing."""

    def conj(self) -> Tensor:
        """``input`` itself: numbers are real."""

    def copysign(self, other: Operand) -> Tensor:
        """``input`` with the sign of ``other``, also of -0.0."""

    def copysign_(self, other: Operand) -> Tensor:
        """``input`` with the sign of ``other``, also of -0.0."""

    def corrcoef(self) -> Tensor:
        """The correlations of variables, which are rows, over samples, which are columns."""

    def cos(self) -> Tensor:
        """Cosine."""

    def cos_(self) -> Tensor:
        """Cosine."""

    def cosh(self) -> Tensor:
        """Hyperbolic cosine."""

    def cosh_(self) -> Tensor:
        """Hyperbolic cosine."""

    def count_nonzero(self, dim: Axes = None) -> Tensor:
        """How many elements are not 0; int64."""

    def cov(self, *, correction: int = 1, fweights: Tensor | None = None, aweights: Tensor | None = None) -> Tensor:
        """The covariances of variables, which are rows, over samples, which are columns."""

    def cross(self, other: Tensor, dim: int | None = None) -> Tensor:
        """The vector product along ``dim``, or along the first dim of length 3."""

    def cummax(self, dim: int) -> ValuesIndices:
        """(values, indices) of the largest element up to each place of ``dim``: of equal ones the last; NaN wins."""

    def cummin(self, dim: int) -> ValuesIndices:
        """(values, indices) of the smallest element up to each place of ``dim``: of equal ones the last; NaN wins."""

    def cumprod(self, dim: int, *, dtype: Any = None) -> Tensor:
        """The products of the elements up to each place of ``dim``; bools and integers give int64."""

    def cumprod_(self, dim: int, *, dtype: Any = None) -> Tensor:
        """The products of the elements up to each place of ``dim``; bools and integers give int64."""

    def cumsum(self, dim: int, *, dtype: Any = None) -> Tensor:
        """The sums of the elements up to each place of ``dim``; bools and integers give int64."""

    def cumsum_(self, dim: int, *, dtype: Any = None) -> Tensor:
        """The sums of the elements up to each place of ``dim``; bools and integers give int64."""

    def deg2rad(self) -> Tensor:
        """Degrees as radians."""

    def deg2rad_(self) -> Tensor:
        """Degrees as radians."""

    def dequantize(self) -> Tensor:
        """The elements of a quantised tensor in float32; a tensor that is not quantised is returned as it is."""

    def det(self) -> Tensor:
        """The determinant of each matrix. Of a singular one it is 0, and its gradient NaN."""

    def diag(self, diagonal: int = 0) -> Tensor:
        """The matrix with a vector on its diagonal, or the diagonal of a matrix."""

    def diag_embed(self, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Tensor:
        """Matrices of zeros with the last dim of ``input`` on the diagonal, ``offset`` to the right of the main one."""

    def diagflat(self, offset: int = 0) -> Tensor:
        """The matrix with the elements of ``input``, in C order, on its diagonal."""

    def diagonal(self, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Tensor:
        """The diagonal of dims ``dim1`` and ``dim2``, ``offset`` to the right of the main one, as the last dim. A
        view.
        """

    def diagonal_scatter(self, src: Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Tensor:
        """``input`` with ``src`` in the place of its ``diagonal``."""

    def diff(self, n: int = 1, dim: int = -1, prepend: Tensor | None = None, append: Tensor | None = None) -> Tensor:
        """The differences of neighbours along ``dim``, ``n`` times over; of bools, whether they differ."""

    def digamma(self) -> Tensor:
        """The slope of ``lgamma``."""

    def digamma_(self) -> Tensor:
        """The slope of ``lgamma``."""

    def dist(self, other: Tensor, p: float = 2) -> Tensor:
        """The p-norm of ``input - other``."""

    def div(self, other: Operand, *, rounding_mode: str | None = None) -> Tensor:
        """``input / other``, broadcast; integers give float32. ``rounding_mode`` is None, "floor" or "trunc"."""

    def div_(self, other: Operand, *, rounding_mode: str | None = None) -> Tensor:
        """``input / other``, broadcast; integers give float32. ``rounding_mode`` is None, "floor" or "trunc"."""

    def divide(self, other: Operand, *, rounding_mode: str | None = None) -> Tensor:
        """``input / other``, broadcast; integers give float32. ``rounding_mode`` is None, "floor" or "trunc"."""

    def divide_(self, other: Operand, *, rounding_mode: str | None = None) -> Tensor:
        """``input / other``, broadcast; integers give float32. ``rounding_mode`` is None, "floor" or "trunc"."""

    def dot(self, tensor: Tensor) -> Tensor:
        """The scalar product of two vectors."""

    def dsplit(self, indices_or_sections: Any) -> tuple[Tensor, ...]:
        """Views along dim 2: so many of equal length, or split before the indices."""

    def element_size(self) -> int:
        """The bytes that one element takes."""

    def eq(self, other: Operand) -> Tensor:
        """``input == other``, element by element."""

    def eq_(self, other: Operand) -> Tensor:
        """``input == other``, element by element."""

    def equal(self, other: Tensor) -> bool:
        """Whether both have the same shape and elements; waits for the device."""

    def erf(self) -> Tensor:
        """The error function."""

    def erf_(self) -> Tensor:
        """The error function."""

    def erfc(self) -> Tensor:
        """``1 - erf(input)``, exact where that is small."""

    def erfc_(self) -> Tensor:
        """``1 - erf(input)``, exact where that is small."""

    def erfinv(self) -> Tensor:
        """The number of which ``erf`` is ``input``; NaN outside [-1, 1]."""

    def erfinv_(self) -> Tensor:
        """The number of which ``erf`` is ``input``; NaN outside [-1, 1]."""

    def exp(self) -> Tensor:
        """e to the power of each element."""

    def exp2(self) -> Tensor:
        """2 to the power of each element."""

    def exp2_(self) -> Tensor:
        """2 to the power of each element."""

    def exp_(self) -> Tensor:
        """e to the power of each element."""

    def expand(self, *sizes: Any) -> Tensor:
        """Dims of length one repeated to ``sizes``; -1 keeps a dim. A view: the repeats share the memory."""

    def expm1(self) -> Tensor:
        """``exp(input) - 1``, exact near 0."""

    def expm1_(self) -> Tensor:
        """``exp(input) - 1``, exact near 0."""

    def exponential_(self, lambd: float = 1.0, *, generator: Generator | None = None) -> Tensor:
        """Fill ``input`` with numbers of the exponential distribution of rate ``lambd``, outside autograd. Returns
        it.
        """

    def fill_diagonal_(self, fill_value: Number, wrap: bool = False) -> Tensor:
        """``fill_value`` on the main diagonal; with ``wrap`` it starts again one below the bottom of each square."""

    def fix(self) -> Tensor:
        """Each element without its fraction. Its gradient is zeros."""

    def fix_(self) -> Tensor:
        """Each element without its fraction. Its gradient is zeros."""

    def flatten(self, start_dim: int = 0, end_dim: int = -1) -> Tensor:
        """Dims ``start_dim`` to ``end_dim`` merged into one; a 0-d tensor becomes 1-d."""

    def flip(self, *dims: Any) -> Tensor:
        """The elements in reverse order along ``dims``: a copy."""

    def fliplr(self) -> Tensor:
        """The columns in reverse order."""

    def flipud(self) -> Tensor:
        """The rows in reverse order."""

    def float_power(self, exponent: Operand) -> Tensor:
        """``input ** exponent`` in float64, whatever the operands are."""

    def float_power_(self, exponent: Operand) -> Tensor:
        """``input ** exponent`` in float64, whatever the operands are."""

    def floor(self) -> Tensor:
        """The largest integer not above each element. Its gradient is zeros."""

    def floor_(self) -> Tensor:
        """The largest integer not above each element. Its gradient is zeros."""

    def floor_divide(self, other: Operand) -> Tensor:
        """``floor(input / other)``, broadcast; integers stay integers. Its gradients are zeros."""

    def floor_divide_(self, other: Operand) -> Tensor:
        """``floor(input / other)``, broadcast; integers stay integers. Its gradients are zeros."""

    def fmax(self, other: Tensor) -> Tensor:
        """The larger of two, broadcast; NaN loses; equal elements share the gradient."""

    def fmin(self, other: Tensor) -> Tensor:
        """The smaller of two, broadcast; NaN loses; equal elements share the gradient."""

    def fmod(self, other: Operand) -> Tensor:
        """``input - other * trunc(input / other)``, with the sign of ``input``; as C's ``fmod``."""

    def fmod_(self, other: Operand) -> Tensor:
        """``input - other * trunc(input / other)``, with the sign of ``input``; as C's ``fmod``."""

    def frac(self) -> Tensor:
        """``input - trunc(input)``, with the sign of ``input``."""

    def frac_(self) -> Tensor:
        """``input - trunc(input)``, with the sign of ``input``."""

    def frexp(self) -> Frexp:
        """``input`` as ``mantissa * 2 ** exponent``, where the mantissa's size is in [0.5, 1), or it is 0, inf or
        NaN.
        """

    def gather(self, dim: int, index: Tensor, *, sparse_grad: bool = False) -> Tensor:
        """``input``'s elements at each element's own place in ``index``, but at ``index`` along ``dim``."""

    def gcd(self, other: Tensor) -> Tensor:
        """The greatest common divisor of integers."""

    def gcd_(self, other: Tensor) -> Tensor:
        """The greatest common divisor of integers."""

    def ge(self, other: Operand) -> Tensor:
        """``input >= other``, element by element."""

    def ge_(self, other: Operand) -> Tensor:
        """``input >= other``, element by element."""

    def geometric_(self, p: float, *, generator: Generator | None = None) -> Tensor:
        """Fill ``input`` with how many trials it takes to succeed with probability ``p``, outside autograd. Returns
        it.
        """

    def ger(self, vec2: Tensor) -> Tensor:
        """Another name of ``outer``."""

    def greater(self, other: Operand) -> Tensor:
        """``input > other``, element by element."""

    def greater_(self, other: Operand) -> Tensor:
        """``input > other``, element by element."""

    def greater_equal(self, other: Operand) -> Tensor:
        """``input >= other``, element by element."""

    def greater_equal_(self, other: Operand) -> Tensor:
        """``input >= other``, element by element."""

    def gt(self, other: Operand) -> Tensor:
        """``input > other``, element by element."""

    def gt_(self, other: Operand) -> Tensor:
        """``input > other``, element by element."""

    def hardshrink(self, lambd: float = 0.5) -> Tensor:
        """``input``, but 0 within [-lambd, lambd]."""

    def heaviside(self, values: Tensor) -> Tensor:
        """0 where ``input`` is negative, 1 where it is positive, and ``values`` where it is 0. It has no gradient."""

    def heaviside_(self, values: Tensor) -> Tensor:
        """0 where ``input`` is negative, 1 where it is positive, and ``values`` where it is 0. It has no gradient."""

    def histc(self, bins: int = 100, min: Number = 0, max: Number = 0) -> Tensor:
        """How many elements lie in each of ``bins`` parts of [min, max], all equally wide."""

    def histogram(
        self,
        bins: int | Tensor,
        *,
        range: Sequence[float] | None = None,
        weight: Tensor | None = None,
        density: bool = False,
    ) -> Histogram:
        """How many elements lie in each of ``bins`` equal parts of ``range``, or between neighbours of the vector
        ``bins``.
        """

    def hsplit(self, indices_or_sections: Any) -> tuple[Tensor, ...]:
        """Views along dim 1, or dim 0 of a 1-d tensor: so many of equal length, or split before the indices."""

    def hypot(self, other: Tensor) -> Tensor:
        """``sqrt(input ** 2 + other ** 2)`` without overflow."""

    def hypot_(self, other: Tensor) -> Tensor:
        """``sqrt(input ** 2 + other ** 2)`` without overflow."""

    def i0(self) -> Tensor:
        """The modified Bessel function of the first kind, of order 0."""

    def i0_(self) -> Tensor:
        """The modified Bessel function of the first kind, of order 0."""

    def index_add(self, dim: int, index: Tensor, source: Tensor, *, alpha: Number = 1) -> Tensor:
        """``input`` with ``alpha * source`` added: entry k of source along ``dim`` to entry ``index[k]``."""

    def index_add_(self, dim: int, index: Tensor, source: Tensor, *, alpha: Number = 1) -> Tensor:
        """``input`` with ``alpha * source`` added: entry k of source along ``dim`` to entry ``index[k]``."""

    def index_copy(self, dim: int, index: Tensor, source: Tensor) -> Tensor:
        """``input`` with entry k of ``source`` along ``dim`` in the place of entry ``index[k]``."""

    def index_copy_(self, dim: int, index: Tensor, source: Tensor) -> Tensor:
        """``input`` with entry k of ``source`` along ``dim`` in the place of entry ``index[k]``."""

    def index_fill(self, dim: int, index: Tensor, value: Number | Tensor) -> Tensor:
        """``input`` with ``value``, a number or a 0-d tensor, in the entries along ``dim`` that ``index`` names."""

    def index_fill_(self, dim: int, index: Tensor, value: Number | Tensor) -> Tensor:
        """``input`` with ``value``, a number or a 0-d tensor, in the entries along ``dim`` that ``index`` names."""

    def index_put(self, indices: Sequence[Tensor | None], values: Tensor, accumulate: bool = False) -> Tensor:
        """``input`` with ``values`` where ``indices`` say, as for brackets; None takes a whole dim."""

    def index_put_(self, indices: Sequence[Tensor | None], values: Tensor, accumulate: bool = False) -> Tensor:
        """``input`` with ``values`` where ``indices`` say, as for brackets; None takes a whole dim."""

    def index_reduce(
        self,
        dim: int,
        index: Tensor,
        source: Tensor,
        reduce: str,
        *,
        include_self: bool = True,
    ) -> Tensor:
        """As ``scatter_reduce``, with entry k of ``source`` along ``dim`` for entry ``index[k]``; not for "sum"."""

    def index_reduce_(
        self,
        dim: int,
        index: Tensor,
        source: Tensor,
        reduce: str,
        *,
        include_self: bool = True,
    ) -> Tensor:
        """As ``scatter_reduce``, with entry k of ``source`` along ``dim`` for entry ``index[k]``; not for "sum"."""

    def index_select(self, dim: int, index: Tensor) -> Tensor:
        """The entries of ``input`` along ``dim`` that ``index`` names, in its order."""

    def inner(self, other: Tensor) -> Tensor:
        """The sums of products along the last dim of both; a 0-d operand multiplies."""

    def inverse(self) -> Tensor:
        """The inverse of each matrix; ``linalg.inv``."""

    def is_complex(self) -> bool:
        """Whether the elements are complex numbers, which tinyedge does not have."""

    def is_nonzero(self) -> bool:
        """Whether the one element is not 0; waits for the device."""

    def is_same_size(self, other: Tensor) -> bool:
        """Whether both have the same shape."""

    def is_signed(self) -> bool:
        """Whether the dtype has negative numbers."""

    def isclose(self, other: Tensor, rtol: float = 1e-05, atol: float = 1e-08, equal_nan: bool = False) -> Tensor:
        """Whether ``abs(input - other) <= atol + rtol * abs(other)``, or both are the same infinity."""

    def isfinite(self) -> Tensor:
        """Whether each element is neither infinite nor NaN."""

    def isinf(self) -> Tensor:
        """Whether each element is infinite."""

    def isnan(self) -> Tensor:
        """Whether each element is NaN."""

    def isneginf(self) -> Tensor:
        """Whether each element is negative infinity."""

    def isposinf(self) -> Tensor:
        """Whether each element is positive infinity."""

    def isreal(self) -> Tensor:
        """Whether each element is real, which all are."""

    def kron(self, other: Tensor) -> Tensor:
        """Kronecker's product: each element of ``input`` times the whole of ``other``."""

    def kthvalue(self, k: int, dim: int = -1, keepdim: bool = False) -> ValuesIndices:
        """(values, indices) of the ``k``-th smallest along ``dim``, counted from 1."""

    def lcm(self, other: Tensor) -> Tensor:
        """The least common multiple of integers."""

    def lcm_(self, other: Tensor) -> Tensor:
        """The least common multiple of integers."""

    def ldexp(self, other: Tensor) -> Tensor:
        """``input * 2 ** other``."""

    def ldexp_(self, other: Tensor) -> Tensor:
        """``input * 2 ** other``."""

    def le(self, other: Operand) -> Tensor:
        """``input <= other``, element by element."""

    def le_(self, other: Operand) -> Tensor:
        """``input <= other``, element by element."""

    def lerp(self, end: Tensor, weight: Operand) -> Tensor:
        """``input + weight * (end - input)``, exact at both ends."""

    def lerp_(self, end: Tensor, weight: Operand) -> Tensor:
        """``input + weight * (end - input)``, exact at both ends."""

    def less(self, other: Operand) -> Tensor:
        """``input < other``, element by element."""

    def less_(self, other: Operand) -> Tensor:
        """``input < other``, element by element."""

    def less_equal(self, other: Operand) -> Tensor:
        """``input <= other``, element by element."""

    def less_equal_(self, other: Operand) -> Tensor:
        """``input <= other``, element by element."""

    def lgamma(self) -> Tensor:
        """The logarithm of the size of the gamma function."""

    def lgamma_(self) -> Tensor:
        """The logarithm of the size of the gamma function."""

    def log(self) -> Tensor:
        """Natural logarithm."""

    def log10(self) -> Tensor:
        """Logarithm to base 10."""

    def log10_(self) -> Tensor:
        """Logarithm to base 10."""

    def log1p(self) -> Tensor:
        """``log(1 + input)``, exact near 0."""

    def log1p_(self) -> Tensor:
        """``log(1 + input)``, exact near 0."""

    def log2(self) -> Tensor:
        """Logarithm to base 2."""

    def log2_(self) -> Tensor:
        """Logarithm to base 2."""

    def log_(self) -> Tensor:
        """Natural logarithm."""

    def log_normal_(self, mean: float = 1.0, std: float = 2.0, *, generator: Generator | None = None) -> Tensor:
        """Fill ``input`` with numbers whose logarithms are normal, outside autograd. Returns it."""

    def logaddexp(self, other: Tensor) -> Tensor:
        """``log(exp(input) + exp(other))`` without overflow."""

    def logaddexp2(self, other: Tensor) -> Tensor:
        """``log2(2 ** input + 2 ** other)`` without overflow."""

    def logcumsumexp(self, dim: int) -> Tensor:
        """The logarithm of the sum of the exponentials up to each place of ``dim``, without overflow."""

    def logdet(self) -> Tensor:
        """The logarithm of the determinant of each matrix: NaN where it is negative, -inf where it is 0."""

    def logical_and(self, other: Tensor) -> Tensor:
        """Whether both are nonzero."""

    def logical_and_(self, other: Tensor) -> Tensor:
        """Whether both are nonzero."""

    def logical_not(self) -> Tensor:
        """Whether each element is zero."""

    def logical_not_(self) -> Tensor:
        """Whether each element is zero."""

    def logical_or(self, other: Tensor) -> Tensor:
        """Whether either is nonzero."""

    def logical_or_(self, other: Tensor) -> Tensor:
        """Whether either is nonzero."""

    def logical_xor(self, other: Tensor) -> Tensor:
        """Whether one is nonzero and the other is zero."""

    def logical_xor_(self, other: Tensor) -> Tensor:
        """Whether one is nonzero and the other is zero."""

    def logit(self, eps: float | None = None) -> Tensor:
        """``log(input / (1 - input))``, the inverse of ``sigmoid``; with ``eps``, of input limited to [eps, 1 -
        eps].
        """

    def logit_(self, eps: float | None = None) -> Tensor:
        """``log(input / (1 - input))``, the inverse of ``sigmoid``; with ``eps``, of input limited to [eps, 1 -
        eps].
        """

    def logsumexp(self, dim: Axes, keepdim: bool = False) -> Tensor:
        """``log(sum(exp(input)))`` over ``dim``, without overflow; of nothing it is -inf."""

    def lt(self, other: Operand) -> Tensor:
        """``input < other``, element by element."""

    def lt_(self, other: Operand) -> Tensor:
        """``input < other``, element by element."""

    def lu(self, pivot: bool = True, get_infos: bool = False) -> Packed | PackedAndInfo:
        """As ``linalg.lu_factor``; with ``get_infos`` as ``linalg.lu_factor_ex``."""

    def lu_solve(self, LU_data: Tensor, LU_pivots: Tensor) -> Tensor:
        """As ``linalg.lu_solve``, with the arguments in another order."""

    def masked_fill(self, mask: Tensor, value: Operand) -> Tensor:
        """``input`` with ``value``, a number or a 0-d tensor, where ``mask`` is true; the dtype stays input's."""

    def masked_fill_(self, mask: Tensor, value: Operand) -> Tensor:
        """``input`` with ``value``, a number or a 0-d tensor, where ``mask`` is true; the dtype stays input's."""

    def masked_scatter(self, mask: Tensor, source: Tensor) -> Tensor:
        """``input`` with the elements of ``source``, in order, where ``mask`` is true."""

    def masked_scatter_(self, mask: Tensor, source: Tensor) -> Tensor:
        """``input`` with the elements of ``source``, in order, where ``mask`` is true."""

    def masked_select(self, mask: Tensor) -> Tensor:
        """The elements where ``mask`` is true, in C order; which these are is found on the host."""

    def matmul(self, other: Tensor) -> Tensor:
        """The matrix product; the axes before the last two broadcast."""

    def matrix_exp(self) -> Tensor:
        """As ``linalg.matrix_exp``."""

    def matrix_power(self, n: int) -> Tensor:
        """Square matrices to the integer power ``n``; a negative one is that of the inverse."""

    def max(self, *args: Any, **kwargs: Any) -> Any:
        """``max(input)``: the largest element; ``max(input, dim, keepdim=False)``: (values, indices); ``max(input,
        other)``: maximum.
        """

    def maximum(self, other: Tensor) -> Tensor:
        """The larger of two, broadcast; NaN wins; equal elements share the gradient."""

    def mean(self, dim: Axes = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
        """The mean over ``dim``, or over everything; of nothing it is NaN."""

    def median(self, dim: int | None = None, keepdim: bool = False) -> Any:
        """The lower of the middle elements; NaN if one is. Along ``dim``: (values, indices)."""

    def min(self, *args: Any, **kwargs: Any) -> Any:
        """``min(input)``, ``min(input, dim, keepdim=False)`` or ``min(input, other)``, as ``max``."""

    def minimum(self, other: Tensor) -> Tensor:
        """The smaller of two, broadcast; NaN wins; equal elements share the gradient."""

    def mm(self, mat2: Tensor) -> Tensor:
        """The product of two matrices."""

    def mode(self, dim: int = -1, keepdim: bool = False) -> ValuesIndices:
        """(values, indices) of what occurs most often along ``dim``: of several the smallest, and of its places the
        last.
        """

    def moveaxis(self, source: int | Sequence[int], destination: int | Sequence[int]) -> Tensor:
        """Another name of ``movedim``."""

    def movedim(self, source: int | Sequence[int], destination: int | Sequence[int]) -> Tensor:
        """Dims ``source`` moved to the places ``destination``; the others keep their order. A view."""

    def msort(self) -> Tensor:
        """``sort(input, 0).values``."""

    def mul(self, other: Operand) -> Tensor:
        """``input * other``, broadcast."""

    def mul_(self, other: Operand) -> Tensor:
        """``input * other``, broadcast."""

    def multinomial(self, num_samples: int, replacement: bool = False, *, generator: Generator | None = None) -> Tensor:
        """Indices drawn with the weights that each row gives, which need not add up to 1; int64."""

    def multiply(self, other: Operand) -> Tensor:
        """``input * other``, broadcast."""

    def multiply_(self, other: Operand) -> Tensor:
        """``input * other``, broadcast."""

    def mv(self, vec: Tensor) -> Tensor:
        """The product of a matrix and a vector."""

    def mvlgamma(self, p: int) -> Tensor:
        """The logarithm of the multivariate gamma function of dimension ``p``."""

    def mvlgamma_(self, p: int) -> Tensor:
        """The logarithm of the multivariate gamma function of dimension ``p``."""

    def nan_to_num(self, nan: float | None = None, posinf: float | None = None, neginf: float | None = None) -> Tensor:
        """``input`` with ``nan`` in the place of NaN, ``posinf`` and ``neginf`` in those of the infinities."""

    def nan_to_num_(self, nan: float | None = None, posinf: float | None = None, neginf: float | None = None) -> Tensor:
        """``input`` with ``nan`` in the place of NaN, ``posinf`` and ``neginf`` in those of the infinities."""

    def nanmean(self, dim: Axes = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
        """The mean of the elements that are not NaN."""

    def nanmedian(self, dim: int | None = None, keepdim: bool = False) -> Any:
        """The lower of the middle elements of those that are not NaN. Along ``dim``: (values, indices)."""

    def nanquantile(
        self,
        q: float | Tensor,
        dim: int | None = None,
        keepdim: bool = False,
        *,
        interpolation: str = "linear",
    ) -> Tensor:
        """As ``quantile``, of the elements that are not NaN."""

    def nansum(self, dim: Axes = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
        """The sum with 0 in the place of NaN."""

    def narrow(self, dim: int, start: int, length: int) -> Tensor:
        """``length`` elements of dim ``dim`` from ``start`` on. A view."""

    def narrow_copy(self, dim: int, start: int, length: int) -> Tensor:
        """As ``narrow``, with memory of its own."""

    def ndimension(self) -> int:
        """The number of dims."""

    def ne(self, other: Operand) -> Tensor:
        """``input != other``, element by element."""

    def ne_(self, other: Operand) -> Tensor:
        """``input != other``, element by element."""

    def neg(self) -> Tensor:
        """``-input``."""

    def neg_(self) -> Tensor:
        """``-input``."""

    def negative(self) -> Tensor:
        """``-input``."""

    def negative_(self) -> Tensor:
        """``-input``."""

    def nelement(self) -> int:
        """The number of elements."""

    def new(self, *data: Any, device: Target = None) -> Tensor:
        """Values, or sizes of a tensor of zeros, with the dtype and device of ``input``, as in ``te.Tensor``."""

    def new_empty(self, *size: Any, dtype: Any = None, device: Target = None, requires_grad: bool = False) -> Tensor:
        """A tensor of ``size`` that nobody has written yet, with the dtype and device of ``input``."""

    def new_full(
        self,
        size: Sequence[int],
        fill_value: Number,
        *,
        dtype: Any = None,
        device: Target = None,
        requires_grad: bool = False,
    ) -> Tensor:
        """``fill_value`` in every element, of ``size``, with the dtype and device of ``input``."""

    def new_ones(self, *size: Any, dtype: Any = None, device: Target = None, requires_grad: bool = False) -> Tensor:
        """Ones of ``size`` with the dtype and device of ``input``."""

    def new_tensor(self, data: Any, *, dtype: Any = None, device: Target = None, requires_grad: bool = False) -> Tensor:
        """``te.tensor(data)`` with the dtype and device of ``input``."""

    def new_zeros(self, *size: Any, dtype: Any = None, device: Target = None, requires_grad: bool = False) -> Tensor:
        """Zeros of ``size`` with the dtype and device of ``input``."""

    def nextafter(self, other: Tensor) -> Tensor:
        """The float next to ``input`` on the side of ``other``; its gradient is that of ``input``, 0 where both are
        equal.
        """

    def nextafter_(self, other: Tensor) -> Tensor:
        """The float next to ``input`` on the side of ``other``; its gradient is that of ``input``, 0 where both are
        equal.
        """

    def nonzero(self, *, as_tuple: bool = False) -> Any:
        """The indices of the elements that are not 0, in C order; they are found on the host."""

    def norm(self, p: float | str | None = "fro", dim: Axes = None, keepdim: bool = False, dtype: Any = None) -> Tensor:
        """The vector norm over ``dim``; "fro" is that of order 2, "nuc" that of a matrix, ``linalg.matrix_norm``."""

    def normal_(self, mean: float = 0.0, std: float = 1.0, *, generator: Generator | None = None) -> Tensor:
        """Fill ``input`` with normal numbers, outside autograd. Returns it."""

    def not_equal(self, other: Operand) -> Tensor:
        """``input != other``, element by element."""

    def not_equal_(self, other: Operand) -> Tensor:
        """``input != other``, element by element."""

    def outer(self, vec2: Tensor) -> Tensor:
        """Every product of an element of one vector and one of the other."""

    def permute(self, *dims: Any) -> Tensor:
        """The dims in another order: dim i of the result is ``dims[i]`` of the input. A view."""

    def pinverse(self, rcond: float = 1e-15) -> Tensor:
        """As ``linalg.pinv`` with ``rtol=rcond``."""

    def positive(self) -> Tensor:
        """``input`` itself."""

    def pow(self, exponent: Operand) -> Tensor:
        """``input ** exponent``, broadcast. Of integers it is exact, and wraps around."""

    def pow_(self, exponent: Operand) -> Tensor:
        """``input ** exponent``, broadcast. Of integers it is exact, and wraps around."""

    def prelu(self, weight: Tensor) -> Tensor:
        """``input`` where positive, else ``weight * input``, with one weight, or one for each channel."""

    def prod(self, dim: int | None = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
        """The product over ``dim``, or over everything; bools and integers give int64. Its gradient is right at
        zeros.
        """

    def put(self, index: Tensor, source: Tensor, accumulate: bool = False) -> Tensor:
        """``input`` with the elements of ``source`` where ``index`` says in the flat input; with ``accumulate``,
        added.
        """

    def put_(self, index: Tensor, source: Tensor, accumulate: bool = False) -> Tensor:
        """``input`` with the elements of ``source`` where ``index`` says in the flat input; with ``accumulate``,
        added.
        """

    def qr(self, some: bool = True) -> QR:
        """As ``linalg.qr``; without ``some``, with mode="complete"."""

    def quantile(
        self,
        q: float | Tensor,
        dim: int | None = None,
        keepdim: bool = False,
        *,
        interpolation: str = "linear",
    ) -> Tensor:
        """The values below which the shares ``q`` of the elements along ``dim`` lie; NaN if one element is."""

    def rad2deg(self) -> Tensor:
        """Radians as degrees."""

    def rad2deg_(self) -> Tensor:
        """Radians as degrees."""

    def random_(self, *limits: int, generator: Generator | None = None) -> Tensor:
        """Fill ``input`` with uniform integers, outside autograd: ``random_(to)`` or ``random_(low, to)``, in [low,
        to).
        """

    def ravel(self) -> Tensor:
        """The elements in one dim; a view where possible."""

    def reciprocal(self) -> Tensor:
        """``1 / input``."""

    def reciprocal_(self) -> Tensor:
        """``1 / input``."""

    def relu(self, inplace: bool = False) -> Tensor:
        """``max(input, 0)``."""

    def relu_(self) -> Tensor:
        """``max(input, 0)``."""

    def remainder(self, other: Operand) -> Tensor:
        """``input - other * floor(input / other)``, as Python's ``%``."""

    def remainder_(self, other: Operand) -> Tensor:
        """``input - other * floor(input / other)``, as Python's ``%``."""

    def renorm(self, p: float, dim: int, maxnorm: float) -> Tensor:
        """Each slice along ``dim`` whose p-norm is above ``maxnorm`` scaled down to that."""

    def renorm_(self, p: float, dim: int, maxnorm: float) -> Tensor:
        """Each slice along ``dim`` whose p-norm is above ``maxnorm`` scaled down to that."""

    def repeat(self, *repeats: Any) -> Tensor:
        """Copies beside each other: ``repeats`` says how many along each dim; further ones are new dims, in front."""

    def repeat_interleave(
        self,
        repeats: int | Tensor,
        dim: int | None = None,
        *,
        output_size: int | None = None,
    ) -> Tensor:
        """Each element along ``dim`` (of the flat tensor without it) ``repeats`` times in a row."""

    def reshape(self, *shape: Any) -> Tensor:
        """The same elements in C order under another shape; one size may be -1. A view where possible, else a copy."""

    def reshape_as(self, other: Tensor) -> Tensor:
        """As ``reshape(other.shape)``."""

    def resolve_conj(self) -> Tensor:
        """``input`` itself."""

    def resolve_neg(self) -> Tensor:
        """``input`` itself."""

    def roll(self, shifts: int | Sequence[int], dims: int | Sequence[int] | None = None) -> Tensor:
        """The elements moved by ``shifts`` along ``dims``; those that leave at the end come back at the start."""

    def rot90(self, k: int = 1, dims: Sequence[int] = (0, 1)) -> Tensor:
        """``input`` turned by ``k`` quarters in the plane of ``dims``, from the first towards the second."""

    def round(self, *, decimals: int = 0) -> Tensor:
        """The nearest multiple of ``10 ** -decimals``, of two the even one. Its gradient is zeros."""

    def round_(self, *, decimals: int = 0) -> Tensor:
        """The nearest multiple of ``10 ** -decimals``, of two the even one. Its gradient is zeros."""

    def rsqrt(self) -> Tensor:
        """``1 / sqrt(input)``."""

    def rsqrt_(self) -> Tensor:
        """``1 / sqrt(input)``."""

    def scatter(self, dim: int, index: Tensor, src: Tensor | Number, *, reduce: str | None = None) -> Tensor:
        """``input`` with ``src``, a tensor or a number, at each element's own place in ``index``, but at ``index``
        along ``dim``. Of equal places the last stays; with ``reduce="add"`` all are added, with "multiply"
        multiplied.
        """

    def scatter_(self, dim: int, index: Tensor, src: Tensor | Number, *, reduce: str | None = None) -> Tensor:
        """``input`` with ``src``, a tensor or a number, at each element's own place in ``index``, but at ``index``
        along ``dim``. Of equal places the last stays; with ``reduce="add"`` all are added, with "multiply"
        multiplied.
        """

    def scatter_add(self, dim: int, index: Tensor, src: Tensor) -> Tensor:
        """``input`` with ``src`` added at each element's own place in ``index``, but at ``index`` along ``dim``."""

    def scatter_add_(self, dim: int, index: Tensor, src: Tensor) -> Tensor:
        """``input`` with ``src`` added at each element's own place in ``index``, but at ``index`` along ``dim``."""

    def scatter_reduce(self, dim: int, index: Tensor, src: Tensor, reduce: str, *, include_self: bool = True) -> Tensor:
        """``input`` with the elements of ``src`` added ("sum"), multiplied ("prod"), averaged ("mean") or compared
        ("amax", "amin") with what stands at each one's own place in ``index``, but at ``index`` along ``dim``.
        """

    def scatter_reduce_(
        self,
        dim: int,
        index: Tensor,
        src: Tensor,
        reduce: str,
        *,
        include_self: bool = True,
    ) -> Tensor:
        """``input`` with the elements of ``src`` added ("sum"), multiplied ("prod"), averaged ("mean") or compared
        ("amax", "amin") with what stands at each one's own place in ``index``, but at ``index`` along ``dim``.
        """

    def select(self, dim: int, index: int) -> Tensor:
        """Element ``index`` of dim ``dim``, without that dim. A view."""

    def select_scatter(self, src: Tensor, dim: int, index: int) -> Tensor:
        """``input`` with ``src`` in the place of ``select(input, dim, index)``."""

    def sgn(self) -> Tensor:
        """-1, 0 or 1. Its gradient is zeros."""

    def sgn_(self) -> Tensor:
        """-1, 0 or 1. Its gradient is zeros."""

    def sigmoid(self) -> Tensor:
        """``1 / (1 + exp(-input))``."""

    def sigmoid_(self) -> Tensor:
        """``1 / (1 + exp(-input))``."""

    def sign(self) -> Tensor:
        """-1, 0 or 1. Its gradient is zeros."""

    def sign_(self) -> Tensor:
        """-1, 0 or 1. Its gradient is zeros."""

    def signbit(self) -> Tensor:
        """Whether each element is negative, also of -0.0."""

    def sin(self) -> Tensor:
        """Sine."""

    def sin_(self) -> Tensor:
        """Sine."""

    def sinc(self) -> Tensor:
        """``sin(pi * input) / (pi * input)``, and 1 at 0."""

    def sinc_(self) -> Tensor:
        """``sin(pi * input) / (pi * input)``, and 1 at 0."""

    def sinh(self) -> Tensor:
        """Hyperbolic sine."""

    def sinh_(self) -> Tensor:
        """Hyperbolic sine."""

    def slice_scatter(
        self,
        src: Tensor,
        dim: int = 0,
        start: int | None = None,
        end: int | None = None,
        step: int = 1,
    ) -> Tensor:
        """``input`` with ``src`` in the place of the elements from ``start`` to ``end`` along ``dim``, ``step``
        apart.
        """

    def slogdet(self) -> SignAndLogarithm:
        """(sign, logabsdet): the sign of the determinant of each matrix, and the logarithm of its size."""

    def sort(self, dim: int = -1, descending: bool = False, stable: bool = True) -> ValuesIndices:
        """(values, indices) in order along ``dim``; equal elements keep their order, and NaN is the largest."""

    def split_with_sizes(self, split_sizes: Sequence[int], dim: int = 0) -> tuple[Tensor, ...]:
        """Views of the given lengths along ``dim``."""

    def sqrt(self) -> Tensor:
        """Square root."""

    def sqrt_(self) -> Tensor:
        """Square root."""

    def square(self) -> Tensor:
        """``input * input``."""

    def square_(self) -> Tensor:
        """``input * input``."""

    def squeeze(self, dim: int | Sequence[int] | None = None) -> Tensor:
        """Without the dims of length one, or without those of ``dim`` that have it."""

    def squeeze_(self, dim: int | Sequence[int] | None = None) -> Tensor:
        """As ``squeeze``, of the tensor itself. Returns it."""

    def std(
        self,
        dim: Axes | bool = None,
        unbiased: bool | None = None,
        keepdim: bool = False,
        *,
        correction: float | None = None,
    ) -> Tensor:
        """The square root of ``var``; where it is 0, so is its gradient."""

    def storage_offset(self) -> int:
        """How many elements of memory lie before the first one."""

    def sub(self, other: Operand, *, alpha: Number = 1) -> Tensor:
        """``input - alpha * other``, broadcast."""

    def sub_(self, other: Operand, *, alpha: Number = 1) -> Tensor:
        """``input - alpha * other``, broadcast."""

    def subtract(self, other: Operand, *, alpha: Number = 1) -> Tensor:
        """``input - alpha * other``, broadcast."""

    def subtract_(self, other: Operand, *, alpha: Number = 1) -> Tensor:
        """``input - alpha * other``, broadcast."""

    def sum(self, dim: Axes = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
        """The sum over ``dim``, or over everything; bools and integers give int64."""

    def sum_to_size(self, *size: Any) -> Tensor:
        """The sums over the dims along which ``size`` would be broadcast to the input's shape."""

    def svd(self, some: bool = True, compute_uv: bool = True) -> OldSVD:
        """(U, S, V) with ``input = U @ diag(S) @ V.mT``, as ``linalg.svd``; without ``compute_uv``, U and V are
        zeros.
        """

    def swapaxes(self, axis0: int, axis1: int) -> Tensor:
        """Another name of ``transpose``."""

    def swapaxes_(self, axis0: int, axis1: int) -> Tensor:
        """As ``swapaxes``, of the tensor itself. Returns it."""

    def swapdims(self, dim0: int, dim1: int) -> Tensor:
        """Another name of ``transpose``."""

    def swapdims_(self, dim0: int, dim1: int) -> Tensor:
        """As ``swapdims``, of the tensor itself. Returns it."""

    def t(self) -> Tensor:
        """The transpose of a tensor of at most two dims."""

    def t_(self) -> Tensor:
        """As ``t``, of the tensor itself. Returns it."""

    def take(self, index: Tensor) -> Tensor:
        """The elements of the flat input that ``index`` names; negative ones count from the end."""

    def take_along_dim(self, indices: Tensor, dim: int | None = None) -> Tensor:
        """``gather`` after both were broadcast in every dim but ``dim``; negative indices count from the end."""

    def tan(self) -> Tensor:
        """Tangent."""

    def tan_(self) -> Tensor:
        """Tangent."""

    def tanh(self) -> Tensor:
        """Hyperbolic tangent."""

    def tanh_(self) -> Tensor:
        """Hyperbolic tangent."""

    def tensor_split(self, indices_or_sections: Any, dim: int = 0) -> tuple[Tensor, ...]:
        """Views along ``dim``: so many, the first of them one longer where they do not fit; or split before the
        indices.
        """

    def tile(self, *dims: Any) -> Tensor:
        """As ``repeat``, where missing numbers in front are 1."""

    def topk(self, k: int, dim: int = -1, largest: bool = True, sorted: bool = True) -> ValuesIndices:
        """(values, indices) of the ``k`` largest (or smallest) along ``dim``, in order; of equal ones, the first."""

    def trace(self) -> Tensor:
        """The sum of a matrix's diagonal."""

    def transpose(self, dim0: int, dim1: int) -> Tensor:
        """Two dims swapped. A view."""

    def transpose_(self, dim0: int, dim1: int) -> Tensor:
        """As ``transpose``, of the tensor itself. Returns it."""

    def triangular_solve(
        self,
        A: Tensor,
        upper: bool = True,
        transpose: bool = False,
        unitriangular: bool = False,
    ) -> Solution:
        """(solution, A): as ``linalg.solve_triangular``, with the arguments the other way round."""

    def tril(self, diagonal: int = 0) -> Tensor:
        """The matrices in the last two dims with zeros above a diagonal: the main one, or that many to its right."""

    def tril_(self, diagonal: int = 0) -> Tensor:
        """The matrices in the last two dims with zeros above a diagonal: the main one, or that many to its right."""

    def triu(self, diagonal: int = 0) -> Tensor:
        """The matrices in the last two dims with zeros below a diagonal: the main one, or that many to its right."""

    def triu_(self, diagonal: int = 0) -> Tensor:
        """The matrices in the last two dims with zeros below a diagonal: the main one, or that many to its right."""

    def true_divide(self, other: Operand) -> Tensor:
        """``input / other``, broadcast; integers give float32."""

    def true_divide_(self, other: Operand) -> Tensor:
        """``input / other``, broadcast; integers give float32."""

    def trunc(self) -> Tensor:
        """Each element without its fraction. Its gradient is zeros."""

    def trunc_(self) -> Tensor:
        """Each element without its fraction. Its gradient is zeros."""

    def type_as(self, other: Tensor) -> Tensor:
        """As ``to(other.dtype)``, on other's device."""

    def unbind(self, dim: int = 0) -> tuple[Tensor, ...]:
        """Every slice along ``dim``, without that dim."""

    def unflatten(self, dim: int, sizes: Sequence[int]) -> Tensor:
        """Dim ``dim`` split into ``sizes``, of which one may be -1."""

    def uniform_(self, a: float = 0.0, b: float = 1.0, *, generator: Generator | None = None) -> Tensor:
        """Fill ``input`` with uniform numbers in [a, b), outside autograd. Returns it."""

    def unique(
        self,
        sorted: bool = True,
        return_inverse: bool = False,
        return_counts: bool = False,
        dim: int | None = None,
    ) -> Any:
        """Each value once, in order; found on the host. Along ``dim``, each slice once."""

    def unique_consecutive(
        self,
        return_inverse: bool = False,
        return_counts: bool = False,
        dim: int | None = None,
    ) -> Any:
        """The first of each run of equal elements, or along ``dim`` of equal slices; found on the host."""

    def unsafe_chunk(self, chunks: int, dim: int = 0) -> tuple[Tensor, ...]:
        """At most ``chunks`` views of equal length along ``dim``."""

    def unsqueeze(self, dim: int) -> Tensor:
        """With a dim of length one inserted at ``dim``."""

    def unsqueeze_(self, dim: int) -> Tensor:
        """As ``unsqueeze``, of the tensor itself. Returns it."""

    def var(
        self,
        dim: Axes | bool = None,
        unbiased: bool | None = None,
        keepdim: bool = False,
        *,
        correction: float | None = None,
    ) -> Tensor:
        """The variance over ``dim``; the sum of squares is divided by ``n - correction`` (1 unless
        ``unbiased=False``).
        """

    def vdot(self, other: Tensor) -> Tensor:
        """The scalar product of two vectors, as ``dot``."""

    def view(self, *shape: Any) -> Tensor:
        """As ``reshape``, but never a copy."""

    def vsplit(self, indices_or_sections: Any) -> tuple[Tensor, ...]:
        """Views along dim 0: so many of equal length, or split before the indices."""

    def xlogy(self, other: Operand) -> Tensor:
        """``input * log(other)``, and 0 where ``input`` is 0."""

    def xlogy_(self, other: Operand) -> Tensor:
        """``input * log(other)``, and 0 where ``input`` is 0."""
