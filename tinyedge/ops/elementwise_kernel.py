"""``te.kernel``: a user's own elementwise op, from expressions.

In: the text of assignments. Out: an op class like those of this package. The text is parsed as Python, of which only
arithmetic, comparisons and calls of known functions are let through, and written again twice: as OpenCL C, and as a
NumPy function. Names of the user's never reach C as they are.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from functools import lru_cache
from types import CodeType, FunctionType
from typing import Any

import numpy as np

from tinyedge.autograd.op import Elementwise
from tinyedge.errors import ArgumentError
from tinyedge.ops.promotion import Operand, as_operand, float_dtype, prepared
from tinyedge.ops.unary import erf_of
from tinyedge.tensor import Tensor, call

FUNCTIONS: Mapping[str, tuple[int, str, Any]] = {
    "abs": (1, "fabs", np.abs), "acos": (1, "acos", np.arccos), "acosh": (1, "acosh", np.arccosh),
    "asin": (1, "asin", np.arcsin), "asinh": (1, "asinh", np.arcsinh), "atan": (1, "atan", np.arctan),
    "atan2": (2, "atan2", np.arctan2), "atanh": (1, "atanh", np.arctanh), "ceil": (1, "ceil", np.ceil),
    "cos": (1, "cos", np.cos), "cosh": (1, "cosh", np.cosh), "erf": (1, "erf", erf_of), "exp": (1, "exp", np.exp),
    "exp2": (1, "exp2", np.exp2), "expm1": (1, "expm1", np.expm1), "floor": (1, "floor", np.floor),
    "fmod": (2, "fmod", np.fmod), "hypot": (2, "hypot", np.hypot), "log": (1, "log", np.log),
    "log10": (1, "log10", np.log10), "log1p": (1, "log1p", np.log1p), "log2": (1, "log2", np.log2),
    "max": (2, "fmax", np.fmax), "min": (2, "fmin", np.fmin), "pow": (2, "pow", np.power),
    "round": (1, "rint", np.rint), "sin": (1, "sin", np.sin), "sinh": (1, "sinh", np.sinh),
    "sqrt": (1, "sqrt", np.sqrt), "tan": (1, "tan", np.tan), "tanh": (1, "tanh", np.tanh),
    "trunc": (1, "trunc", np.trunc), "where": (3, "WHERE", np.where),
}  # fmt: skip
"""What expressions may call: how many arguments it takes, its name in OpenCL C, and the NumPy function."""

ALIASES = {"fabs": "abs", "fmax": "max", "fmin": "min", "maximum": "max", "minimum": "min", "rint": "round",
           "WHERE": "where"}  # fmt: skip

OPERATORS: Mapping[type[ast.AST], str] = {
    ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/", ast.USub: "-", ast.UAdd: "+", ast.Lt: "<", ast.LtE: "<=",
    ast.Gt: ">", ast.GtE: ">=", ast.Eq: "==", ast.NotEq: "!=", ast.And: "&&", ast.Or: "||",
}  # fmt: skip

CONDITIONS = (ast.Compare, ast.BoolOp, ast.Not)


def _refused(got: str, hint: str = "") -> ArgumentError:
    return ArgumentError("te.kernel", "assignments of arithmetic, comparisons and functions", got, hint)


# Parsing


def _assignments(text: str) -> dict[str, ast.expr]:
    """The values that a text assigns, by name; names assigned before stand for their values."""
    try:
        module = ast.parse(_lines(text))
    except SyntaxError as error:
        hint = "Write a choice as where(condition, a, b)." if "?" in text else ""
        raise _refused(f"got {text!r}: {error.msg}", hint) from None
    found: dict[str, ast.expr] = {}
    for line in module.body:
        if not isinstance(line, ast.Assign) or len(line.targets) != 1 or not isinstance(line.targets[0], ast.Name):
            raise _refused(f"got {ast.unparse(line)!r}", 'Write "y = ...", and ";" between assignments.')
        name = line.targets[0].id
        if name in found:
            raise _refused(f"{name} is assigned twice")
        found[name] = _Inlined(found).visit(line.value)
    return found


def _lines(text: str) -> str:
    return "\n".join(line.strip() for line in text.replace(";", "\n").splitlines())


class _Inlined(ast.NodeTransformer):
    """Puts values in the place of the names that were assigned."""

    def __init__(self, values: Mapping[str, ast.expr]) -> None:
        self.values = values

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return self.values.get(node.id, node)

    def visit_Call(self, node: ast.Call) -> ast.expr:
        return ast.Call(node.func, [self.visit(part) for part in node.args], node.keywords)


def _names(expression: ast.expr) -> list[str]:
    """The variables of an expression, in order of appearance."""
    whole = _again(expression)
    called = {id(node.func) for node in ast.walk(whole) if isinstance(node, ast.Call)}
    nodes = [node for node in ast.walk(whole) if isinstance(node, ast.Name) and id(node) not in called]
    return list(dict.fromkeys(node.id for node in sorted(nodes, key=lambda node: (node.lineno, node.col_offset))))


def _again(expression: ast.expr) -> ast.expr:
    """The expression parsed again, so that all its parts have places."""
    return ast.parse(ast.unparse(ast.fix_missing_locations(expression)), mode="eval").body


def _checked(node: ast.expr) -> ast.expr:
    """The expression as it is written again: every function by its one name, powers as calls, choices as ``where``.

    A comparison is a condition, of ``where`` or of a choice. As a number it is 1 or 0.
    """
    return _number(_plain(node))


def _plain(node: ast.expr) -> ast.expr:
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        return node
    if isinstance(node, ast.Name):
        if node.id in FUNCTIONS or node.id in ALIASES:
            raise _refused(f"the function {node.id} is not called")
        return node
    if isinstance(node, ast.BinOp):
        if isinstance(node.op, ast.Pow):
            return _call("pow", _checked(node.left), _checked(node.right))
        if type(node.op) in OPERATORS:
            return ast.BinOp(_checked(node.left), node.op, _checked(node.right))
    if isinstance(node, ast.UnaryOp):
        if isinstance(node.op, ast.Not):
            return ast.UnaryOp(node.op, _condition(node.operand))
        if type(node.op) in OPERATORS:
            return ast.UnaryOp(node.op, _checked(node.operand))
    if isinstance(node, ast.BoolOp):
        return ast.BoolOp(node.op, [_condition(part) for part in node.values])
    if isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in OPERATORS:
        return ast.Compare(_checked(node.left), node.ops, [_checked(node.comparators[0])])
    if isinstance(node, ast.IfExp):
        return _call("where", _condition(node.test), _checked(node.body), _checked(node.orelse))
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.keywords:
        name = ALIASES.get(node.func.id, node.func.id)
        if name not in FUNCTIONS:
            raise _refused(f"it calls {node.func.id}", f"There are {', '.join(sorted(FUNCTIONS))}.")
        if len(node.args) != FUNCTIONS[name][0]:
            raise _refused(f"{name} takes {FUNCTIONS[name][0]} arguments, and gets {len(node.args)}")
        if name == "where":
            return _call(name, _condition(node.args[0]), *map(_checked, node.args[1:]))
        return _call(name, *map(_checked, node.args))
    raise _refused(f"got {ast.unparse(node)!r}")


def _call(name: str, *arguments: ast.expr) -> ast.expr:
    return ast.Call(ast.Name(name, ast.Load()), list(arguments), [])


def _is_condition(node: ast.expr) -> bool:
    return isinstance(node, CONDITIONS) or (isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not))


def _number(node: ast.expr) -> ast.expr:
    return _call("where", node, ast.Constant(1), ast.Constant(0)) if _is_condition(node) else node


def _condition(node: ast.expr) -> ast.expr:
    plain = _plain(node)
    if not _is_condition(plain):
        plain = ast.Compare(plain, [ast.NotEq()], [ast.Constant(0)])
    if not _names(plain):
        raise _refused(f"the condition {ast.unparse(plain)!r} compares nothing that varies")
    return plain


# Writing


def _c(node: ast.expr) -> str:
    """A checked expression in OpenCL C, for numbers and for vectors of them."""
    if isinstance(node, ast.Constant):
        value = float(node.value)  # type: ignore[arg-type]
        if not abs(value) <= float(np.finfo(np.float32).max):
            raise _refused(f"{value} is not a finite float32")
        return f"(real){value!r}"
    if isinstance(node, ast.Name):
        return _slot(node.id)
    if isinstance(node, ast.BinOp):
        return f"({_c(node.left)} {OPERATORS[type(node.op)]} {_c(node.right)})"
    if isinstance(node, ast.UnaryOp):
        return (
            f"(!{_c(node.operand)})"
            if isinstance(node.op, ast.Not)
            else f"({OPERATORS[type(node.op)]}{_c(node.operand)})"
        )
    if isinstance(node, ast.BoolOp):
        return "(" + f" {OPERATORS[type(node.op)]} ".join(map(_c, node.values)) + ")"
    if isinstance(node, ast.Compare):
        return f"({_c(node.left)} {OPERATORS[type(node.ops[0])]} {_c(node.comparators[0])})"
    assert isinstance(node, ast.Call)
    assert isinstance(node.func, ast.Name)
    texts = [_c(part) for part in node.args]
    if node.func.id != "where" and len(texts) > 1:
        # C has no pow of a vector and a number: a constant takes the other argument's type.
        like = next((text for text, part in zip(texts, node.args, strict=True) if _names(part)), None)
        if like is not None:
            texts = [
                text if _names(part) else f"WHERE({like} == {like}, {text}, {text})"
                for text, part in zip(texts, node.args, strict=True)
            ]
    return f"{FUNCTIONS[node.func.id][1]}({', '.join(texts)})"


def _slot(name: str) -> str:
    """The name of a variable in kernels and of the op's slots: not one that a kernel has for itself."""
    return name if name in ("y", "dy") else f"of_{name}"


