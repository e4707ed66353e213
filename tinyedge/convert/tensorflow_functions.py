"""TensorFlow's functions: a graph may call those of its library, also as branches and loops. They are written out here,
so that the rest sees one graph.

A node of a function gets the name of its call in front. Only what a function's results need is kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tinyedge.convert.checks import Place, shown

CALLS = ("PartitionedCall", "StatefulPartitionedCall")
BRANCHES = ("If", "StatelessIf")
LOOPS = ("While", "StatelessWhile")
MAX_DEPTH = 64
MAX_NODES, MAX_BYTES = 50_000, 2**28
"""Of functions where they are called: each may call the next one twice."""

SEVERAL: dict[str, tuple[str, ...]] = {
    "FusedBatchNorm": ("y", "batch_mean", "batch_variance"),
    "FusedBatchNormV2": ("y", "batch_mean", "batch_variance"),
    "FusedBatchNormV3": ("y", "batch_mean", "batch_variance"),
    "TopKV2": ("values", "indices"), "TensorArrayV3": ("handle", "flow"),
    "Switch": ("output_false", "output_true"), "Merge": ("output", "value_index"),
    "Unique": ("y", "idx"), "UniqueV2": ("y", "idx"), "UniqueWithCounts": ("y", "idx", "count"),
    "CombinedNonMaxSuppression": ("nmsed_boxes", "nmsed_scores", "nmsed_classes", "valid_detections"),
    "NonMaxSuppressionV4": ("selected_indices", "valid_outputs"),
    "NonMaxSuppressionV5": ("selected_indices", "selected_scores", "valid_outputs"),
}  # fmt: skip
"""By the op: the names of its outputs, where it has several. An output that is a list has one name."""


class Inliner:
    """Writes out the calls of one graph. Errors of its methods: ModelFormatError, naming the place."""

    def __init__(self, graph: Any, place: Place) -> None:
        self.place = place
        self.functions = {function.signature.name: function for function in graph.library.function}
        self.nodes: list[Any] = []
        self.nbytes = 0  # of nodes of functions, written out
        self.origins: dict[str, tuple[str, str]] = {}

    def all(self, graph: Any) -> Sequence[Any]:
        """The nodes of the graph and of all that it calls; the graph's own ones, if it calls nothing."""
        if not any(self._calls(node) for node in graph.node):
            return graph.node  # type: ignore[no-any-return]
        for node in graph.node:
            self._put(node, 0)
        return self.nodes

    def _calls(self, node: Any) -> bool:
        return node.op in (*CALLS, *BRANCHES, *LOOPS) or node.op in self.functions

    def _put(self, node: Any, depth: int) -> None:
        if not self._calls(node):
            self.nodes.append(node)
            return
        if depth >= MAX_DEPTH:
            self.place.refuse(f"{shown(node.op)} {shown(node.name)!r}", f"functions more than {MAX_DEPTH} deep")
        write = self._branches if node.op in BRANCHES else self._loop if node.op in LOOPS else self._call
        given = [text for text in node.input if not text.startswith("^")]
        self._made(node, "IdentityN", node.name, write(node, given, depth))

    def _made(self, like: Any, op: str, name: str, inputs: Sequence[str]) -> str:
        """Add a node; its name."""
        node = type(like)(op=op, name=name, input=inputs)
        self.nodes.append(node)
        return name

    def _function(self, node: Any, key: str) -> Any:
        if key not in node.attr and node.op in self.functions:
            return self.functions[node.op]
        name = node.attr[key].func.name if key in node.attr else ""
        if name not in self.functions:
            self.place.refuse(f"{shown(node.op)} {shown(node.name)!r}", f"its function {shown(name)!r} is not there")
        return self.functions[name]

    def _call(self, node: Any, given: Sequence[str], depth: int) -> list[str]:
        return self._body(node, "f", node.name, given, depth)

    def _branches(self, node: Any, given: Sequence[str], depth: int) -> list[str]:
        """As nodes that pass values to one branch, and take the result of the one that was run."""
        where = node.name
        if not given:
            self.place.refuse(f"{node.op} {shown(where)!r}", "it has no condition")
        switches = [self._made(node, "Switch", f"{where}/switch{n}", [x, given[0]]) for n, x in enumerate(given[1:])]
        no = self._body(node, "else_branch", f"{where}/else", switches, depth)
        yes = self._body(node, "then_branch", f"{where}/then", [f"{name}:1" for name in switches], depth)
        if len(no) != len(yes):
            self.place.refuse(f"{node.op} {shown(where)!r}", "its branches have different numbers of results")
        return [self._made(node, "Merge", f"{where}/merge{n}", pair) for n, pair in enumerate(zip(no, yes))]

    def _loop(self, node: Any, given: Sequence[str], depth: int) -> list[str]:
        """As nodes that pass values round."""
        where, count = node.name, len(given)
        merges = []
        for n, x in enumerate(given):
            enter = self._made(node, "Enter", f"{where}/enter{n}", [x])
            self.nodes[-1].attr["frame_name"].s = where.encode("utf-8", "replace")
            merges.append(self._made(node, "Merge", f"{where}/merge{n}", [enter, f"{where}/next{n}"]))
        asked = self._body(node, "cond", f"{where}/cond", merges, depth)
        if len(asked) != 1:
            self.place.refuse(f"{node.op} {shown(where)!r}", "its condition has not one result")
        decides = self._made(node, "LoopCond", f"{where}/decides", asked)
        switches = [self._made(node, "Switch", f"{where}/switch{n}", [x, decides]) for n, x in enumerate(merges)]
        inside = [self._made(node, "Identity", f"{where}/value{n}", [f"{x}:1"]) for n, x in enumerate(switches)]
        results = self._body(node, "body", f"{where}/body", inside, depth)
        if len(results) != count:
            self.place.refuse(f"{node.op} {shown(where)!r}", "its body has not as many results as values")
        for n, x in enumerate(results):
            self._made(node, "NextIteration", f"{where}/next{n}", [x])
        return [self._made(node, "Exit", f"{where}/exit{n}", [x]) for n, x in enumerate(switches)]

    def _body(self, node: Any, key: str, lead: str, given: Sequence[str], depth: int) -> list[str]:
        """The nodes of a function, whose arguments are ``given``; the names of its results."""
        function = self._function(node, key)
        where = f"the function {shown(function.signature.name)!r}"
        arguments = [arg.name for arg in function.signature.input_arg]
        if len(arguments) != len(given):
            self.place.refuse(where, f"{len(given)} values for {len(arguments)} arguments")
        known: dict[str, str] = dict(zip(arguments, given))
        inner = {each.name: each for each in function.node_def}
        attributes = node.attr[key].func.attr if key in node.attr else node.attr

        def value(text: str) -> str:
            """``node:output:number``, or an argument, as the graph names it."""
            if text in known:
                return known[text]
            name, _, rest = text.partition(":")
            if name not in inner:
                self.place.refuse(where, f"its value {shown(text)!r} is not computed")
            return f"{lead}/{name}:{self._number(inner[name], rest, where)}"

        results = [function.ret.get(arg.name, arg.name) for arg in function.signature.output_arg]
        named = [value(text) for text in results]
        for each in self._needed(inner, [text for text in results if text not in known], known, where):
            made = type(each)()
            made.CopyFrom(each)
            made.name = f"{lead}/{each.name}"
            self.origins[made.name] = function.signature.name, each.name
            self.nbytes += made.ByteSize() + len(made.name)
            if len(self.origins) > MAX_NODES or self.nbytes > MAX_BYTES:
                self.place.refuse("the graph", f"its calls are more than {MAX_NODES} nodes, or {MAX_BYTES} bytes")
            made.ClearField("input")
            made.input.extend(value(text) for text in each.input if not text.startswith("^"))
            for entry in made.attr.values():
                if entry.WhichOneof("value") == "placeholder" and entry.placeholder in attributes:
                    entry.CopyFrom(attributes[entry.placeholder])
            self._put(made, depth + 1)
        return named

    def _needed(
        self, inner: Mapping[str, Any], results: Sequence[str], known: Mapping[str, str], where: str
    ) -> Iterator[Any]:
        """The nodes that the results need, in the function's order."""
        pending, found = [text.partition(":")[0] for text in results], set[str]()
        while pending:
            name = pending.pop()
            if name in found:
                continue
            if name not in inner:
                self.place.refuse(where, f"its value {shown(name)!r} is not computed")
            found.add(name)
            texts = [text for text in inner[name].input if not text.startswith("^") and text not in known]
            pending += [text.partition(":")[0] for text in texts]
        return (node for name, node in inner.items() if name in found)

    def _number(self, node: Any, text: str, where: str) -> int:
        """Which output of a node ``output:number`` is."""
        name, _, number = text.partition(":")
        if not (number.isdigit() and len(number) < 6):
            self.place.refuse(where, f"it reads no output of {shown(node.name)!r}, but {shown(text)!r}")
        names: Sequence[str] = SEVERAL.get(node.op, ())
        if node.op in self.functions:
            names = [arg.name for arg in self.functions[node.op].signature.output_arg]
        if not names:
            return int(number)
        if name not in names:
            self.place.refuse(
                where, f"{shown(node.op)} {shown(node.name)!r} has no output {shown(name)!r} that is read"
            )
        return names.index(name) + int(number)


def written_out(graph: Any, place: Place) -> tuple[Sequence[Any], dict[str, tuple[str, str]]]:
    """The nodes of a graph, with those of the functions that it calls in the place of the calls; and of these the
    function and the name there, by the new name.

    Errors: ModelFormatError if a function is absent, or not whole, or if they call each other without end.
    """
    inliner = Inliner(graph, place)
    return inliner.all(graph), inliner.origins


__all__ = ["written_out"]
