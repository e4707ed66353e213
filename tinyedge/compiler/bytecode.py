"""What the code of a Python function reads by name: variables, imports, dotted attributes.

In: a code object. Out: its Mentions. Guards are made of these. It is one pass over the bytecode, with an abstract
stack.
"""

from __future__ import annotations

import dis
import re
from collections.abc import Iterator
from inspect import CO_VARARGS, CO_VARKEYWORDS
from types import CodeType
from typing import Any, NamedTuple

FIELDS = re.compile(r"[.\[]([^][.{}:!]+)")
"""Attributes that a format names: ``{0.scale}``."""

TEXT = frozenset({"FORMAT_VALUE", "FORMAT_SIMPLE", "FORMAT_WITH_SPEC", "CONVERT_VALUE"})
SILENT = frozenset({"PRECALL", "KW_NAMES", "CACHE", "NOP", "RESUME", "EXTENDED_ARG", "COPY_FREE_VARS", "MAKE_CELL"})
POPS = {"COMPARE_OP": 2, "IS_OP": 2, "CONTAINS_OP": 2, "STORE_ATTR": 2, "STORE_SUBSCR": 3, "RETURN_VALUE": 1}


CLASS = object()
"""On the abstract stack: the class of an instance."""

CONSTANT = object()
"""On the abstract stack: a constant that is no text."""

CLASS_NAMES = frozenset({"__name__", "__qualname__", "__module__", "__doc__"})


class Read(NamedTuple):
    """A name that code mentions, and the attributes that it takes from it at once: ``os.path.join``.

    ``constants`` are the arguments if it is called: those that are text constants, None for others.
    """

    root: str  # "global", "closure" or "import"
    name: str
    dotted: tuple[str, ...]
    line: int
    level: int = 0  # of a relative import
    called: bool = False
    constants: tuple[str | None, ...] = ()


class Mentions(NamedTuple):
    """What a code object and all functions inside it mention. It keeps the code alive, so that its id stays its own."""

    code: CodeType
    reads: tuple[Read, ...]
    attributes: dict[str, int]  # the line of each
    text: bool  # whether values are converted to text
    constructs: bool  # whether the class of an instance is used for more than its name
    matches: bool  # whether there are class patterns (match), which do not name the attributes that they read
    equals: bool  # whether two values are compared of which none is a constant
    identity: bool  # whether it is asked of two values, of which none is a constant, if they are the same object


_known: dict[int, Mentions] = {}


def mentions(code: CodeType) -> Mentions:
    """What ``code`` mentions; found once, and remembered."""
    found = _known.get(id(code))
    if found is None:
        found = _known.setdefault(id(code), _Scan(code).result())
    return found