class _Slots(ast.NodeTransformer):
    def visit_Name(self, node: ast.Name) -> ast.expr:
        return ast.Name(_slot(node.id), ast.Load())

    def visit_Call(self, node: ast.Call) -> ast.expr:
        return ast.Call(node.func, [self.visit(part) for part in node.args], [])

    def visit_BoolOp(self, node: ast.BoolOp) -> ast.expr:
        name = "all_of" if isinstance(node.op, ast.And) else "any_of"
        return ast.Call(ast.Name(name, ast.Load()), [self.visit(part) for part in node.values], [])

    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.expr:
        operator = ast.Invert() if isinstance(node.op, ast.Not) else node.op
        return ast.UnaryOp(operator, self.visit(node.operand))


_NUMPY: dict[str, Any] = {
    **{name: function for name, (_, _, function) in FUNCTIONS.items()},
    "all_of": lambda *parts: (
        np.logical_and.reduce(np.broadcast_arrays(*parts)) if len(parts) > 2 else parts[0] & parts[1]
    ),
    "any_of": lambda *parts: (
        np.logical_or.reduce(np.broadcast_arrays(*parts)) if len(parts) > 2 else parts[0] | parts[1]
    ),
}


def _numpy(parameters: list[str], results: list[ast.expr], several: bool) -> Any:
    """The NumPy function that computes checked expressions."""
    parts = [_Slots().visit(_again(result)) for result in results]
    body: ast.expr = ast.Tuple(parts, ast.Load()) if several else parts[0]
    arguments = ast.arguments(
        posonlyargs=[], args=[ast.arg(_slot(name)) for name in parameters], kwonlyargs=[], kw_defaults=[], defaults=[]
    )
    code = compile(ast.fix_missing_locations(ast.Expression(ast.Lambda(arguments, body))), "<te.kernel>", "eval")
    (function,) = [constant for constant in code.co_consts if isinstance(constant, CodeType)]
    return FunctionType(function, {**_NUMPY, "__builtins__": {}})


