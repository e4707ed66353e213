"""GraphModel: a model from a file, as nodes in order over named values.

A value is a tensor on the device, or an array on the host: constants, shapes, and what is computed from these alone.
Which of both it is follows from the graph, so it is known when the file is loaded.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any, cast

import numpy as np

from tinyedge.autograd.modes import no_grad
from tinyedge.autograd.registry import functions
from tinyedge.backends import Backend
from tinyedge.convert.checks import HOST_FAULTS, host_refusal, shown
from tinyedge.convert.graph_layers import GraphLayer, layers_of
from tinyedge.convert.head import found_head, new_parameters, renumbered
from tinyedge.convert.host_values import on_host, single
from tinyedge.convert.members import Members, NodeLayer, owner_of
from tinyedge.convert.nodes import (
    Array,
    Body,
    Dims,
    HeadSource,
    Loop,
    NewHead,
    Node,
    Port,
    Source,
    State,
    lies_in_16_bits,
)
from tinyedge.convert.norms import How, InGroups, OverMinibatch, Renormalised
from tinyedge.errors import ArgumentError, DtypeError, ShapeError, TinyedgeError
from tinyedge.ir.modes import is_grad_enabled
from tinyedge.nn.module import Module
from tinyedge.nn.selection import Chosen, listed
from tinyedge.tensor import Parameter, Tensor, tensor

MAX_STEPS = 1_000_000
"""Of a loop: a file can ask for one without end."""


class GraphModel(Module):
    """A model that was loaded from a file; see ``te.load_model``.

    Called with the file's inputs, in the file's order and layout, it returns the file's output, or a tuple of them.
    Parameters and buffers have the file's names. Batch norms normalise by the file's statistics, which stay as they
    are, in training mode too, until ``freeze_batch_norm_statistics(False)``. Then they normalise by the batch; after
    ``te.adapt.minibatch_norm(model, n)`` by minibatches of single samples; ``te.adapt.to_batch_renorm`` and
    ``to_group_norm`` make other norms of them. A streaming model, whose file has variables,
    keeps their values from call to call: ``reset_states()`` begins a new sequence.

    Weights may lie in 16 bits: they are computed with in float32, as all values are. Where the file's inputs and
    outputs are of 16 bits, so are these, and inputs may be float32 as well.

    Errors: ShapeError and DtypeError if a call's arguments are not the file's inputs.
    """

    def __init__(
        self,
        nodes: Sequence[Node],
        inputs: Sequence[Port],
        outputs: Sequence[Port],
        parameters: Mapping[str, Parameter],
        buffers: Mapping[str, Tensor],
        constants: Mapping[str, Array],
        source: Source,
        states: Mapping[str, State] | None = None,
        masks: Mapping[str, Array] | None = None,
        device: str | Backend | None = None,
    ) -> None:
        super().__init__()
        self.frozen_statistics = True
        self.over_minibatch = False  # in training, unless they are frozen
        self.other_norms: InGroups | Renormalised | None = None  # what batch norms compute instead
        self.inputs, self.outputs = tuple(inputs), tuple(outputs)
        self._constants = dict(constants)
        self._source = source
        self._head: NewHead | None = None
        self._layer_keys: dict[str, str] = {}  # of layers that ``expose_layers`` made, by what the node computes
        self._places: dict[str, tuple[Module, str]] = {}
        for name, param in parameters.items():
            owner, key = self._places[name] = owner_of(self, name)
            owner._parameters[key] = param
        self._statistics = frozenset(buffers)
        for name, buffer in buffers.items():
            owner, key = self._places[name] = owner_of(self, name)
            owner._buffers[key] = buffer
        self._masks: dict[str, str] = {}  # of sparse weights: the buffer that says where the file holds an element
        for name, mask in (masks or {}).items():
            key = self._masks[name] = f"{name}'s places"
            self._buffers[key] = tensor(np.ascontiguousarray(mask, np.float32), device=parameters[name].backend)
            self._transient.add(key)
        self._states = dict(states or {})
        for name, state in self._states.items():  # they are no weights, and stay out of the state dict
            self._buffers[name] = tensor(state.start, device=device)
            self._transient.add(name)
            self._places[name] = self, name
        kept = [port.name for port in outputs] + [state.value for state in self._states.values()]
        self._nodes = _with_last_uses(nodes, kept)
        self._register_constants()

    def _register_constants(self) -> None:
        """Constants that a device reads lie there, as buffers outside the state dict."""
        read = {
            name
            for node in _with_inner(self._nodes)
            if not node.on_host
            for position, name in enumerate(node.inputs)
            if name in self._constants and position not in node.at_host
        }
        read |= {port.name for port in self.outputs if port.name in self._constants}
        first = next(self.parameters(), None)
        device = None if first is None else first.backend
        for name in sorted(read):
            key = name
            while key in self._buffers or key in self._parameters or key in self._modules:
                key += "'"
            self._buffers[key] = tensor(self._constants[name], device=device)
            self._transient.add(key)
            self._places[name] = self, key

    # Calls

    def forward(self, *inputs: Tensor) -> Any:
        return self._called(inputs, None)

    def observe(self, watch: Callable[[Node, tuple[Any, ...]], None], *inputs: Tensor) -> Any:
        """Call the model; ``watch(node, results)`` is called after each of its nodes."""
        return self._called(inputs, watch)

    def _called(self, inputs: Sequence[Tensor], watch: Callable[[Node, tuple[Any, ...]], None] | None) -> Any:
        values: dict[str, Any] = dict(self._constants)
        values.update(self._bound(inputs))
        for name, (owner, key) in self._places.items():
            if name not in self._constants:
                values[name] = owner._parameters[key] if key in owner._parameters else owner._buffers[key]
        for name, key in self._masks.items() if is_grad_enabled() else ():
            if values[name].requires_grad:  # elements that the file cannot hold get no gradient, and stay 0
                values[name] = values[name] * self._buffers[key]
        for name in self._states:
            values[name] = values[name].clone()  # the buffer changes before backward reads what was saved
        backend = self._backend(inputs)
        training = self.training and not self.frozen_statistics
        self._compute(self._nodes, values, training, backend, watch)
        returned = [self._returned(port, values[port.name], backend) for port in self.outputs]
        self._keep_states(values)
        return returned[0] if len(returned) == 1 else tuple(returned)

    def _compute(
        self,
        nodes: Sequence[Node],
        values: dict[str, Any],
        training: bool,
        backend: Backend | None,
        watch: Callable[[Node, tuple[Any, ...]], None] | None,
    ) -> None:
        """Add to ``values`` what the nodes compute, and take away what nobody reads again."""
        conditions: dict[str, bool] = {}
        for node in nodes:
            if not all(self._holds(name, values, conditions) is wanted for name, wanted in node.guards):
                continue
            if node.loop is None:
                results = self._run(node, values, training, backend)
            else:
                results = self._repeat(node, node.loop, values, training, backend)
            if watch is not None:
                watch(node, results)
            values.update(zip(node.outputs, results))
            for name in node.last_uses:
                values.pop(name, None)

    def _repeat(
        self, node: Node, loop: Loop, values: dict[str, Any], training: bool, backend: Backend | None
    ) -> tuple[Any, ...]:
        """The results of a loop; its steps are computed one after the other, and so are their gradients."""
        count = len(loop.at_host)
        carried = [values[name] for name in node.inputs[2 : 2 + count]]
        names = node.inputs[2 : 2 + count]
        reader = f"the loop {shown(node.name)!r}"
        most = None if not node.inputs[0] else int(single(values[node.inputs[0]], reader))
        goes = not node.inputs[1] or bool(single(values[node.inputs[1]], reader))
        outside = {name: self._single(name, values) for name in node.inputs[2 + count :] if name in values}
        rows: list[list[Any]] = [[] for _ in range(loop.scans)]
        step = 0
        while goes and (most is None or step < most):
            carried = [
                value if host else self._on_device(name, value, backend)
                for name, value, host in zip(names, carried, loop.at_host)
            ]
            if loop.condition is not None:
                inside = {**outside, **dict(zip(loop.condition.inputs, carried))}
                self._compute(loop.condition.nodes, inside, training, backend, None)
                if not single(inside[loop.condition.outputs[0]], reader):
                    break
            if step == MAX_STEPS:
                raise ArgumentError(
                    "the model's call", f"a loop of at most {MAX_STEPS} steps", f"{shown(node.name)!r} has more"
                )
            given = (np.array(step), np.array(True), *carried)
            inside = {**outside, **dict(zip(loop.body.inputs, given))}
            self._compute(loop.body.nodes, inside, training, backend, None)
            results = [inside[name] for name in loop.body.outputs[1:]]
            goes = not loop.body.outputs[0] or bool(single(inside[loop.body.outputs[0]], reader))
            carried, names = results[:count], loop.body.outputs[1 : 1 + count]
            for row, value, name in zip(rows, results[count:], loop.body.outputs[1 + count :]):
                row.append(self._on_device(name, value, backend))
            step += 1
        if rows and not step:
            raise ShapeError("the model's call", "a loop of at least one step", f"{shown(node.name)!r} has none")
        return (*carried, *map(functions["stack"], rows))

    def _keep_states(self, values: Mapping[str, Any]) -> None:
        """What the next call begins with. No gradient goes from one call to another."""
        with no_grad():
            for name, state in self._states.items():
                held, value = self._buffers[name], values[state.value]
                assert held is not None
                value = value.detach() if isinstance(value, Tensor) else tensor(value, device=held.backend)
                if value.shape != held.shape:
                    raise ShapeError(
                        "the model's call",
                        f"the state {shown(name)!r} stays {held.shape}",
                        f"it would become {value.shape}",
                    )
                held.copy_(value)

    def reset_states(self) -> GraphModel:
        """Begin a new sequence: what the model keeps from call to call, say the last frames of a stream, is as in the
        file. A model without such states stays as it is.
        """
        with no_grad():
            for name, state in self._states.items():
                held = self._buffers[name]
                assert held is not None
                held.copy_(tensor(state.start, device=held.backend))
        return self

    def _holds(self, name: str, values: dict[str, Any], known: dict[str, bool]) -> bool:
        """Whether a branch's condition is true."""
        if name not in known:
            known[name] = bool(single(values[name], f"a branch by the condition {shown(name)!r}"))
        return known[name]

    def _run(self, node: Node, values: dict[str, Any], training: bool, backend: Backend | None) -> tuple[Any, ...]:
        given: list[Any] = []
        for position, name in enumerate(node.inputs):
            value = values.get(name)  # an absent one is in a branch that is not taken
            if value is None or node.on_host:
                pass
            elif position in node.at_host:
                value = on_host(value, f"{node.op} {shown(node.name)!r}") if isinstance(value, Tensor) else value
            elif not (node.live and name in self._statistics):  # these it changes
                value = self._on_device(name, self._single(name, values), backend)
            given.append(value)
        extra = {"training": self._how(node, training)} if node.live else {}
        key = self._layer_keys.get(node.outputs[0]) if node.outputs else None
        try:
            if key is None:
                result = node.function(*given, **node.arguments, **extra)
            else:
                result = cast("Module", self._modules[key])(*given)
        except (ShapeError, DtypeError, ArgumentError) as error:
            error.add_note(f"in {node.op} {shown(node.name)!r} of the model") if hasattr(error, "add_note") else None
            raise
        except HOST_FAULTS as error:
            if isinstance(error, TinyedgeError) or not (node.on_host or node.at_host):
                raise
            raise host_refusal(f"{node.op} {shown(node.name)!r}", error) from None
        results = result if isinstance(result, tuple) else (result,)
        if len(results) < len(node.outputs):
            raise ArgumentError(
                "the model's call", f"{len(node.outputs)} results of {node.op} {shown(node.name)!r}",
                f"there are {len(results)}", "Its file is damaged: fetch or export it again.",
            )  # fmt: skip
        return results

    def _how(self, norm: Node, training: bool) -> How:
        """How a batch norm computes."""
        if isinstance(self.other_norms, InGroups):
            return self.other_norms
        if training and self.over_minibatch:
            return OverMinibatch((self, norm.outputs[0]))
        return self.other_norms if training and self.other_norms is not None else training

    def _on_device(self, name: str, value: Any, backend: Backend | None) -> Tensor:
        if isinstance(value, (Tensor, list)):  # or a sequence, whose tensors lie there
            return cast("Tensor", value)
        if name in self._places:
            owner, key = self._places[name]
            found = owner._buffers[key]
            if found is not None:
                return found
        return tensor(value, device=backend)

    def _single(self, name: str, values: dict[str, Any]) -> Any:
        """A value; a weight that lies in 16 bits as float32, until nobody reads it again."""
        value = values[name]
        if name in self._places and isinstance(value, Tensor) and lies_in_16_bits(value.dtype):
            value = values[name] = value.to(value.dtype.computes)
        return value

    def _returned(self, port: Port, value: Any, backend: Backend | None) -> Tensor:
        """An output, in the file's type if that has 16 bits."""
        result = self._on_device(port.name, value, backend)
        if isinstance(result, Tensor) and result.is_floating_point() and lies_in_16_bits(port.dtype):
            result = result.to(port.dtype)
        return result

    def _backend(self, inputs: Sequence[Tensor]) -> Backend | None:
        given = [each for value in inputs for each in (value if isinstance(value, (list, tuple)) else (value,))]
        first = given[0] if given else next(self.parameters(), None)
        return None if first is None else first.backend

    def _bound(self, inputs: Sequence[Any]) -> dict[str, Any]:
        call = "the model's call"
        wanted = f"{len(self.inputs)} tensors: {', '.join(map(str, self.inputs))}"
        if len(inputs) != len(self.inputs):
            raise ArgumentError(call, wanted, f"got {len(inputs)}")
        symbols: dict[str, int] = {}
        bound: dict[str, Any] = {}
        for port, given in zip(self.inputs, inputs):
            if port.sequence and isinstance(given, (list, tuple)) and all(isinstance(each, Tensor) for each in given):
                bound[port.name] = list(given)
                continue
            if port.sequence or not isinstance(given, Tensor):
                raise ArgumentError(call, wanted, f"got {type(given).__name__}", "Convert it with te.tensor.")
            if lies_in_16_bits(port.dtype) and given.dtype in (port.dtype, port.dtype.computes):
                given = given.to(port.dtype.computes)
            elif port.dtype is not None and given.dtype is not port.dtype:
                raise DtypeError(
                    call, f"{shown(port.name)!r} is {port.dtype.name}", f"got {given.dtype.name}",
                    f"Use .to(te.{port.dtype.name}).",
                )  # fmt: skip
            bound[port.name] = given
            if port.dims is None:
                continue
            sizes = [
                symbols.setdefault(d, size) if isinstance(d, str) else d for d, size in zip(port.dims, given.shape)
            ]
            fits = all(wanted is None or wanted == size for wanted, size in zip(sizes, given.shape))
            if len(port.dims) != given.ndim or not fits:
                raise ShapeError(call, f"the input {port}", f"got {given.shape}")
        return bound

    # Parameters by the file's names

    @property
    def nodes(self) -> tuple[Node, ...]:
        """What a call computes, in order."""
        return tuple(self._nodes)

    @property
    def suffix(self) -> str:
        """That of the file that the model came from: ".onnx", ".tflite" or ".pb"."""
        return self._source.suffix

    def layers(self) -> list[GraphLayer]:
        """The nodes that have parameters, in the order of the computation."""
        return layers_of(self._nodes, [name for name, _ in self.named_parameters(remove_duplicate=False)])

    def get_parameter(self, target: str) -> Parameter:
        owner, key = self._places.get(target, (None, ""))
        param = None if owner is None else owner._parameters.get(key)
        return super().get_parameter(target) if param is None else param

    def get_buffer(self, target: str) -> Tensor:
        owner, key = self._places.get(target, (None, ""))
        buffer = None if owner is None else owner._buffers.get(key)
        return super().get_buffer(target) if buffer is None else buffer

    def freeze(self, except_: Chosen = (), live_statistics: bool = False) -> GraphModel:
        """Train only what ``except_`` names: the parameters of a layer that ``print(model)`` shows, a parameter, or
        what begins with the name and a dot or a slash; or a pattern of such names ("*Conv*"). Batch norms stay frozen,
        unless ``live_statistics``.

        Errors: ArgumentError for what names nothing of the model, such as a class: its layers are nodes of a graph.
        """
        wanted = listed(except_)
        params = [name for name, _ in self.named_parameters(remove_duplicate=False)]
        layers = {node.name: [name for name in node.inputs if name in self._places] for node in self._nodes}
        chosen: set[str] = set()
        for item in wanted:
            name = item if isinstance(item, str) else item.__name__
            lead = tuple(name + mark for mark in "./:")
            used = [param for layer in layers if layer == name or layer.startswith(lead) for param in layers[layer]]
            found = {param for param in params if param == name or param.startswith(lead) or param in used}
            if not found:
                used = [param for layer in layers if fnmatchcase(layer, name) for param in layers[layer]]
                found = {param for param in params if fnmatchcase(param, name) or param in used}
            if not found or item is not name:
                near = get_close_matches(name, [*layers, *params], n=5, cutoff=0.5) or params[-5:]
                raise ArgumentError(
                    "freeze", "except_ must name layers or parameters", f"no parameter belongs to {name!r}",
                    f"Near ones: {', '.join(map(shown, near))}.",
                )  # fmt: skip
            chosen |= found
        for name, param in self.named_parameters(remove_duplicate=False):
            param.requires_grad_(name in chosen)
        self._freeze_statistics(not live_statistics)
        return self

    def _freeze_statistics(self, frozen: bool) -> None:
        self.frozen_statistics = frozen

    @property
    def has_batch_norms(self) -> bool:
        """Whether the graph has batch norms, which a file may also have folded into its convolutions."""
        return not isinstance(self.other_norms, InGroups) and any(node.live for node in self._nodes)

    def weight_layouts(self, layouts: Mapping[str, str]) -> dict[str, str]:
        """By name: what ``layouts`` says of the op that reads a weight first."""
        found: dict[str, str] = {}
        for node in self._nodes:
            if node.op in layouts and len(node.inputs) > 1 and node.inputs[1] in self._places:
                found.setdefault(node.inputs[1], layouts[node.op])
        return found

    def expose_layers(self) -> None:
        """Make a module of each product and convolution whose weight is a parameter: ``te.adapt.lora`` wraps these."""
        names = {name for name, _ in self.named_parameters(remove_duplicate=False)}
        for node in self._nodes:
            if (
                node.on_host
                or len(node.inputs) < 2
                or node.inputs[1] not in names
                or node.outputs[0] in self._layer_keys
            ):
                continue
            if NodeLayer.fits(node, self.get_parameter(node.inputs[1])):
                key = node.name or node.outputs[0]
                while key in self._modules or key in self._parameters or key in self._buffers:
                    key += "'"
                self._modules[key] = NodeLayer(node, self._places[node.inputs[1]])
                self._layer_keys[node.outputs[0]] = key

    # Other models of the same parts

    def cut(self, at: str) -> GraphModel:
        """The model up to the layer, or the value, of that name: its first output becomes the output, say as features.

        The parameters are this model's own, and so are adapters that it has by then. The new model cannot be saved as a
        model file. Images come with their channels first, of a TFLite file too.

        Errors: ArgumentError for a name that the model does not have.
        """
        by_name = {name: node for node in reversed(self._nodes) for name in (*node.outputs, node.name)}
        if at not in by_name:
            near = get_close_matches(at, list(by_name), n=5, cutoff=0.4)
            raise ArgumentError(
                "cut", "the name of a layer", f"got {at!r}", f"Near ones: {', '.join(map(shown, near))}."
            )
        last = by_name[at]
        output = at if at in last.outputs else last.outputs[0]
        return self._until(Port(output, None, last.dims if output == last.outputs[0] else None))

    def _until(self, port: Port) -> GraphModel:
        """The model up to a value."""
        output = port.name
        needed, before = {output}, 0
        kept: list[Node] = []
        while len(needed) != before:  # a state is needed with its new value
            before, kept = len(needed), []
            needed |= {state.value for name, state in self._states.items() if name in needed}
            for node in reversed(self._nodes):
                if needed & set(node.outputs):
                    needed.update(node.inputs, (name for name, _ in node.guards))
                    kept.append(node)
        states = {name: state for name, state in self._states.items() if name in needed}
        parameters = {name: param for name, param in self.named_parameters() if name in needed}
        buffers = {name: buffer for name, buffer in self.named_buffers() if name in needed}
        own = {*self._constants, *self._states, *self._masks.values()}
        buffers = {name: buffer for name, buffer in buffers.items() if name not in own}
        constants = {name: array for name, array in self._constants.items() if name in needed}
        inputs = [port for port in self.inputs if port.name in needed]
        source, device = _Cut(self._source.suffix), next((param.backend for param in self.parameters()), None)
        masks = {n: cast("Tensor", self._buffers[key]).numpy() for n, key in self._masks.items() if n in parameters}
        made = GraphModel(kept[::-1], inputs, [port], parameters, buffers, constants, source, states, masks, device)
        made.frozen_statistics, made.over_minibatch = self.frozen_statistics, self.over_minibatch
        made.other_norms = self.other_norms
        for node in kept:
            if (key := self._layer_keys.get(node.outputs[0])) is not None:
                made._modules[key], made._layer_keys[node.outputs[0]] = self._modules[key], key
        return made

    def head_parameters(self) -> list[str]:
        """The names of the parameters of the layer that ``replace_head`` replaces.

        Errors: ArgumentError as from ``replace_head``.
        """
        params = dict(self.named_parameters(remove_duplicate=False))
        return list(found_head(self._nodes, self.outputs, params, self._constants).parameters)

    def logits(self) -> GraphModel:
        """The model without a last softmax or sigmoid, of the same parameters: cross entropy wants what it is applied
        to. The model itself if there is none. Adapters that it gets are its own: merge them before the model is saved.

        Shapes: the output as before.
        """
        makers = {name: node for node in self._nodes for name in node.outputs}
        name = self.outputs[0].name
        while (node := makers.get(name)) is not None:
            if node.op in ("Softmax", "LogSoftmax", "Sigmoid"):
                made = self._until(self.outputs[0])
                passed = replace(node, op="Identity", function=_unchanged, arguments={})
                made._nodes = [
                    replace(passed, last_uses=own.last_uses) if own.outputs == node.outputs else own
                    for own in made._nodes
                ]
                return made
            if node.op not in ("Identity", "Cast", "Reshape", "Squeeze", "Flatten", "Unsqueeze", "Transpose"):
                break
            name = node.inputs[0]
        return self

    def replace_head(self, num_classes: int) -> GraphModel:
        """Put a new last layer, for ``num_classes`` classes, in the place of the model's own: the last matrix product
        or convolution before the output, with its bias. What comes after it, say a softmax, stays. The new parameters
        have the old ones' names, and begin as ``nn.Linear``'s do. Make the optimizer afterwards.

        ``save`` writes the new head into ONNX and TFLite files.

        Shapes: the output as before, with num_classes in place of the number of classes.
        Errors: ArgumentError if no such layer leads to the output, if several do, or if something is computed after it
                that goes by the number of classes.
        """
        if type(num_classes) is not int or num_classes < 1:
            raise ArgumentError("replace_head", "num_classes must be a positive int", f"got {num_classes!r}")
        params = dict(self.named_parameters(remove_duplicate=False))
        head = found_head(self._nodes, self.outputs, params, self._constants)
        key = self._layer_keys.get(head.layer.outputs[0])
        if key is not None and not isinstance(self._modules[key], NodeLayer):
            raise ArgumentError(
                "replace_head", "a last layer without adapters", f"{shown(key)!r} has some",
                "Replace the head first, and add adapters afterwards.",
            )  # fmt: skip
        constants = head.constants(num_classes)
        made = new_parameters(head, params, num_classes)
        for name, param in made.items():
            owner, key = self._places[name]
            owner._parameters[key] = param
        self._constants.update(constants)
        first = self._source.suffix == ".onnx"
        self._nodes = [
            replace(node, dims=renumbered(node.dims, head.classes, num_classes, first))
            if node.outputs[0] in head.values
            else node
            for node in self._nodes
        ]
        self.outputs = tuple(
            replace(port, dims=renumbered(port.dims, head.classes, num_classes, first))
            if port.name in head.values
            else port
            for port in self.outputs
        )
        before = self._head
        old = head.classes if before is None else before.old
        changed = constants if before is None else {**before.constants, **constants}
        self._head = NewHead(old, num_classes, head.values, changed)
        return self

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write the file that the model came from with the parameters and statistics as they are now, in the file's own
        types: what these hold in 16 or 8 bits is rounded, and the file, loaded again, computes with that. Everything
        else stays byte for byte. The file appears whole or not at all.

        Errors: ArgumentError if ``path`` has another suffix than the original, if it is there and not ``overwrite``, or
                is no regular file; NumberRangeError for a value that the file's type cannot hold.
        """
        name = os.fspath(path)
        if not name.lower().endswith(self._source.suffix):
            raise ArgumentError(
                "save", f"a name that ends in {self._source.suffix}, as the original's", f"got {name!r}"
            )
        if os.path.lexists(name) and not overwrite:
            raise ArgumentError(
                "save", "a new name", f"{name!r} is there", "Pass overwrite=True to replace it, or choose another name."
            )
        if isinstance(self.other_norms, InGroups):
            raise ArgumentError(
                "save", "a model with the layers of its file", "its batch norms compute as group norms now",
                "Save the values with te.save(model.state_dict(), path), or the model with te.onnx.export.",
            )  # fmt: skip
        values = {name: value.numpy() for name, value in self.state_dict().items()}
        merged = tuple(f"{key}." for key in self._layer_keys.values() if getattr(self._modules[key], "merged", ()))
        values = {name: value for name, value in values.items() if name in self._places or not name.startswith(merged)}
        if strangers := [name for name in values if name not in self._places]:
            raise ArgumentError(
                "save", "a model of the file's own parameters", f"it also has {shown(strangers[0])!r}",
                "Put adapters into the weights: te.adapt.merge(model).",
            )  # fmt: skip
        if self._head is None or self._head.old == self._head.new:
            self._source.write(values, path)
        elif isinstance(self._source, HeadSource):
            self._source.write_head(values, path, self._head)
        else:
            raise ArgumentError(
                "save", "a model with the layers of its file", f"a {self._source.suffix} file takes no new head",
                "Save the values with te.save(model.state_dict(), path).",
            )  # fmt: skip

    # Text

    def _child_lines(self) -> list[str]:
        lines = [f"(input): {port}" for port in self.inputs]
        for node in self._nodes:
            if node.on_host:
                continue
            owned = [(name, self._places[name]) for name in node.inputs if name in self._places]
            parts = [
                f"{shown(name)} {tuple(owner._parameters[key].shape)}"  # type: ignore[union-attr]
                for name, (owner, key) in owned
                if owner._parameters.get(key) is not None
            ]
            if node.dims is not None:
                parts.append(f"returns ({', '.join('?' if d is None else str(d) for d in node.dims)})")
            lines.append(f"({shown(node.name)}): {node.op}({', '.join(parts)})")
        return [*lines, *(f"(output): {port}" for port in self.outputs)]


class _Cut:
    def __init__(self, suffix: str) -> None:
        self.suffix = suffix

    def write(self, values: Mapping[str, Array], path: str | os.PathLike[str]) -> None:
        raise ArgumentError(
            "save", "a whole model", "this one was cut", "Save the model that it was cut from, or use te.save."
        )


def _unchanged(x: Tensor) -> Tensor:
    return x


def _with_inner(nodes: Iterable[Node]) -> Iterator[Node]:
    """The nodes, and those inside loops."""
    for node in nodes:
        if node.loop is not None:
            yield from _with_inner(node.loop.body.nodes)
            yield from _with_inner(node.loop.condition.nodes if node.loop.condition is not None else ())
        yield node


def _with_last_uses(nodes: Sequence[Node], kept: Sequence[str]) -> list[Node]:
    """Which values each node is the last to read, or nobody reads: their memory is free after it."""
    seen = set(kept)
    result = []
    for node in reversed(nodes):
        named = dict.fromkeys((*node.inputs, *node.outputs, *(name for name, _ in node.guards)))
        last = [name for name in named if name and name not in seen]
        seen.update(last)
        loop = node.loop
        if loop is not None:
            parts = [part and replace(part, nodes=_with_last_uses(part.nodes, part.outputs))
                     for part in (loop.body, loop.condition)]  # fmt: skip
            loop = replace(loop, body=cast("Body", parts[0]), condition=parts[1])
        result.append(replace(node, last_uses=tuple(last), loop=loop))
    return result[::-1]


__all__ = ["Array", "Dims", "GraphModel", "Members", "Node", "NodeLayer", "Port", "Source"]
