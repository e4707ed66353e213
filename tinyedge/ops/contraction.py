"""Sums of products, composed of matmul: addmm and its kin, outer, inner, tensordot, einsum, trace."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any, cast

from tinyedge import shapes
from tinyedge.autograd.registry import functions, public
from tinyedge.errors import ArgumentError, DtypeError, ShapeError
from tinyedge.ops.matmul import bmm, matmul, mm, mv
from tinyedge.ops.movement import expand, permute, reshape, unsqueeze, view
from tinyedge.ops.rearrange import diagonal
from tinyedge.ops.reduce import sum as total
from tinyedge.tensor import Number, Tensor


def _tensors(name: str, *items: Any) -> None:
    for item in items:
        if not isinstance(item, Tensor):
            raise DtypeError(name, "tensors", f"one is {type(item).__name__}", "Convert it with te.tensor.")


def _added(name: str, input: Tensor, product: Tensor, beta: Number, alpha: Number) -> Tensor:
    """``beta * input + alpha * product``, of the product's shape; with beta=0, input may hold NaN."""
    if input.dtype is not product.dtype:
        raise DtypeError(
            name,
            "tensors of one dtype",
            f"got {input.dtype.name} and {product.dtype.name}",
            "Convert one of them with .to(dtype).",
        )
    if shapes.broadcast(name, input.shape, product.shape) != product.shape:
        raise ShapeError(name, f"an input that broadcasts to {product.shape}", f"got {input.shape}")
    if not product.is_floating_point():  # PyTorch's: factors become integers first
        alpha, beta = int(alpha), int(beta)
    if alpha != 1:
        product = product * alpha
    if beta == 0:
        return product
    return product + (input if beta == 1 else input * beta)


@public(method=True, inplace=True)
def addmm(input: Tensor, mat1: Tensor, mat2: Tensor, *, beta: Number = 1, alpha: Number = 1) -> Tensor:
    """``beta * input + alpha * (mat1 @ mat2)``.

    Shapes: mat1 (m, k), mat2 (k, n), input broadcasts to (m, n); returns (m, n).
    Errors: ShapeError unless the shapes are such; DtypeError unless all are of one floating-point type.
    """
    _tensors("addmm", input, mat1, mat2)
    return _added("addmm", input, mm(mat1, mat2), beta, alpha)


@public(method=True, inplace=True)
def addmv(input: Tensor, mat: Tensor, vec: Tensor, *, beta: Number = 1, alpha: Number = 1) -> Tensor:
    """``beta * input + alpha * (mat @ vec)``.

    Shapes: mat (m, k), vec (k,), input broadcasts to (m,); returns (m,).
    Errors: ShapeError unless the shapes are such; DtypeError unless all are of one floating-point type.
    """
    _tensors("addmv", input, mat, vec)
    return _added("addmv", input, mv(mat, vec), beta, alpha)


@public(method=True, inplace=True)
def baddbmm(input: Tensor, batch1: Tensor, batch2: Tensor, *, beta: Number = 1, alpha: Number = 1) -> Tensor:
    """``beta * input + alpha * bmm(batch1, batch2)``.

    Shapes: batch1 (b, m, k), batch2 (b, k, n), input broadcasts to (b, m, n); returns (b, m, n).
    Errors: ShapeError unless the shapes are such; DtypeError unless all are of one floating-point type.
    """
    _tensors("baddbmm", input, batch1, batch2)
    return _added("baddbmm", input, bmm(batch1, batch2), beta, alpha)


@public(method=True)
def outer(input: Tensor, vec2: Tensor) -> Tensor:
    """Every product of an element of one vector and one of the other.

    Shapes: (n,) and (m,) give (n, m).
    Errors: ShapeError unless both have one dim.
    """
    return _outer("outer", input, vec2)


def _outer(name: str, a: Tensor, b: Tensor) -> Tensor:
    _tensors(name, a, b)
    if a.ndim != 1 or b.ndim != 1:
        raise ShapeError(name, "two vectors", f"got {a.shape} and {b.shape}")
    return unsqueeze(a, 1) * b


@public(method=True)
def ger(input: Tensor, vec2: Tensor) -> Tensor:
    """Another name of ``outer``.

    Shapes: (n,) and (m,) give (n, m).
    Errors: ShapeError unless both have one dim.
    """
    return _outer("ger", input, vec2)


@public(method=True)
def vdot(input: Tensor, other: Tensor) -> Tensor:
    """The scalar product of two vectors, as ``dot``.

    Shapes: (k,) and (k,) give ().
    Errors: ShapeError unless the shapes are such.
    """
    _tensors("vdot", input, other)
    return cast("Tensor", functions["dot"](input, other))


@public(method=True)
def inner(input: Tensor, other: Tensor) -> Tensor:
    """The sums of products along the last dim of both; a 0-d operand multiplies.

    Shapes: (..., k) and (*, k) give (..., *).
    Errors: ShapeError if the two k differ.
    """
    _tensors("inner", input, other)
    if not input.ndim or not other.ndim:
        return input * other
    if input.shape[-1] != other.shape[-1]:
        raise ShapeError("inner", "equal last dims", f"got {input.shape} and {other.shape}")
    return tensordot(input, other, ((-1,), (-1,)))