# The op


class ElementwiseKernel:
    """A user's own elementwise function; see ``te.kernel``."""

    def __init__(
        self, op: type[Elementwise], text: str, gradient: str | None, name: str, inputs: tuple[str, ...]
    ) -> None:
        self.op, self.text, self.gradient, self.name, self.inputs = op, text, gradient, name, inputs

    def __call__(self, *operands: Operand) -> Tensor:
        if len(operands) != len(self.inputs):
            raise ArgumentError(
                self.name, f"{len(self.inputs)} arguments ({', '.join(self.inputs)})", f"got {len(operands)}"
            )
        items = [as_operand(self.name, operand) for operand in operands]
        given = prepared(self.name, items, float_dtype(self.name, *items))
        wants = [isinstance(item, Tensor) and item.requires_grad for item in items]
        for wanted, name in zip(wants, self.inputs, strict=True):
            if wanted and _slot(name) not in self.op.differentiable:
                raise ArgumentError(
                    self.name, f"a gradient of {name}, which requires one", f"there is none in {self.gradient!r}",
                    f'Give te.kernel gradient="d{name} = ...", or pass {name}.detach().',
                )  # fmt: skip
        return call(self.op, *given)

    def __repr__(self) -> str:
        gradient = f", gradient={self.gradient!r}" if self.gradient is not None else ""
        return f"te.kernel({self.text!r}{gradient})"

    def __reduce__(self) -> Any:
        return kernel, (self.text, self.gradient, self.name)