class _Scan:
    """One pass over the instructions, with the names on the stack; where branches meet, the stack is unknown."""

    def __init__(self, code: CodeType) -> None:
        self.code = code
        self.reads: dict[Read, None] = {}
        self.attributes: dict[str, int] = {}
        self.text = self.constructs = self.matches = self.equals = self.identity = False
        self.stack: list[Any] = []  # a Read, text, CLASS, or None
        self.line = code.co_firstlineno
        self.variables: dict[str, Read] = {}  # local variables that are assigned once, before they are used
        self.loaded: set[str] = set()  # of these
        self.assigned, self.imports = self._assigned_once(), self._imports()

    def _assigned_once(self) -> set[str]:
        """The local variables that are assigned once, before they are used, in the order of the code."""
        count: dict[str, int] = {}
        used: set[str] = set()
        cells = set(self.code.co_cellvars)
        for code in all_codes(self.code):
            for instruction in dis.get_instructions(code):
                opname, value = instruction.opname, instruction.argval
                is_local = ("_DEREF" in opname and value in cells) or ("_FAST" in opname and code is self.code)
                names = value if isinstance(value, tuple) else (value,)
                for name in names if is_local else ():
                    if opname in ("STORE_FAST", "STORE_DEREF") and name not in used:
                        count[name] = count.get(name, 0) + 1
                    elif "STORE" in opname or "DELETE" in opname or "CLEAR" in opname or name not in count:
                        used.add(name)
        flags = bool(self.code.co_flags & CO_VARARGS) + bool(self.code.co_flags & CO_VARKEYWORDS)
        given = self.code.co_varnames[: self.code.co_argcount + self.code.co_kwonlyargcount + flags]
        return {name for name, times in count.items() if times == 1 and name not in used and name not in given}

    def _imports(self) -> dict[int, tuple[int, Any]]:
        """The level of each import and the names that it takes, which are constants loaded just before it."""
        steps = [instruction for instruction in dis.get_instructions(self.code) if instruction.opname not in SILENT]
        return {
            step.offset: (level.argval if isinstance(level.argval, int) else 0, names.argval)
            for level, names, step in zip(steps, steps[1:], steps[2:], strict=False)
            if step.opname == "IMPORT_NAME"
        }

    def result(self) -> Mentions:
        for instruction in dis.get_instructions(self.code):
            line = getattr(getattr(instruction, "positions", None), "lineno", None) or instruction.starts_line
            self.line = self.line if line is None or line is True or line is False else line
            if instruction.is_jump_target:
                self._forget()
            self._step(instruction)
        self._forget()
        for constant in self.code.co_consts:
            self._constant(constant)
        for name, read in self.variables.items():
            if name not in self.loaded and name not in self.code.co_cellvars:  # it is read, and never used
                self._use(read)
        return Mentions(
            self.code, tuple(self.reads), self.attributes,
            self.text, self.constructs, self.matches, self.equals, self.identity,
        )  # fmt: skip

    def _constant(self, constant: Any) -> None:
        if isinstance(constant, CodeType):
            inner = mentions(constant)
            for read in inner.reads:
                if read.root != "closure" or read.name not in self.code.co_cellvars:
                    self.reads[read] = None
                elif read.name in self.variables:
                    whole = self.variables[read.name]
                    read = read._replace(
                        root=whole.root, name=whole.name, dotted=whole.dotted + read.dotted, level=whole.level
                    )
                    self.reads[read] = None
                else:  # any object: a parameter, say
                    for name in read.dotted:
                        self.attributes.setdefault(name, read.line)
            for name, line in inner.attributes.items():
                self.attributes.setdefault(name, line)
            self.text |= inner.text
            self.constructs |= inner.constructs
            self.matches |= inner.matches
            self.equals |= inner.equals
            self.identity |= inner.identity
        elif isinstance(constant, str):  # for getattr, attrgetter, and format
            parts = re.findall(r"\w+", constant) if "{" in constant else constant.split(".")
            named = FIELDS.findall(constant) if "{" in constant else []  # by a format, and need be no identifiers
            for part in [part for part in parts if part.isidentifier()] + named:
                self.attributes.setdefault(part, self.code.co_firstlineno)
        elif isinstance(constant, (tuple, frozenset)):
            for item in constant:
                self._constant(item)

    def _use(self, item: Any) -> None:
        if isinstance(item, Read):
            self.reads[item] = None
        self.constructs |= item is CLASS

    def _pop(self, count: int = 1) -> list[Any]:
        """Pop ``count`` entries, which an instruction uses."""
        kept = max(len(self.stack) - count, 0)
        taken = self.stack[kept:]
        del self.stack[kept:]
        for item in taken:
            self._use(item)
        return [None] * (count - len(taken)) + taken

    def _forget(self) -> None:
        count = len(self.stack)
        self._pop(count)
        self.stack = [None] * count

    def _step(self, instruction: dis.Instruction) -> None:
        if instruction.opname in SILENT:
            return
        self.text |= instruction.opname in TEXT
        if not self._named(instruction) and not self._moved(instruction):
            if instruction.opname == "MATCH_CLASS":
                self.matches = True
                self.attributes.setdefault("__match_args__", self.line)
            self._other(instruction)

    def _named(self, instruction: dis.Instruction) -> bool:
        """Follow an instruction that reads or writes a variable, an import or an attribute; False for others."""
        opname, value = instruction.opname, instruction.argval
        stack = self.stack
        if opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            stack.append(Read("global", value, (), self.line))
        elif opname == "LOAD_FROM_DICT_OR_GLOBALS":
            self._pop()
            stack.append(Read("global", value, (), self.line))
        elif opname == "LOAD_DEREF":
            local = value in self.code.co_cellvars
            stack.append(self.variables.get(value) if local else Read("closure", value, (), self.line))
        elif opname in ("LOAD_CLASSDEREF", "LOAD_FROM_DICT_OR_DEREF"):
            if opname != "LOAD_CLASSDEREF":
                self._pop()
            stack.append(Read("closure", value, (), self.line))
        elif opname in ("STORE_GLOBAL", "DELETE_GLOBAL"):
            self._pop(opname == "STORE_GLOBAL")
            self._use(Read("global", value, (), self.line))
        elif opname in ("STORE_DEREF", "DELETE_DEREF") and value not in self.code.co_cellvars:
            self._pop(opname == "STORE_DEREF")
            self._use(Read("closure", value, (), self.line))
        elif opname == "IMPORT_NAME":
            level, names = self.imports[instruction.offset]
            self._pop(2)
            stack.append(Read("import", value if names else value.partition(".")[0], (), self.line, level))
        elif opname == "IMPORT_FROM":
            stack.append(self._attribute(stack[-1] if stack else None, value))
        elif opname in ("LOAD_ATTR", "LOAD_METHOD"):
            stack.append(self._attribute(stack.pop() if stack else None, value))
        elif opname in ("STORE_ATTR", "DELETE_ATTR"):
            self._use(self._attribute(stack.pop() if stack else None, value))
            self._pop(opname == "STORE_ATTR")
        elif opname in ("LOAD_SUPER_ATTR", "LOAD_SUPER_METHOD", "LOAD_ZERO_SUPER_ATTR"):
            self.attributes.setdefault(value, self.line)
            self._pop(3)
            stack.append(None)
        elif opname in ("STORE_FAST", "STORE_DEREF"):
            if value in self.assigned and stack and isinstance(stack[-1], Read):
                self.variables[value] = stack.pop()
            else:
                self._pop()
        elif opname.startswith("LOAD_FAST") and isinstance(value, str):
            self.loaded.add(value)
            stack.append(self.variables.get(value))
        else:
            return False
        return True

    def _moved(self, instruction: dis.Instruction) -> bool:
        """Follow an instruction that moves, combines or calls what is on the stack; False for those that are left."""
        opname, value, argument = instruction.opname, instruction.argval, instruction.arg or 0
        stack = self.stack
        if opname == "SWAP" and argument <= len(stack):
            stack[-1], stack[-argument] = stack[-argument], stack[-1]
        elif opname == "POP_TOP" and stack and not (isinstance(stack[-1], Read) and stack[-1].dotted):
            stack.pop()
        elif opname == "LOAD_CONST":
            stack.append(value if isinstance(value, str) else CONSTANT)
        elif opname in ("CALL", "CALL_FUNCTION", "CALL_METHOD", "CALL_KW", "CALL_FUNCTION_KW"):
            self._call(argument, opname.endswith("_KW"))
        elif opname.startswith(("BINARY_", "INPLACE_")) and opname != "BINARY_SLICE":
            self.text |= opname.endswith("_MODULO") or (opname == "BINARY_OP" and instruction.argrepr in ("%", "%="))
            self._pop(2)
            stack.append(None)
        elif opname in POPS:
            if opname == "CONTAINS_OP" or (opname == "COMPARE_OP" and instruction.argrepr[-2:] in ("==", "!=")):
                self.equals |= not any(item is CONSTANT or isinstance(item, str) for item in stack[-2:])
            if opname == "IS_OP":
                self.identity |= not any(item is CONSTANT or item is CLASS for item in stack[-2:])
            if opname in ("IS_OP", "COMPARE_OP"):
                stack[-2:] = [None if item is CLASS else item for item in stack[-2:]]
            self._pop(POPS[opname])
            if not opname.startswith(("STORE", "RETURN")):
                stack.append(None)
        elif opname in ("BUILD_TUPLE", "BUILD_LIST", "BUILD_SET", "BUILD_STRING"):
            self.text |= opname == "BUILD_STRING"
            self._pop(argument)
            stack.append(None)
        else:
            return False
        return True

    def _other(self, instruction: dis.Instruction) -> None:
        try:
            effect = dis.stack_effect(instruction.opcode, instruction.arg, jump=False)
        except ValueError:
            self._forget()
            return
        if instruction.opname.startswith(("LOAD_", "PUSH_")) and effect > 0:
            self.stack += [None] * effect
            return
        count = min(len(self.stack), max(-effect, 0) + 4)  # it may use, or move, some that stay
        self._pop(count)
        self.stack += [None] * max(count + effect, 0)

    def _attribute(self, item: Any, name: str) -> Any:
        """An attribute of the stack's top. Of a name it makes a longer name; else it may be any object's."""
        if isinstance(item, Read):
            return item._replace(dotted=(*item.dotted, name), line=self.line)
        if item is CLASS and name in CLASS_NAMES:
            self.attributes.setdefault(name, self.line)
            return None
        self._use(item)
        if name == "__class__":
            return CLASS
        self.attributes.setdefault(name, self.line)
        return None

    def _call(self, count: int, names: bool) -> None:
        if names and self.stack:
            self._pop()
        stack = self.stack
        arguments = stack[len(stack) - count :] if count <= len(stack) else []
        constants = tuple([item if isinstance(item, str) else None for item in arguments])
        self._pop(count)
        result = None
        for _ in range(2):  # the function, and the null that stands for no instance, in one order or the other
            if stack:
                function = stack.pop()
                self._use(None if isinstance(function, Read) else function)
                if isinstance(function, Read):
                    self._use(function._replace(called=True, constants=constants))
                    result = CLASS if count == 1 and (function.name, *function.dotted)[-1] == "type" else None
                    break
        stack.append(result)


def all_codes(code: CodeType) -> Iterator[CodeType]:
    """A code object, and those of the functions and classes inside it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from all_codes(constant)


__all__ = ["CLASS_NAMES", "FIELDS", "Mentions", "Read", "mentions"]