@public
def tensordot(a: Tensor, b: Tensor, dims: Any = 2) -> Tensor:
    """The sums of products over dims of both: the last ``dims`` of a and the first of b, or two lists of dims.

    Shapes: the other dims of a, then those of b.
    Errors: ShapeError if the lengths differ; ArgumentError unless both lists are of one length; AxisError if there is
            no such dim.
    """
    _tensors("tensordot", a, b)
    if isinstance(dims, Tensor):
        dims = dims.tolist()
    if isinstance(dims, int):
        if dims < 0 or dims > min(a.ndim, b.ndim):
            raise ArgumentError("tensordot", f"dims in [0, {min(a.ndim, b.ndim)}]", f"got {dims}")
        left, right = list(range(a.ndim - dims, a.ndim)), list(range(dims))
    else:
        first, second = ([item] if isinstance(item, int) else list(item) for item in dims)
        if len(first) != len(second):
            raise ArgumentError("tensordot", "as many dims of both", f"got {len(first)} and {len(second)}")
        left = [shapes.normalize_axis("tensordot", int(axis), a.ndim) for axis in first]
        right = [shapes.normalize_axis("tensordot", int(axis), b.ndim) for axis in second]
        if len(set(left)) != len(left) or len(set(right)) != len(right):
            raise ArgumentError("tensordot", "each dim once", f"got dims={dims}")
    for k, (i, j) in enumerate(zip(left, right)):
        if a.shape[i] != b.shape[j]:
            if 1 not in (a.shape[i], b.shape[j]):
                raise ShapeError("tensordot", "equal lengths", f"pair {k} is {a.shape[i]} and {b.shape[j]}")
            if a.shape[i] == 1:  # as in PyTorch, a dim of length one is repeated: the other's is summed
                b = total(b, j, True, dtype=b.dtype)
            else:
                a = total(a, i, True, dtype=a.dtype)
    keep_a = [axis for axis in range(a.ndim) if axis not in left]
    keep_b = [axis for axis in range(b.ndim) if axis not in right]
    count = prod(a.shape[axis] for axis in left)
    shape_a, shape_b = (tuple(x.shape[axis] for axis in keep) for x, keep in ((a, keep_a), (b, keep_b)))
    rows = reshape(permute(a, [*keep_a, *left]), (prod(shape_a), count))
    columns = reshape(permute(b, [*right, *keep_b]), (count, prod(shape_b)))
    return reshape(mm(rows, columns), (*shape_a, *shape_b))


@public(method=True)
def trace(input: Tensor) -> Tensor:
    """The sum of a matrix's diagonal.

    Shapes: (n, m) gives ().
    Errors: ShapeError unless there are 2 dims.
    """
    if input.ndim != 2:
        raise ShapeError("trace", "a matrix", f"got {input.shape}")
    return total(diagonal(input))


def _parsed(equation: str, ranks: Sequence[int]) -> tuple[list[list[Any]], list[Any]]:
    """Labels for each operand's dims, and for the result's. Those of an ellipsis are numbers, counted from the end."""

    def refuse(expected: str) -> ArgumentError:
        return ArgumentError("einsum", expected, f"got {equation!r} for operands of {list(ranks)} dims")

    text = equation.replace(" ", "")
    left, arrow, right = text.partition("->")
    terms = left.split(",")
    if len(terms) != len(ranks):
        raise refuse(f"as many terms as operands, {len(ranks)}")
    widest = 0

    def labels(term: str, dots: int) -> list[Any]:
        before, ellipsis, after = term.partition("...")
        if not all(letter.isalpha() and letter.isascii() for letter in before + after):
            raise refuse("letters, commas, one arrow and at most one ellipsis a term")
        return [*before, *(range(-dots, 0) if ellipsis else ()), *after]

    found = []
    for term, rank in zip(terms, ranks):
        dots = rank - len(term.replace("...", ""))
        if dots < 0 or (dots and "..." not in term):
            raise refuse("a letter for each dim")
        widest = max(widest, dots if "..." in term else 0)
        found.append(labels(term, dots))
    flat = [label for term_labels in found for label in term_labels]
    if arrow:
        output = labels(right, widest)
        if len(set(output)) != len(output) or any(isinstance(k, str) and k not in flat for k in output):
            raise refuse("letters of the operands in the result, each once")
    else:
        once = sorted({label for label in flat if isinstance(label, str) and flat.count(label) == 1})
        output = [*range(-widest, 0), *once]
    return found, output