def kernel(text: str, gradient: str | None = None, name: str = "kernel") -> ElementwiseKernel:
    """An elementwise function of your own, from one expression: ``te.kernel("y = x * exp(-x * x)", gradient=...)``.

    What comes back is called with tensors and numbers, one for each variable of ``text`` in the order in which they
    appear, which broadcast. It runs as one kernel, and is fused with its neighbours in ``te.compile``. ``text`` assigns
    ``y``; assignments before it, with ";" between them, give names to parts. ``gradient`` assigns ``dx`` for an input
    ``x``, from ``dy``, the inputs and ``y``; an input without one takes no tensor that requires a gradient. Check it
    with ``te.autograd.gradcheck``.

    Expressions have + - * / **, comparisons, ``and``, ``or``, ``not``, ``a if condition else b`` or
    ``where(condition, a, b)``, and the functions abs acos acosh asin asinh atan atan2 atanh ceil cos cosh erf exp exp2
    expm1 floor fmod hypot log log10 log1p log2 max min pow round sin sinh sqrt tan tanh trunc. Numbers are floats: 1/2
    is a half. ``name`` is what errors and profiles call it.

    Shapes: the inputs broadcast; returns what they broadcast to. Integers are converted to float32.
    Errors: ArgumentError for anything else in the text, and for a gradient of what is no input.

    >>> softsign = te.kernel("y = x / (1 + abs(x))", gradient="d = 1 + abs(x); dx = dy / (d * d)")
    >>> softsign(te.tensor([1.0, -3.0])).tolist()
    [0.5, -0.75]
    """
    if not (isinstance(name, str) and re.fullmatch(r"[A-Za-z_]\w*", name)):
        raise ArgumentError("te.kernel", "name like that of a function", f"got {name!r}")
    if gradient is not None and not isinstance(gradient, str):
        raise _refused(f"gradient is {type(gradient).__name__}")
    if not isinstance(text, str):
        raise _refused(f"text is {type(text).__name__}")
    op, inputs = _op(text, gradient, name)
    return ElementwiseKernel(op, text, gradient, name, inputs)


@lru_cache(maxsize=256)
def _op(text: str, gradient: str | None, name: str) -> tuple[type[Elementwise], tuple[str, ...]]:
    """The op class, one for each text, so that programs are found again."""
    assigned = _assignments(text)
    if not assigned or list(assigned)[-1] != "y":
        raise _refused(f"got {text!r}", 'Let the last assignment be "y = ...".')
    y = _checked(assigned["y"])
    order = [each for line in ast.parse(_lines(text)).body for each in _names(line.value)]  # type: ignore[attr-defined]
    inputs = sorted(_names(assigned["y"]), key=order.index)
    reserved = {"y", "dy", *["d" + each for each in inputs]}
    if not inputs or reserved.intersection(inputs):
        raise _refused(
            f"the inputs are {inputs}", "y needs an input, none of which is called y, dy, or d and another's name."
        )
    wanted: dict[str, ast.expr] = {}
    if gradient is not None:
        given = _assignments(gradient)
        wanted = {each: _checked(given["d" + each]) for each in inputs if "d" + each in given}
        if not wanted or list(given)[-1][1:] not in wanted:
            raise _refused(f"gradient is {gradient!r}", f"Assign {' or '.join('d' + each for each in inputs)}.")
        for each, expression in wanted.items():
            if unknown := set(_names(expression)) - {*inputs, "y", "dy"}:
                raise _refused(f"d{each} depends on {sorted(unknown)}", f"It may have dy, y, {', '.join(inputs)}.")
    mentioned = {each for expression in wanted.values() for each in _names(expression)}
    saves = [each for each in (*inputs, "y") if each in mentioned]
    body: dict[str, Any] = {
        "name": name,
        "signature": ",".join(["()"] * len(inputs)) + "->()",
        "saves": tuple(map(_slot, saves)),
        "kernel_forward": {"y": _c(y)},
        "kernel_backward": {"d" + _slot(each): _c(expression) for each, expression in wanted.items()},
        "forward": staticmethod(_numpy(inputs, [y], several=False)),
        "backward": staticmethod(_numpy(["dy", *saves], list(wanted.values()), several=True)),
        "operations": sum(isinstance(node, (ast.BinOp, ast.UnaryOp, ast.Call)) for node in ast.walk(y)),
        "__module__": __name__,
        "__doc__": text,
    }
    return type("UsersKernel", (Elementwise,), body, entered=False), tuple(inputs)
