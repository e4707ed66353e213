"""What of an imported model is trained: layers, heads, biases, adapters, budgets; and how that is written back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tinyedge as te
from tests.test_cli_models import onnx_file
from tests.test_tflite import network
from tinyedge import adapt, nn
from tinyedge.adapt.layers import layers_of
from tinyedge.backends import Backend
from tinyedge.errors import ArgumentError
from tinyedge.nn import functional as F

pytest.importorskip("tflite")
onnx = pytest.importorskip("onnx")
RNG = np.random.default_rng(0)


def weight(*shape: int) -> np.ndarray[Any, Any]:
    return RNG.standard_normal(shape).astype(np.float32)


def trained(model: nn.Module) -> list[str]:
    return [name for name, param in model.named_parameters() if param.requires_grad]


@pytest.mark.parametrize(
    ("choose", "expected"),
    [
        (lambda model: adapt.last(model, 2), {"bn.weight", "bn.bias", "fc.weight", "fc.bias"}),
        (adapt.head_only, {"fc.weight", "fc.bias"}),
        (adapt.bias_only, {"conv.bias", "bn.bias", "fc.bias"}),
        (adapt.norm_only, {"bn.weight", "bn.bias"}),
    ],
    ids=["last", "head_only", "bias_only", "norm_only"],
)
def test_what_is_trained(
    tmp_path: Path, backend: Backend, choose: Callable[[nn.Module], nn.Module], expected: set[str]
) -> None:
    model = te.load_model(onnx_file(tmp_path / "a.onnx"))
    choose(model)
    assert set(trained(model)) == expected
    model(te.tensor(weight(1, 3, 12, 12))).sum().backward()
    assert {name for name, param in model.named_parameters() if param.grad is not None} == expected
    whole = nn.Sequential(te.load_model(tmp_path / "a.onnx"), nn.Linear(4, 2))  # the same inside another model
    assert [layer.name for layer in layers_of(whole)] == ["0./conv", "0./bn", "0./fc", "1"]
    choose(whole)
    assert trained(whole)


def test_a_bias_that_is_added(tmp_path: Path, reference: Backend) -> None:
    """As CNTK writes layers: a convolution, a product of a weight that is reshaped, and sums."""
    make, info = onnx.helper.make_node, onnx.helper.make_tensor_value_info
    nodes = [
        make("Conv", ["x", "cw"], ["c"], "conv"), make("Add", ["c", "cb"], ["d"], "conv bias"),
        make("Relu", ["d"], ["r"], "relu"), make("Flatten", ["r"], ["f"], "flat"),
        make("Reshape", ["w", "shape"], ["v"], "turn"), make("MatMul", ["f", "v"], ["m"], "product"),
        make("Add", ["m", "b"], ["y"], "bias"),
    ]  # fmt: skip
    weights = {"cw": weight(2, 1, 3, 3), "cb": weight(2, 1, 1), "w": weight(2, 4, 3), "b": weight(1, 3),
               "shape": np.array([8, 3])}  # fmt: skip
    graph = onnx.helper.make_graph(
        nodes, "graph", [info("x", 1, [1, 1, 4, 4])], [info("y", 1, [1, 3])],
        [onnx.numpy_helper.from_array(array, name) for name, array in weights.items()],
    )  # fmt: skip
    opsets = [onnx.helper.make_opsetid("", 17)]
    path = tmp_path / "a.onnx"
    path.write_bytes(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString())
    model = te.load_model(path)
    layers = layers_of(model)
    assert [(layer.name, set(layer.parameters), set(layer.biases)) for layer in layers] == [
        ("conv", {"cw", "cb"}, {"cb"}), ("product", {"w", "b"}, {"b"}),
    ]  # fmt: skip
    assert set(trained(adapt.head_only(model))) == {"w", "b"}


def test_plans_of_imported_models(tmp_path: Path, backend: Backend) -> None:
    network(tmp_path / "a.tflite")
    model = te.load_model(tmp_path / "a.tflite").logits()

    def loss(model: nn.Module, x: te.Tensor) -> te.Tensor:
        return model(x)[0].sum()

    sample = ((1, 7, 7, 2),)
    whole = te.plan_for(model, loss, sample, budget="1GB")
    assert len(whole.trained) == 7
    with pytest.raises(ArgumentError, match="a budget of at least"):
        te.plan_for(model, loss, sample, budget=1)
    methods = set()
    for budget in range(whole.total_bytes, 0, -64):
        try:
            fit = te.plan_for(model, loss, sample, budget=budget)
        except ArgumentError:
            break
        methods.add(fit.method)
        assert fit.total_bytes <= budget
        fits_layers = [set(layer.parameters) for layer in model.layers()]
        if fit.method == "the last layers":
            assert set(fit.trained) == set().union(
                *fits_layers[-len([x for x in fits_layers if x <= set(fit.trained)]) :]
            )
    assert {"everything", "the last layers"} <= methods


@pytest.mark.parametrize("dora", [False, True], ids=("lora", "dora"))
@pytest.mark.parametrize("kind", ["onnx", "tflite"])
def test_adapters(tmp_path: Path, backend: Backend, kind: str, dora: bool) -> None:
    path = tmp_path / f"a.{kind}"
    if kind == "onnx":
        onnx_file(path)
        x, wanted = te.tensor(weight(2, 3, 12, 12)), ["/conv", "/fc"]
    else:
        network(path)
        x, wanted = te.tensor(weight(1, 7, 7, 2)), ["a::2", "y::15"]
    model = te.load_model(path)
    names = list(model.state_dict())

    def result() -> np.ndarray[Any, Any]:
        y = model(x)
        return (y[0] if isinstance(y, tuple) else y).detach().numpy()

    before = result()
    found = adapt.adaptable(model)
    assert len(found) == 2  # the convolution of one group, and the product
    assert kind == "tflite" or found == wanted
    adapt.lora(model, rank=2, targets=found, dora=dora)
    np.testing.assert_allclose(result(), before, rtol=1e-5 if dora else 0, atol=1e-6 if dora else 0)
    parts = {"A.default", "B.default", *(["magnitude.default"] if dora else [])}
    assert {name.rpartition("lora_")[2] for name in trained(model)} == parts

    @te.compile
    def step(x: te.Tensor) -> te.Tensor:
        y = model(x)
        loss = (y[0] if isinstance(y, tuple) else y).log_softmax(-1)[:, 0].sum()
        loss.backward()
        return loss

    optimizer = te.optim.SGD([param for param in model.parameters() if param.requires_grad], lr=0.05)
    for _ in range(4):
        step(x)
        optimizer.step()
        optimizer.zero_grad()
    adapted = result()
    assert np.abs(adapted - before).max() > 1e-3
    with pytest.raises(ArgumentError, match="Put adapters into the weights"):
        model.save(tmp_path / f"b.{kind}")
    adapt.merge(model)
    np.testing.assert_allclose(result(), adapted, rtol=1e-4, atol=1e-5)
    adapt.unmerge(model)
    np.testing.assert_array_equal(result(), adapted)
    adapt.merge(model)
    model.save(tmp_path / f"c.{kind}")
    adapt.unload(model)
    np.testing.assert_allclose(result(), adapted, rtol=1e-4, atol=1e-5)
    assert list(model.state_dict()) == names
    model.save(tmp_path / f"b.{kind}")
    assert (tmp_path / f"c.{kind}").read_bytes() == (tmp_path / f"b.{kind}").read_bytes()
    again = te.load_model(tmp_path / f"b.{kind}")(x)
    np.testing.assert_array_equal((again[0] if isinstance(again, tuple) else again).detach().numpy(), result())


def test_gradients_of_adapters(tmp_path: Path, backend: Backend) -> None:
    """They are those of the weight with the adapter's product in it."""
    path = onnx_file(tmp_path / "a.onnx")
    model, plain = te.load_model(path), te.load_model(path)
    adapt.lora(model, rank=2, alpha=6, targets=adapt.adaptable(model))
    with te.no_grad():
        for name, param in model.named_parameters():
            if "lora_B" in name:
                param.copy_(te.tensor(weight(*param.shape)) * 0.1)
    x = te.tensor(weight(2, 3, 12, 12))
    model(x)[:, 0].sum().backward()
    state = {name: param for name, param in model.named_parameters() if "lora" in name}
    for layer, name in (("/conv", "conv.weight"), ("/fc", "fc.weight")):
        a, b = state[f"{layer}.lora_A.default"], state[f"{layer}.lora_B.default"]
        with te.no_grad():
            weight_ = plain.get_parameter(name)
            weight_.add_((3 * (b.flatten(1) @ a.flatten(1))).reshape(weight_.shape))
    plain(x)[:, 0].sum().backward()
    for layer, name in (("/conv", "conv.weight"), ("/fc", "fc.weight")):
        a, b = state[f"{layer}.lora_A.default"], state[f"{layer}.lora_B.default"]
        dw = plain.get_parameter(name).grad
        assert dw is not None
        assert a.grad is not None
        assert b.grad is not None
        wanted = (3 * (b.flatten(1).T @ dw.flatten(1))).detach().numpy()
        np.testing.assert_allclose(a.grad.flatten(1).numpy(), wanted, rtol=1e-3, atol=1e-5)
        wanted = (3 * (dw.flatten(1) @ a.flatten(1).T)).detach().numpy()
        np.testing.assert_allclose(b.grad.flatten(1).numpy(), wanted, rtol=1e-3, atol=1e-5)


