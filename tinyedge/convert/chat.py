"""Chat templates: the turns of a talk as the text that a model was trained on.

A template is a program in Jinja that comes with a model's file, and so from a stranger. It runs in Jinja's sandbox, on
plain data, with the filters and methods that templates need; what it computes is counted before it is made, and it is
stopped when that becomes too much.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from jinja2 import TemplateError, nodes, pass_context
from jinja2.ext import Extension
from jinja2.filters import FILTERS
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

from tinyedge import files
from tinyedge.convert.checks import Place, shown
from tinyedge.convert.gguf import MAGIC, read_gguf
from tinyedge.errors import ArgumentError, TinyedgeError

MAX_SOURCE = 2**16
MAX_TEXT = 2**21
"""Characters of one text that a template makes."""

MAX_WORK = 2**25
"""Characters and elements of all that it makes, and elements that it looks through."""

MAX_STEPS = 2**18
READ = 8
"""Characters that count as one where they are looked through, and not made."""

ELEMENT = 64
"""What an element of a list counts for: it takes as much memory."""

FAULTS = (TemplateError, RecursionError, MemoryError, SyntaxError, ValueError, TypeError, ArithmeticError, LookupError,
          AttributeError, StopIteration)  # fmt: skip
KEPT = ("trim", "length", "count", "upper", "lower", "title", "capitalize", "first", "last", "default", "d", "map",
        "select", "reject", "selectattr", "rejectattr", "int", "float", "abs", "round", "items", "dictsort", "list",
        "unique", "sort", "reverse", "min", "max", "safe")  # fmt: skip
"""Jinja's filters that make nothing larger than what they are given."""

METHODS: dict[type, frozenset[str]] = {
    str: frozenset(("strip", "lstrip", "rstrip", "split", "rsplit", "splitlines", "startswith", "endswith", "replace",
                    "upper", "lower", "title", "capitalize", "join", "find", "rfind", "index", "count", "removeprefix",
                    "removesuffix", "isdigit", "isalpha", "isspace", "isupper")),
    dict: frozenset(("get", "items", "keys", "values")),
    list: frozenset(("index", "count")),
    tuple: frozenset(("index", "count")),
}  # fmt: skip


class _TooMuch(Exception):
    """The template is stopped."""