@public
def einsum(equation: str, *operands: Any) -> Tensor:
    """Sums of products as Einstein's notation says: letters name dims, those that are not after ``->`` are summed.

    Operands are multiplied from left to right, each product a batched matmul.

    Shapes: as the equation says; "..." stands for dims that broadcast.
    Errors: ArgumentError for an equation that does not fit the operands; ShapeError if lengths differ; DtypeError
            unless all are of one floating-point type.

    >>> te.einsum("ij,jk->ik", te.tensor([[1.0, 2.0]]), te.tensor([[3.0], [4.0]])).tolist()
    [[11.0]]
    """
    if not isinstance(equation, str):
        raise DtypeError(
            "einsum",
            "an equation and tensors",
            f"got {type(equation).__name__} first",
            'Put the equation first: te.einsum("ij,jk->ik", a, b).',
        )
    items = operands[0] if len(operands) == 1 and isinstance(operands[0], (tuple, list)) else operands
    _tensors("einsum", *items)
    if not items:
        raise ArgumentError("einsum", "at least one operand", "got none")
    terms, output = _parsed(equation, [item.ndim for item in items])
    sizes: dict[Any, int] = {}
    for item, term in zip(items, terms):
        for label, size in zip(term, item.shape):
            if sizes.setdefault(label, size) not in (size, 1) and size != 1:
                raise ShapeError("einsum", f"one length for {label!r}", f"got {sizes[label]} and {size}")
            sizes[label] = size if sizes[label] == 1 else sizes[label]
    result, at = _without_repeats(items[0], terms[0])
    rest = [_without_repeats(item, term) for item, term in zip(items[1:], terms[1:])]
    for k, (item, term) in enumerate(rest):
        wanted = {*output, *(label for _, later in rest[k + 1 :] for label in later)}
        result, at = _contracted(result, at, item, term, wanted)
    extra = [axis for axis, label in enumerate(at) if label not in output]
    if extra:
        result = total(result, extra)
        at = [label for label in at if label in output]
    absent = [label for label in output if label not in at]
    result = permute(result, [at.index(label) for label in output if label in at])
    for label in absent:
        result = unsqueeze(result, output.index(label))
    return result


def _without_repeats(x: Tensor, labels: list[Any]) -> tuple[Tensor, list[Any]]:
    """The diagonal where a label stands twice."""
    labels = list(labels)
    for label in dict.fromkeys(labels):
        while labels.count(label) > 1:
            a = labels.index(label)
            b = labels.index(label, a + 1)
            if x.shape[a] != x.shape[b]:
                raise ShapeError("einsum", f"one length for {label!r} of one operand", f"got {x.shape}")
            x = diagonal(x, 0, a, b)
            del labels[b], labels[a]
            labels.append(label)
    return x, labels


def _contracted(a: Tensor, of_a: list[Any], b: Tensor, of_b: list[Any], wanted: set[Any]) -> tuple[Tensor, list[Any]]:
    """The product of two, with the labels that nobody wants later summed."""

    def length(x: Tensor, labels: list[Any], label: Any) -> int:
        return x.shape[labels.index(label)]

    # What only one has, or has with a length other than 1, and nobody wants, is summed before.
    for own, other in ((0, 1), (1, 0)):
        x, labels = ((a, of_a), (b, of_b))[own]
        y, others = ((a, of_a), (b, of_b))[other]
        gone = [
            k for k, label in enumerate(labels)
            if label not in wanted and (label not in others or length(y, others, label) == 1)
        ]  # fmt: skip
        if gone:
            x = total(x, gone)
            labels = [label for k, label in enumerate(labels) if k not in gone]
        if own == 0:
            a, of_a = x, labels
        else:
            b, of_b = x, labels
    for label in [label for label in of_a if label not in wanted and label not in of_b]:
        a, of_a = total(a, of_a.index(label)), [k for k in of_a if k != label]
    for label in [label for label in of_b if label not in wanted and label not in of_a]:
        b, of_b = total(b, of_b.index(label)), [k for k in of_b if k != label]
    both = [label for label in of_a if label in of_b]
    summed = [label for label in both if label not in wanted]
    batch = [label for label in both if label in wanted]
    rows = [label for label in of_a if label not in both]
    columns = [label for label in of_b if label not in both]
    at = [*batch, *rows, *columns]
    for label in batch:  # a length of one is repeated
        size = max(length(a, of_a, label), length(b, of_b, label)) if 0 not in a.shape + b.shape else None
        if size is not None:
            a = expand(a, [size if k == label else -1 for k in of_a]) if a.ndim else a
            b = expand(b, [size if k == label else -1 for k in of_b]) if b.ndim else b
    a = permute(a, [of_a.index(label) for label in (*batch, *rows, *summed)])
    b = permute(b, [of_b.index(label) for label in (*batch, *summed, *columns)])
    many, few = len(batch), len(rows)
    front, left, right = a.shape[:many], a.shape[many : many + few], b.shape[many + len(summed) :]
    if not summed:
        wide = view(a, (*a.shape, *(1 for _ in columns)))
        narrow = reshape(b, (*front, *(1 for _ in rows), *right))
        return wide * narrow, at
    count = prod(b.shape[many : many + len(summed)])
    product = matmul(
        reshape(a, (*front, prod(left), count)) if many <= 1 else reshape(a, (prod(front), prod(left), count)),
        reshape(b, (*front, count, prod(right))) if many <= 1 else reshape(b, (prod(front), count, prod(right))),
    )
    return reshape(product, (*front, *left, *right)), at