def test_a_head_with_adapters_stays(tmp_path: Path, reference: Backend) -> None:
    model = te.load_model(onnx_file(tmp_path / "a.onnx"))
    adapt.adaptable(model)
    model.replace_head(3)  # no adapters yet
    adapt.lora(model, rank=1, targets=["/fc"])
    assert model(te.tensor(weight(1, 3, 12, 12))).shape == (1, 3)
    with pytest.raises(ArgumentError, match="Replace the head first"):
        model.replace_head(2)
    with pytest.raises(ArgumentError, match=r"rank in \[1, 3\]"):
        adapt.lora(te.load_model(tmp_path / "a.onnx").replace_head(3), rank=9, targets=["/fc"])


def test_a_head_of_the_same_size_is_written_everywhere(tmp_path: Path, reference: Backend) -> None:
    pytest.importorskip("tensorboard")
    from tests.test_cli_finetune import pb_file

    path = pb_file(tmp_path / "a.pb", 3)
    model = te.load_model(path)
    model.replace_head(3)
    model.save(tmp_path / "b.pb")
    x = te.tensor(weight(1, 4))
    np.testing.assert_array_equal(te.load_model(tmp_path / "b.pb")(x).detach().numpy(), model(x).detach().numpy())
    model.replace_head(2)
    with pytest.raises(ArgumentError, match="takes no new head"):
        model.save(tmp_path / "c.pb")
    assert F.softmax(model.logits()(x), 1).shape == (1, 2)


