"""Adapters of each kind of layer against PEFT: results, gradients, merged weights, files both ways, several at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tinyedge as te
from tests.llama_configs import FAMILIES
from tinyedge import adapt, nn
from tinyedge.backends import Backend

# PEFT and transformers warn of each other.
pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore")]

INDEX = np.array([[0, 3, 5], [7, 0, 3]])
LAYERS: dict[str, tuple[str, tuple[Any, ...], dict[str, Any], Any]] = {
    "linear": ("Linear", (6, 10), {}, (2, 3, 6)),
    "no bias": ("Linear", (6, 10), {"bias": False}, (4, 6)),
    "embedding": ("Embedding", (9, 6), {"padding_idx": 0}, INDEX),
    "pointwise": ("Conv2d", (6, 10, 1), {}, (2, 6, 5, 4)),
    "3 x 3": ("Conv2d", (4, 10, 3), {"stride": 2, "padding": 1}, (2, 4, 7, 6)),
    "same": ("Conv2d", (4, 10, (3, 1)), {"padding": "same", "bias": False}, (1, 4, 5, 6)),
    "groups": ("Conv2d", (4, 10, 3), {"groups": 2}, (2, 4, 5, 4)),
    "1 dim": ("Conv1d", (4, 10, 3), {"padding": 1}, (2, 4, 9)),
    "3 dims": ("Conv3d", (4, 10, 2), {}, (1, 4, 3, 4, 3)),
}


class Ours(nn.Module):
    def __init__(self, kind: str, sizes: tuple[Any, ...], options: dict[str, Any]) -> None:
        super().__init__()
        self.layer = getattr(nn, kind)(*sizes, **options)

    def forward(self, x: te.Tensor) -> te.Tensor:
        return self.layer(x)


def theirs_of(kind: str, sizes: tuple[Any, ...], options: dict[str, Any], ours: nn.Module) -> Any:
    torch = pytest.importorskip("torch")

    class Theirs(torch.nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.layer = getattr(torch.nn, kind)(*sizes, **options)

        def forward(self, x: Any) -> Any:
            return self.layer(x)

    made = Theirs()
    made.load_state_dict({name: torch.tensor(value.numpy()) for name, value in ours.state_dict().items()})
    return made


def drawn(shape: Any, seed: int) -> Any:
    return shape if isinstance(shape, np.ndarray) else np.random.default_rng(seed).standard_normal(shape, np.float32)


def close(got: Any, wanted: Any) -> None:
    size = max(float(np.abs(wanted).max()), 1e-6)
    np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-5 * size)


def scattered(model: nn.Module) -> None:
    """Give the adapters values as if they had been trained."""
    with te.no_grad():
        for name, param in model.named_parameters():
            if "lora_magnitude" in name:
                param.mul_(te.rand(*param.shape) + 0.5)
            elif "lora_" in name:
                nn.init.normal_(param, 0.0, 0.5)


def pieces(gradients: dict[str, Any]) -> dict[str, Any]:
    """By the part of an adapter, in one shape."""
    found = {}
    for name, gradient in gradients.items():
        part = "A" if "_A" in name else "B" if "_B" in name else "magnitude"
        found[part] = gradient.reshape(-1) if part == "magnitude" else gradient
    return found


@pytest.mark.parametrize("rslora", [False, True], ids=("alpha / r", "rslora"))
@pytest.mark.parametrize("dora", [False, True], ids=("lora", "dora"))
@pytest.mark.parametrize("layer", LAYERS)
def test_an_adapter_is_pefts(layer: str, dora: bool, rslora: bool, tmp_path: Path, backend: Backend) -> None:
    torch, peft = pytest.importorskip("torch"), pytest.importorskip("peft")
    kind, sizes, options, shape = LAYERS[layer]
    if dora and options.get("groups"):
        pytest.skip("refused")
    te.manual_seed(1)
    base = Ours(kind, sizes, options)
    theirs = theirs_of(kind, sizes, options, base)
    model = adapt.lora(base, rank=2, alpha=3, targets=["layer"], dora=dora, use_rslora=rslora)
    scattered(model)
    adapt.save_adapter(model, tmp_path / "ours")
    loaded = peft.PeftModel.from_pretrained(theirs, tmp_path / "ours", is_trainable=True)
    for seed in range(2):  # gradients add up
        x, weight = drawn(shape, seed), None
        got, wanted = model(te.tensor(x)), loaded(torch.tensor(x))
        close(got.detach().numpy(), wanted.detach().numpy())
        weight = drawn(tuple(wanted.shape), seed + 10)
        (got * te.tensor(weight)).sum().backward()
        (wanted * torch.tensor(weight)).sum().backward()
    found = pieces({name: p.grad.numpy() for name, p in model.named_parameters() if p.requires_grad})
    right = pieces({name: p.grad.numpy() for name, p in loaded.named_parameters() if p.requires_grad})
    assert found.keys() == right.keys() == ({"A", "B", "magnitude"} if dora else {"A", "B"})
    for part, gradient in right.items():
        close(found[part], gradient)
    if not options.get("groups"):
        plain = model.layer.weight.detach().numpy().copy()
        adapt.merge(model)
        loaded.merge_adapter()
        close(model.layer.weight.detach().numpy(), loaded.base_model.model.layer.base_layer.weight.detach().numpy())
        close(model(te.tensor(x)).detach().numpy(), wanted.detach().numpy())
        adapt.unmerge(model)
        assert model.layer.weight.detach().numpy().tobytes() == plain.tobytes()


@pytest.mark.parametrize("dora", [False, True], ids=("lora", "dora"))
@pytest.mark.parametrize("layer", LAYERS)
def test_pefts_adapters_are_loaded_switched_and_added_up(
    layer: str, dora: bool, tmp_path: Path, backend: Backend
) -> None:
    torch, peft = pytest.importorskip("torch"), pytest.importorskip("peft")
    kind, sizes, options, shape = LAYERS[layer]
    if dora and options.get("groups"):
        pytest.skip("refused")
    torch.manual_seed(0)
    te.manual_seed(2)
    model = Ours(kind, sizes, options)
    configs = {
        name: peft.LoraConfig(
            r=rank, lora_alpha=5, target_modules=["layer"], use_dora=dora, use_rslora=rank == 4, init_lora_weights=False
        )
        for name, rank in (("one", 2), ("two", 4))
    }
    theirs = peft.get_peft_model(theirs_of(kind, sizes, options, model), configs["one"], adapter_name="one")
    theirs.add_adapter("two", configs["two"])
    with torch.no_grad():
        for name, param in theirs.named_parameters():
            if "lora_magnitude" in name:
                param.mul_(torch.rand_like(param) + 0.5)
    theirs.save_pretrained(tmp_path)
    for name in configs:
        adapt.load_adapter(model, tmp_path / name, name)
    x = drawn(shape, 0)
    for active in (["one"], ["two"], ["one", "two"], ["two"]):
        adapt.set_adapter(model, active)
        theirs.base_model.set_adapter(active)
        close(model(te.tensor(x)).detach().numpy(), theirs(torch.tensor(x)).detach().numpy())
    adapt.set_adapter(model, None)
    with theirs.disable_adapter():
        close(model(te.tensor(x)).detach().numpy(), theirs(torch.tensor(x)).detach().numpy())


@pytest.mark.parametrize("dora", [False, True], ids=("lora", "dora"))
@pytest.mark.parametrize("base", ["float32", "q8_0", "q4_1"])
@pytest.mark.parametrize("whole", [False, True], ids=("in parts", "one program"))
def test_a_decoder_is_trained_as_by_peft(base: str, dora: bool, whole: bool, tmp_path: Path, backend: Backend) -> None:
    """Three updates by minibatches of two answers, with clipping, checkpoints and replays, over what blocks hold."""
    torch, peft = pytest.importorskip("torch"), pytest.importorskip("peft")
    transformers = pytest.importorskip("transformers")
    te.manual_seed(1)
    model = te.models.llama(FAMILIES["llama"])
    with te.no_grad():
        for param in model.parameters():
            if param.ndim == 2:
                nn.init.normal_(param, 0.0, 0.2)
    if base != "float32":
        te.quantize(model, base)
    state = {name: torch.tensor(value.dequantize().numpy()) for name, value in model.state_dict().items()}
    theirs = transformers.LlamaForCausalLM(transformers.LlamaConfig(**FAMILIES["llama"]))
    theirs.load_state_dict(state)
    targets = ["q_proj", "v_proj", "down_proj"]
    adapt.lora(model, rank=4, alpha=8, targets=targets, use_rslora=True, dora=dora)
    scattered(model)
    adapt.save_adapter(model, tmp_path)
    loaded = peft.PeftModel.from_pretrained(theirs, tmp_path, is_trainable=True)
    model.train().gradient_checkpointing_enable()
    trained = {name: param for name, param in model.named_parameters() if param.requires_grad}
    optimizer = te.optim.AdamW(trained.values(), lr=0.01, accumulate=2, nonfinite="skip")
    params = [param for param in loaded.parameters() if param.requires_grad]
    their_optimizer = torch.optim.AdamW(params, lr=0.01)

    def update(is_last: bool) -> None:
        if is_last:
            nn.utils.clip_grad_norm_(trained.values(), 2 * 0.5)  # gradients are sums of two
        optimizer.step()

    def sample(ids: te.Tensor, labels: te.Tensor, is_last: bool) -> te.Tensor:
        loss = model.loss(ids, labels)
        loss.backward()
        if whole:
            update(is_last)
        return loss

    run = te.compile(sample)
    random = np.random.default_rng(0)
    for _ in range(3):
        for is_last in (False, True):
            ids = random.integers(0, 61, (1, 12))
            labels = np.where(np.arange(12) < 5, -100, ids)
            loss = run(te.tensor(ids), te.tensor(labels), is_last)
            if not whole:
                update(is_last)
            wanted = loaded(input_ids=torch.tensor(ids), labels=torch.tensor(labels)).loss
            (wanted / 2).backward()
            np.testing.assert_allclose(loss.item(), wanted.item(), rtol=1e-4)
        torch.nn.utils.clip_grad_norm_(params, 0.5)
        their_optimizer.step()
        their_optimizer.zero_grad()
    assert optimizer.skipped == 0
    adapt.save_adapter(model, tmp_path / "after")
    mine = te.load(tmp_path / "after" / "adapter_model.safetensors", device="numpy")
    right = peft.get_peft_model_state_dict(loaded)
    assert mine.keys() == right.keys()
    for name, value in right.items():
        np.testing.assert_allclose(mine[name].numpy(), value.detach().numpy(), rtol=1e-3, atol=2e-4, err_msg=name)