class _Budget:
    """What a rendering may still make."""

    def __init__(self, more: int) -> None:
        self.left, self.steps = MAX_WORK + more, MAX_STEPS

    def spend(self, count: int) -> None:
        self.left -= count
        if self.left < 0:
            raise _TooMuch("it makes too much text, or too many values")

    def tick(self, text: int = 0) -> str:
        """A step of a loop, or a call of a macro, which writes so many characters."""
        self.steps -= 1
        if self.steps < 0:
            raise _TooMuch("it takes too many steps")
        self.spend(text)
        return ""

    def text(self, length: int) -> None:
        if length > MAX_TEXT:
            raise _TooMuch(f"it makes a text of more than {MAX_TEXT} characters")
        self.spend(length)

    def made(self, value: Any) -> Any:
        """Count a value with all that is in it, once for each time that it is there."""
        pending = [value]
        while pending:
            each = pending.pop()
            if isinstance(each, str):
                self.text(len(each))
            elif isinstance(each, Mapping):
                self.spend(ELEMENT * len(each))
                pending += [*each.keys(), *each.values()]
            elif isinstance(each, (list, tuple, range)):
                self.spend(ELEMENT * len(each))
                pending += [] if isinstance(each, range) else each
            elif isinstance(each, int) and abs(each) > 2**256:
                raise _TooMuch("it computes numbers that are too large")
        return value

    def read(self, value: Any) -> Any:
        """Count what an operation looks through, but not what is inside that."""
        if isinstance(value, str):
            self.spend(len(value) // READ)
        elif isinstance(value, (list, tuple, range, Mapping)):
            self.spend(4 * len(value))  # a filter may call a test for each
        elif isinstance(value, Iterator):
            return self._counted(value)
        return value

    def _counted(self, values: Iterator[Any]) -> Iterator[Any]:
        for value in values:
            self.spend(4)
            yield value

    def compared(self, value: Any) -> Any:
        """Count what a comparison may look through."""
        if isinstance(value, (list, tuple, Mapping)):
            pending = [value]
            while pending:
                each = pending.pop()
                self.spend(len(each))
                inside = [*each.values()] if isinstance(each, Mapping) else each
                pending += [part for part in inside if isinstance(part, (list, tuple, Mapping))]
                self.spend(sum(len(part) // READ for part in inside if isinstance(part, str)))
            return value
        return self.read(value)

    def tested(self, value: Any) -> Any:
        """The condition of a step of a loop, which may pass over it."""
        self.tick()
        return value

    def concat(self, *parts: Any) -> str:
        return "".join(self.string(part) for part in parts)

    def string(self, value: Any) -> str:
        text = str(self.made(value))
        self.text(len(text))
        return text

    def replace(self, text: str, old: str, new: str, count: int | None = None) -> str:
        found = text.count(old) if count is None or count < 0 else min(text.count(old), count)
        self.text(len(text) + found * len(new))
        return text.replace(old, new, -1 if count is None else count)

    def join(self, between: str, parts: Iterable[Any]) -> str:
        texts = [self.string(part) for part in parts]
        self.text(sum(map(len, texts)) + len(between) * len(texts))
        return between.join(texts)


def _budget(context: Any) -> _Budget:
    found: _Budget = context["__budget__"]
    return found


@pass_context
def _replace(context: Any, value: Any, old: Any, new: Any, count: int | None = None) -> str:
    return _budget(context).replace(_budget(context).string(value), str(old), str(new), count)


@pass_context
def _join(context: Any, value: Any, d: str = "", attribute: str | int | None = None) -> str:
    if attribute is not None:
        value = [context.environment.getitem(part, attribute) for part in value]
    return _budget(context).join(str(d), value)


@pass_context
def _indent(context: Any, value: Any, width: int | str = 4, first: bool = False, blank: bool = False) -> str:
    margin = width if isinstance(width, str) else " " * min(max(width, 0), 256)
    lines = _budget(context).string(value).splitlines() or [""]
    _budget(context).text(sum(map(len, lines)) + len(lines) * (len(margin) + 1))
    return "\n".join(margin + line if (line or blank) and (first or n) else line for n, line in enumerate(lines))


@pass_context
def _tojson(
    context: Any, value: Any, ensure_ascii: bool = False, indent: int | None = None, separators: Any = None,
    sort_keys: bool = False,
) -> str:  # fmt: skip
    """As ``transformers`` writes it: without HTML's escapes."""
    indent = None if indent is None else min(max(int(indent), 0), 16)
    _budget(context).made(value)
    text = json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=None if separators is None else tuple(separators),
        sort_keys=sort_keys,
    )  # fmt: skip
    _budget(context).text(len(text))
    return text


@pass_context
def _string(context: Any, value: Any) -> str:
    return _budget(context).string(value)


@pass_context
def _output(context: Any, value: Any) -> Any:
    """What is written."""
    return value if type(value) is str else _budget(context).string(value)


def _refuse(message: str) -> None:
    raise ArgumentError("the chat template", "messages that it takes", shown(message, 400))


def _now(form: str) -> str:
    if len(form) > 64 or re.search(r"%[^a-zA-Z%]", form):
        raise ValueError("a form of the date that is not known")
    return datetime.now().strftime(form)


class _Generation(Extension):
    """``{% generation %}`` marks what the model wrote, for training; the text is the same."""

    tags = {"generation"}

    def parse(self, parser: Any) -> Any:
        parser.stream.skip(1)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Environment(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset(("+", "*", "%", "**"))

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True, lstrip_blocks=True, optimized=False, finalize=_output,
            extensions=[_Generation, "jinja2.ext.loopcontrols"],
        )  # fmt: skip
        own = {"replace": _replace, "join": _join, "indent": _indent, "tojson": _tojson, "string": _string}
        self.filters = {name: FILTERS[name] for name in KEPT} | own
        given = {name: self.globals[name] for name in ("range", "dict", "namespace", "cycler", "joiner")}
        self.globals = {**given, "raise_exception": _refuse, "strftime_now": _now}

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        for kind, allowed in METHODS.items():
            if isinstance(obj, kind):
                return attr in allowed
        return not isinstance(obj, (int, float, bytes)) and super().is_safe_attribute(obj, attr, value)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        budget = _budget(context)
        sizes = [len(side) for side in (left, right) if isinstance(side, (str, list, tuple))]
        if operator == "*" and sizes:
            count = next((side for side in (left, right) if isinstance(side, int)), 0)
            if sizes[0] * max(count, 0) > MAX_TEXT:
                raise _TooMuch("it makes a text or a list that is too long")
        elif operator == "**" and not (abs(left) < 2**64 and abs(right) <= 4):
            raise _TooMuch("it computes numbers that are too large")
        elif operator == "%" and isinstance(left, str) and re.search(r"[0-9*]", left):
            raise _TooMuch("it formats text with widths")
        elif operator == "+" and sizes:
            budget.spend(sum(sizes))
        return budget.made(super().call_binop(context, operator, left, right))

    def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        owner, name = getattr(__obj, "__self__", None), getattr(__obj, "__name__", "")
        if isinstance(owner, str) and name == "replace":
            return _budget(__context).replace(owner, *args, **kwargs)
        if isinstance(owner, str) and name == "join":
            return _budget(__context).join(owner, *args)
        return super().call(__context, __obj, *args, **kwargs)


class _Counted(NodeTransformer):
    """Puts the counting into a template: no name of it begins with two underscores."""

    def _call(self, name: str, *args: Any) -> nodes.Call:
        return nodes.Call(nodes.Name(name, "load"), list(args), [], None, None)

    def _made(self, node: Any) -> Any:
        return self._call("__made__", self.generic_visit(node))

    def visit_Name(self, node: nodes.Name) -> Any:
        if node.name.startswith("__"):
            raise _TooMuch(f"it uses the name {node.name!r}")
        return node

    def _stepped(self, node: Any) -> Any:
        if getattr(node, "name", "").startswith("__"):
            raise _TooMuch(f"it uses the name {node.name!r}")
        length = sum(len(data.data) for data in node.find_all(nodes.TemplateData))
        self.generic_visit(node)
        node.body.insert(0, nodes.ExprStmt(self._call("__tick__", nodes.Const(length))))
        return node

    visit_Macro = visit_CallBlock = visit_FilterBlock = _stepped
    visit_List = visit_Dict = _made

    def visit_For(self, node: nodes.For) -> Any:
        self._stepped(node)
        node.iter = self._call("__read__", node.iter)
        if node.test is not None:
            node.test = self._call("__tested__", node.test)
        return node

    def visit_Filter(self, node: nodes.Filter) -> Any:
        self.generic_visit(node)
        if node.node is not None:
            node.node = self._call("__read__", node.node)
        return self._call("__made__", node)

    def visit_Call(self, node: nodes.Call) -> Any:
        self.generic_visit(node)
        if isinstance(node.node, (nodes.Getattr, nodes.Getitem)):
            node.node.node = self._call("__read__", node.node.node)
        node.args = [self._call("__compared__", arg) for arg in node.args]
        return self._call("__made__", node)

    def visit_Test(self, node: nodes.Test) -> Any:
        self.generic_visit(node)
        if node.name not in ("defined", "undefined"):  # which take a name
            node.node = self._call("__compared__", node.node)
        node.args = [self._call("__compared__", arg) for arg in node.args]
        return node

    def visit_Compare(self, node: nodes.Compare) -> Any:
        self.generic_visit(node)
        node.expr = self._call("__compared__", node.expr)
        for operand in node.ops:
            operand.expr = self._call("__compared__", operand.expr)
        return node

    def visit_Tuple(self, node: nodes.Tuple) -> Any:
        return self._made(node) if node.ctx == "load" else self.generic_visit(node)

    def visit_Getitem(self, node: nodes.Getitem) -> Any:
        return self._made(node) if isinstance(node.arg, nodes.Slice) else self.generic_visit(node)

    def visit_Concat(self, node: nodes.Concat) -> Any:
        self.generic_visit(node)
        return self._call("__concat__", *node.nodes)

    def _barred(self, node: Any) -> Any:
        raise _TooMuch(f"it has blocks, or reads other templates ({type(node).__name__})")

    visit_Extends = visit_Include = visit_Import = visit_FromImport = visit_Block = _barred


class ChatTemplate:
    """A model's template for turns of a talk; ``te.convert.chat_template`` reads it."""

    def __init__(self, source: str, tokens: Mapping[str, str], place: Place) -> None:
        self.source = source
        self.tokens = dict(tokens)
        self._place = place
        if len(source) > MAX_SOURCE:
            place.refuse("the chat template", f"{len(source)} characters, and at most {MAX_SOURCE} are read")
        environment = _Environment()
        try:
            tree = _Counted().visit(environment.parse(source))
            self._template = environment.from_string(tree)
        except (*FAULTS, _TooMuch) as error:
            place.refuse("the chat template", f"{type(error).__name__}: {shown(error)}")

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        add_generation_prompt: bool = False,
        tools: Sequence[Mapping[str, Any]] | None = None,
        **variables: Any,
    ) -> str:
        """The text of the turns, such as ``[{"role": "user", "content": "Hello"}]``; with ``add_generation_prompt`` up
        to where the model's answer begins. ``tools`` and ``variables`` are what the template knows besides, as in
        ``transformers``. Special tokens are in the text: encode it with ``add_special_tokens=False``.

        Errors: ArgumentError for values that are no plain data, as JSON has it, and if the template refuses the
                messages; ModelFormatError if the template fails, or makes too much.
        """
        given = {"messages": messages, "tools": tools, **variables}
        try:
            text = json.dumps(given)
        except (TypeError, ValueError, RecursionError) as error:
            raise ArgumentError("render", "messages of plain data: dicts, lists, texts, numbers", str(error)) from None
        budget = _Budget(ELEMENT * len(text))
        own = {"__budget__": budget, "__tick__": budget.tick, "__made__": budget.made, "__concat__": budget.concat,
               "__read__": budget.read, "__compared__": budget.compared, "__tested__": budget.tested}  # fmt: skip
        parts, length = [], 0
        try:
            for part in self._template.generate(
                {**self.tokens, **json.loads(text), "add_generation_prompt": add_generation_prompt, **own}
            ):
                length += len(part)
                if length > MAX_TEXT + len(text):
                    raise _TooMuch(f"it writes more than {MAX_TEXT} characters")
                parts.append(part)
        except TinyedgeError:
            raise
        except (*FAULTS, _TooMuch) as error:
            self._place.refuse("the chat template", f"{type(error).__name__.lstrip('_')}: {shown(error)}")
        return "".join(parts)


def chat_template(path: str | os.PathLike[str], name: str | None = None) -> ChatTemplate:
    """The chat template of a model: from its GGUF file, or from its folder's chat_template.jinja or
    tokenizer_config.json. ``name`` chooses one of several, such as "tool_use".

    Errors: ArgumentError if there is none, or none of that name; ModelFormatError, naming the place, if it is damaged,
            or uses what templates may not. FileNotFoundError if there is no such file.

    >>> template = te.convert.chat_template("SmolLM2-135M-Instruct.Q4_1.gguf")      # doctest: +SKIP
    >>> template.render([{"role": "user", "content": "Hello"}], add_generation_prompt=True)      # doctest: +SKIP
    """
    place = Place("chat_template", path, "chat template")
    if os.path.isdir(path):
        found, tokens = _of_folder(os.fspath(path), place)
    else:
        try:
            content = files.read_whole(path, 4)
        except files.IrregularFileError as error:
            place.refuse("the file", str(error))
        if content != MAGIC:
            place.refuse("the file", "it is no GGUF file, and no folder with a tokenizer_config.json")
        found, tokens = _of_gguf(read_gguf(path, "chat_template").metadata)
    source = found.get(name or "default")
    if source is None:
        names = ", ".join(repr(shown(each)) for each in found)
        raise ArgumentError(
            "chat_template", f"a chat template {name or 'default'!r} in {os.fspath(path)!r}",
            f"it has {names or 'none'}",
        )  # fmt: skip
    return ChatTemplate(source, tokens, place)


def _of_gguf(data: Mapping[str, Any]) -> tuple[dict[str, str], dict[str, str]]:
    key = "tokenizer.chat_template"
    found = {"default": data[key]} if isinstance(data.get(key), str) else {}
    found |= {name[len(key) + 1 :]: text for name, text in data.items()
              if name.startswith(f"{key}.") and isinstance(text, str)}  # fmt: skip
    words, tokens = data.get("tokenizer.ggml.tokens"), {}
    for name, own in (("bos", "bos"), ("eos", "eos"), ("unknown", "unk"), ("padding", "pad")):
        number = data.get(f"tokenizer.ggml.{name}_token_id")
        if isinstance(words, list) and type(number) is int and 0 <= number < len(words):
            tokens[f"{own}_token"] = str(words[number])
    return found, tokens


def _of_folder(folder: str, place: Place) -> tuple[dict[str, str], dict[str, str]]:
    found: dict[str, str] = {}
    config: Any = {}
    path = os.path.join(folder, "tokenizer_config.json")
    try:
        config = json.loads(files.read_whole(path, 2**26).decode("utf-8"))
    except FileNotFoundError:
        pass
    except (files.IrregularFileError, ValueError, RecursionError) as error:
        place.refuse("tokenizer_config.json", shown(error))
    if not isinstance(config, dict):
        place.refuse("tokenizer_config.json", "an object is wanted")
    given = config.get("chat_template")
    if isinstance(given, str):
        found["default"] = given
    for entry in given if isinstance(given, list) else ():
        if isinstance(entry, dict) and isinstance(entry.get("name"), str) and isinstance(entry.get("template"), str):
            found[entry["name"]] = entry["template"]
    own = os.path.join(folder, "chat_template.jinja")
    if os.path.lexists(own):
        try:
            found["default"] = files.read_whole(own, 4 * MAX_SOURCE).decode("utf-8")
        except (files.IrregularFileError, ValueError) as error:
            place.refuse("chat_template.jinja", shown(error))
    tokens = {}
    for key, value in config.items():
        value = value.get("content") if isinstance(value, dict) else value
        if key.endswith("_token") and isinstance(value, str):
            tokens[key] = value
    return found, tokens


__all__ = ["ChatTemplate", "chat_template"]