def drawn_adapter(model: nn.Module, *targets: str) -> nn.Module:
    adapt.lora(model, rank=2, alpha=4, targets=list(targets))
    with te.no_grad():
        for param in model.parameters():
            if param.requires_grad:
                param.copy_(te.tensor(weight(*param.shape) * np.float32(0.3)))
    return model


def test_adapters_of_a_part_fit_the_whole(tmp_path: Path, backend: Backend) -> None:
    """What was saved of a model without its softmax, or of features, computes the same elsewhere, or is refused."""
    path, x = onnx_file(tmp_path / "a.onnx"), te.tensor(weight(2, 3, 12, 12))

    def fresh() -> Any:
        return te.load_model(path)

    logits = drawn_adapter(fresh().logits(), "/conv", "/fc")
    wanted = logits(x).detach()
    adapt.save_adapter(logits, tmp_path / "logits")
    for model, result in ((fresh(), F.softmax(wanted, -1)), (fresh().logits(), wanted)):
        adapt.load_adapter(model, tmp_path / "logits")
        np.testing.assert_allclose(model(x).detach().numpy(), result.numpy(), rtol=1e-4, atol=1e-5)
    with pytest.raises(te.errors.StateDictError, match="no layer '/fc'"):
        adapt.load_adapter(fresh().cut("/pool"), tmp_path / "logits")
    features = drawn_adapter(fresh().cut("/pool"), "/conv")
    adapt.save_adapter(features, tmp_path / "features")
    whole = adapt.load_adapter(fresh(), tmp_path / "features")
    wanted = features(x).detach().numpy()
    assert isinstance(whole, te.convert.GraphModel)
    np.testing.assert_allclose(whole.cut("/pool")(x).detach().numpy(), wanted, rtol=1e-4, atol=1e-5)
    assert np.abs(fresh().cut("/pool")(x).detach().numpy() - wanted).max() > 1e-2
    head = drawn_adapter(fresh().replace_head(7), "/fc")
    adapt.save_adapter(head, tmp_path / "head")
    with pytest.raises(te.errors.StateDictError, match="/fc"):
        adapt.load_adapter(fresh(), tmp_path / "head")


def test_a_model_of_one_product_says_what_can_be_adapted(tmp_path: Path, reference: Backend) -> None:
    with pytest.raises(ArgumentError, match=r"it has 1 Linear.*/conv, /fc"):
        adapt.lora(te.load_model(onnx_file(tmp_path / "a.onnx")))


@pytest.mark.parametrize("dtype", ["int8", "q8_0"])
def test_quantised_layers_of_a_file(tmp_path: Path, backend: Backend, dtype: str) -> None:
    """They compute as the values that their blocks stand for, adapters beside them get their gradients, and the file
    gets these values.
    """
    make, info = onnx.helper.make_node, onnx.helper.make_tensor_value_info
    weights = {"conv.weight": weight(32, 32, 1, 1), "fc.weight": weight(4, 32), "turned.weight": weight(4, 3)}
    nodes = [
        make("Conv", ["x", "conv.weight"], ["c"], "/conv"), make("Relu", ["c"], ["r"], "/relu"),
        make("GlobalAveragePool", ["r"], ["p"], "/pool"), make("Flatten", ["p"], ["f"], "/flat"),
        make("Gemm", ["f", "fc.weight"], ["g"], "/fc", transB=1),
        make("MatMul", ["g", "turned.weight"], ["y"], "/turned"),
    ]  # fmt: skip
    path = tmp_path / "a.onnx"
    graph = onnx.helper.make_graph(
        nodes, "g", [info("x", 1, ["n", 32, 3, 3])], [info("y", 1, ["n", 3])],
        [onnx.numpy_helper.from_array(value, name) for name, value in weights.items()],
    )  # fmt: skip
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9), path)
    model, plain = te.load_model(path), te.load_model(path)
    done = te.quantize(model, dtype)
    assert [layer.name for layer in done.layers] == ["/conv", "/fc"]
    assert done.skipped[0][0] == "/turned"
    with pytest.raises(ArgumentError, match=r"lies as \(in, out\)"):
        te.quantize(te.load_model(path), dtype, targets=["/turned"])
    with te.no_grad():
        for name, value in plain.named_parameters():
            value.copy_(model.get_parameter(name).detach().dequantize())
            assert np.abs(value.detach().numpy() - weights[name]).max() > 0 or name == "turned.weight"
    x = te.tensor(weight(2, 32, 3, 3))
    results = []
    for each in (model, plain):
        te.manual_seed(0)
        adapt.lora(each, rank=2, targets=["/conv", "/fc"])
        with te.no_grad():
            for name, param in each.named_parameters():
                if "lora_B" in name:
                    nn.init.normal_(param)
        step = te.compile(lambda x, model=each: model(x).square().sum().backward())
        for _ in range(3):
            each.zero_grad()
            step(x)
        results.append({name: param.grad.numpy() for name, param in each.named_parameters() if param.requires_grad})
    assert len(results[0]) == 4
    for name, gradient in results[1].items():
        np.testing.assert_allclose(results[0][name], gradient, rtol=1e-3, atol=1e-4 * np.abs(gradient).max())
    adapt.set_adapter(model, None)
    wanted = model(x).detach().numpy()
    adapt.unload(model).save(tmp_path / "b.onnx")
    np.testing.assert_allclose(te.load_model(tmp_path / "b.onnx")(x).detach().numpy(), wanted, rtol=1e-4, atol=1e-4)
