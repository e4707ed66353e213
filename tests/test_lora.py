"""LoRA: what is trained, what stays, merging to the bit, and PEFT's files."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tinyedge as te
import tinyedge.nn.functional as F
from tinyedge import adapt, nn
from tinyedge.adapt.lora import LoraLayer
from tinyedge.backends import Backend
from tinyedge.tensor import Tensor


class Net(nn.Module):
    """A layer of each kind that can be adapted."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(11, 8)
        self.conv = nn.Conv2d(1, 6, 3, stride=2, padding=1)
        self.point = nn.Conv2d(6, 4, 1, groups=2)
        self.proj = nn.Linear(8, 16, bias=False)
        self.head = nn.Linear(16, 3)

    def forward(self, index: Tensor) -> Tensor:
        x = self.words(index).reshape(1, 1, 8, 8)
        x = self.point(F.relu(self.conv(x))).reshape(8, 8)
        return self.head(F.relu(self.proj(x))).mean(0, keepdim=True)


def make(seed: int = 0) -> Net:
    te.manual_seed(seed)
    return Net()


INDEX = [0, 3, 5, 7, 10, 2, 2, 9]
ALL = ["words", "conv", "point", "proj", "head"]


def trained_names(model: nn.Module) -> list[str]:
    return [name for name, param in model.named_parameters() if param.requires_grad]


def train(model: nn.Module, steps: int = 4, **options: Any) -> list[float]:
    optimizer = te.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.05, **options)
    losses = []
    for _ in range(steps):
        loss = F.cross_entropy(model(te.tensor(INDEX)), te.tensor([1]))
        loss.backward()
        losses.append(loss.item())
        optimizer.step()
        if not options:
            optimizer.zero_grad()
    return losses


@pytest.mark.parametrize("dora", [False, True], ids=("lora", "dora"))
def test_it_begins_as_the_model_and_trains_adapters_alone(backend: Backend, dora: bool) -> None:
    model = make()
    before = {name: value.numpy() for name, value in model.state_dict().items()}
    plain = model(te.tensor(INDEX)).tolist()
    targets = [name for name in ALL if name != "point"] if dora else ALL
    adapt.lora(model, rank=2, targets=targets, dora=dora)
    np.testing.assert_allclose(model(te.tensor(INDEX)).tolist(), plain, rtol=1e-5, atol=1e-6)
    names = trained_names(model)
    assert len(names) == (3 if dora else 2) * len(targets)
    assert all(".lora_" in name for name in names)
    start = {name: param.numpy() for name, param in ((n, p.detach()) for n, p in model.named_parameters())}
    losses = train(model, 6)
    assert losses[-1] < losses[0]
    for name, param in model.named_parameters():
        moved = not np.array_equal(param.detach().numpy(), start[name])
        assert moved is (name in names), name
    kept = {name.replace(".base_layer", ""): value.numpy() for name, value in model.state_dict().items()}
    for name, value in before.items():
        np.testing.assert_array_equal(kept[name], value)


@pytest.mark.parametrize("compiled", [False, True], ids=("eager", "compiled"))
def test_accumulated_samples_train_it(backend: Backend, compiled: bool) -> None:
    """The field's silent fault: an adapter whose B stays zero when gradients are accumulated."""
    model = make()
    adapt.lora(model, rank=2, targets=["proj", "conv"])
    optimizer = te.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.5, accumulate=2)

    def sample(index: Tensor) -> Tensor:
        loss = F.cross_entropy(model(index), te.tensor([1]))
        loss.backward()
        return loss

    call = te.compile(sample) if compiled else sample
    for _ in range(6):
        call(te.tensor(INDEX))
        optimizer.step()
    for name, param in model.named_parameters():
        if "lora_B" in name:
            assert np.abs(param.detach().numpy()).max() > 0, name


def test_compiled_gradients_are_the_eager_ones(backend: Backend) -> None:
    eager = adapt.lora(make(), rank=3, targets=["words", "conv", "proj"])
    train(eager, 2)
    fast_model = copy.deepcopy(eager)
    fast: Any = te.compile(fast_model)
    for model, call in ((eager, eager), (fast_model, fast)):
        for _ in range(2):
            F.cross_entropy(call(te.tensor(INDEX)), te.tensor([2])).backward()
        assert model
    for (name, p), (_, q) in zip(eager.named_parameters(), fast_model.named_parameters(), strict=True):
        if p.requires_grad:
            assert p.grad is not None
            assert q.grad is not None
            np.testing.assert_allclose(q.grad.numpy(), p.grad.numpy(), rtol=1e-4, atol=1e-6, err_msg=name)
        else:
            assert p.grad is q.grad is None


@pytest.mark.parametrize("targets", [["words"], ["conv"], ["proj", "head"]], ids=("embedding", "conv", "linear"))
def test_merged_is_the_sum_and_unmerged_the_original(backend: Backend, targets: list[str]) -> None:
    model = adapt.lora(make(), rank=2, targets=targets)
    train(model, 3)
    weights = {name: value.numpy() for name, value in model.state_dict().items()}
    with_adapter = model(te.tensor(INDEX)).tolist()
    adapt.merge(model)
    np.testing.assert_allclose(model(te.tensor(INDEX)).tolist(), with_adapter, rtol=1e-4, atol=1e-5)
    merged = copy.deepcopy(model)
    adapt.unmerge(model)
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), weights[name])
    assert model(te.tensor(INDEX)).tolist() == with_adapter
    adapt.unload(merged)
    assert list(merged.state_dict()) == list(make().state_dict())
    np.testing.assert_allclose(merged(te.tensor(INDEX)).tolist(), with_adapter, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kinds", [(True,), (True, True), (False, True), (True, False, True)], ids=str)
def test_dora_merges(backend: Backend, kinds: tuple[bool, ...]) -> None:
    """Several, with plain ones between them, too: what is merged is what they compute beside the layer."""
    model = make()
    for number, dora in enumerate(kinds):
        adapt.lora(model, rank=2, targets=["words", "conv", "proj"], dora=dora, name=f"a{number}")
        train(model, 4)
    adapt.set_adapter(model, [f"a{number}" for number in range(len(kinds))])
    weights = {name: value.numpy() for name, value in model.state_dict().items()}
    with_adapter = model(te.tensor(INDEX)).tolist()
    adapt.merge(model)
    np.testing.assert_allclose(model(te.tensor(INDEX)).tolist(), with_adapter, rtol=1e-4, atol=1e-5)
    adapt.unmerge(model)
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), weights[name])


@pytest.mark.parametrize("base", ["float32", "q8_0", "bfloat16"])
def test_dora_with_dropout_that_drops_nothing(backend: Backend, base: str) -> None:
    """Then the layer's product is computed of what is left, instead of taken from its result: the sum is the same."""
    found = []
    for dropout in (0.0, 1e-12):
        te.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(32, 8, 1), nn.Flatten(), nn.Linear(32, 4, bias=False))
        if base == "bfloat16":
            model.to(te.bfloat16)
        elif base != "float32":
            te.quantize(model, base)
        adapt.lora(model, rank=2, dropout=dropout, targets=["0", "2"], dora=True, use_rslora=True)
        assert "rank=2, alpha=16 (rslora, dora)" in repr(model)
        with te.no_grad():
            for name, param in model.named_parameters():
                if "lora_magnitude" in name:
                    param.mul_(1.5)
                elif "lora_B" in name:
                    nn.init.normal_(param)
        y = model.train()(te.full((2, 32, 2, 2), 0.5, dtype=te.bfloat16 if base == "bfloat16" else te.float32))
        y.float().square().sum().backward()
        found.append([y.float(), *(p.grad for p in model.parameters() if p.grad is not None)])
    assert len(found[0]) == 7
    for got, wanted in zip(*found, strict=True):
        size = float(wanted.detach().abs().max().item())
        rounding = 3e-2 if base == "bfloat16" else 1e-4
        np.testing.assert_allclose(got.detach().numpy(), wanted.detach().numpy(), rtol=rounding, atol=rounding * size)


def test_dropout_leaves_indices_alone(backend: Backend) -> None:
    model = adapt.lora(make(), rank=2, dropout=0.5, targets=["words"])
    losses = train(model.train(), 6)
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("mode", ["zeros", "reflect", "circular", "same"])
def test_a_convolutions_adapter_pads_as_it_does(backend: Backend, mode: str) -> None:
    te.manual_seed(0)
    options: dict[str, Any] = {"padding": "same"} if mode == "same" else {"padding": 2, "padding_mode": mode}
    model = nn.Sequential(nn.Conv2d(2, 3, 3, dilation=2, **options))
    adapt.lora(model, rank=2, targets=["0"])
    with te.no_grad():
        nn.init.normal_(model[0].lora_B["default"])
    x = te.randn(1, 2, 6, 6)
    beside = model(x).detach().numpy()
    adapt.merge(model)
    np.testing.assert_allclose(model(x).detach().numpy(), beside, rtol=1e-4, atol=1e-5)


def test_what_stands_for_nothing_gets_no_gradient(backend: Backend) -> None:
    """As of the table itself: nothing is learnt for padding_idx."""
    model = adapt.lora(nn.Sequential(nn.Embedding(5, 4, padding_idx=2)), rank=2, targets=["0"])
    model(te.tensor([0, 2, 3])).square().sum().backward()
    columns = np.abs(model[0].lora_A["default"].grad.numpy()).sum(0)
    assert columns.tolist()[2] == 0
    assert columns[0] > 0


def test_several_adapters(backend: Backend) -> None:
    model = make()
    plain = model(te.tensor(INDEX)).tolist()
    adapt.lora(model, rank=2, targets=["proj"], name="a")
    train(model)
    first = model(te.tensor(INDEX)).tolist()
    adapt.lora(model, rank=4, targets=["proj", "conv"], name="b", use_rslora=True)
    assert all(name.endswith(".b") for name in trained_names(model))
    train(model)
    second = model(te.tensor(INDEX)).tolist()
    adapt.set_adapter(model, "a")
    assert model(te.tensor(INDEX)).tolist() == first
    adapt.set_adapter(model, None)
    assert model(te.tensor(INDEX)).tolist() == plain
    adapt.set_adapter(model, "b")
    assert model(te.tensor(INDEX)).tolist() == second
    adapt.set_adapter(model, ["a", "b"])
    assert model(te.tensor(INDEX)).tolist() not in (first, second)


def test_a_compiled_model_notices_another_adapter(backend: Backend) -> None:
    model = adapt.lora(make(), rank=2, targets=["proj"])
    train(model)
    fast: Any = te.compile(model)
    x = te.tensor(INDEX)
    with te.no_grad():
        for _ in range(3):
            with_adapter = fast(x).tolist()
        adapt.set_adapter(model, None)
        assert fast(x).tolist() == model(x).tolist() != with_adapter
        adapt.set_adapter(model, "default")
        adapt.merge(model)
        np.testing.assert_allclose(fast(x).tolist(), with_adapter, rtol=1e-4, atol=1e-5)


def test_targets(backend: Backend) -> None:
    def wrapped(model: nn.Module) -> list[str]:
        return [path for path, module in model.named_modules() if isinstance(module, adapt.LoraLayer)]

    assert wrapped(adapt.lora(make(), rank=2)) == ["proj"]  # all Linear layers but the head
    assert wrapped(adapt.lora(make(), rank=2, targets="(conv|head)")) == ["conv", "head"]
    nested = nn.Sequential(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), nn.Linear(2, 2))
    assert wrapped(adapt.lora(nested, rank=1, targets=["1"])) == ["0.1", "1"]
    head = adapt.lora(make(), rank=2, targets=["proj"], train_too=["head"])
    assert trained_names(head)[-2:] == ["head.weight", "head.bias"]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"targets": ["project"]}, "Near ones: proj"),
        ({"targets": "nothing.*"}, "matches none"),
        ({"rank": 9, "targets": ["proj"]}, r"a rank in \[1, 8\]"),
        ({"rank": 0}, r"a rank in \[1"),
        ({"rank": 2.0}, "an int for rank"),
        ({"rank": 3, "targets": ["point"]}, "groups"),
        ({"rank": 2, "targets": ["conv", "point"], "dora": True}, "dora for convolutions of one group"),
        ({"rank": 2, "name": "a.b"}, "without dots"),
        ({"rank": 2, "train_too": ["tail"]}, "there is no 'tail'"),
        ({"rank": 2, "dropout": 1.0}, "dropout"),
        ({"rank": 2, "dropout": "0.1"}, "dropout"),
        ({"rank": 2, "alpha": 0}, "trains nothing"),
        ({"rank": 2, "alpha": "16"}, "finite alpha"),
        ({"rank": 2, "name": 3}, "without dots"),
        ({"rank": 2, "targets": "(proj"}, "a regular expression"),
        ({"rank": 2, "targets": [0]}, "names of layers"),
        ({"rank": 2, "targets": None}, "names of layers"),
    ],
)
def test_what_cannot_be_is_refused_and_changes_nothing(backend: Backend, options: dict[str, Any], text: str) -> None:
    model = make()
    shown, flags = repr(model), trained_names(model)
    with pytest.raises(te.errors.ArgumentError, match=text):
        adapt.lora(model, **options)
    assert repr(model) == shown
    assert trained_names(model) == flags


def test_nothing_is_added_beside_what_is_merged(reference: Backend, tmp_path: Path) -> None:
    """Also to other layers: which adapters are active could not be said any more."""
    model = adapt.lora(make(), rank=2, targets=["proj"])
    adapt.save_adapter(adapt.lora(make(), rank=2, targets=["head"]), tmp_path)
    adapt.merge(model)
    shown, flags = repr(model), trained_names(model)
    for add in (
        lambda: adapt.lora(model, rank=2, targets=["head"], name="second"),
        lambda: adapt.load_adapter(model, tmp_path, "second"),
    ):
        with pytest.raises(te.errors.ArgumentError, match="not merged, but 'proj' has one"):
            add()
        assert (repr(model), trained_names(model)) == (shown, flags)


def test_merging_is_refused_where_it_is_not_exact(backend: Backend) -> None:
    model = adapt.lora(make(), rank=2, targets=["proj", "point"])
    with pytest.raises(te.errors.ArgumentError, match="one group"):
        adapt.merge(model)
    assert not any(layer.merged for layer in model.modules() if isinstance(layer, adapt.LoraLayer))
    with pytest.raises(te.errors.ArgumentError, match="got 'other'"):
        adapt.set_adapter(model, "other")
    with pytest.raises(te.errors.ArgumentError, match="another name"):
        adapt.lora(model, rank=2, targets=["proj"])


# Files


@pytest.mark.parametrize("dora", [False, True], ids=("lora", "dora"))
def test_an_adapter_comes_back(backend: Backend, tmp_path: Path, dora: bool) -> None:
    targets = ["words", "conv", "proj"] if dora else ["words", "conv", "point", "proj"]
    model = adapt.lora(make(), rank=2, alpha=3.5, targets=targets, dora=dora, train_too=["head"], use_rslora=True)
    train(model)
    wanted = model(te.tensor(INDEX)).tolist()
    adapt.save_adapter(model, tmp_path / "out", train_too=("head",))
    content = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert content["target_modules"] == sorted(targets)
    assert content["r"] == 2
    other = adapt.load_adapter(make(), tmp_path / "out", "mine")
    assert other(te.tensor(INDEX)).tolist() == wanted
    keys = set(te.load(tmp_path / "out" / "adapter_model.safetensors"))
    assert "base_model.model.proj.lora_A.weight" in keys
    assert "base_model.model.head.bias" in keys
    assert ("base_model.model.proj.lora_magnitude_vector" in keys) is dora


def test_an_adapter_of_another_model_is_refused(backend: Backend, tmp_path: Path) -> None:
    model = adapt.lora(make(), rank=2, targets=["proj", "conv"])
    adapt.save_adapter(model, tmp_path / "out")
    tensors = te.load(tmp_path / "out" / "adapter_model.safetensors", device="numpy")
    a, b = "base_model.model.proj.lora_A.weight", "base_model.model.proj.lora_B.weight"
    for change, text in (
        ({a: te.zeros(2, 9, device="numpy")}, "of shape"),
        ({b: te.zeros(16, 3, device="numpy")}, "of shape"),
        ({a: te.tensor(1.0, device="numpy")}, "of shape"),
        ({b: None}, "lacks B"),
        ({a: None}, "there is none for"),
        ({"base_model.model.tail.lora_A.weight": te.zeros(2, 2)}, "no layer 'tail'"),
        ({"other.lora_A.weight": te.zeros(2, 2)}, "begin with"),
        ({"base_model.model.head.bias": te.zeros(4)}, "head.bias of shape"),
        ({"base_model.model.tail.bias": te.zeros(4)}, "no 'tail.bias'"),
    ):
        te.save(
            {k: v for k, v in {**tensors, **change}.items() if v is not None},
            tmp_path / "out" / "adapter_model.safetensors",
        )
        target = make()
        shown = repr(target)
        with pytest.raises(te.errors.StateDictError, match=text):
            adapt.load_adapter(target, tmp_path / "out")
        assert repr(target) == shown
    config = tmp_path / "out" / "adapter_config.json"
    for content, text in (
        ("{", "JSON"),
        ("[]", "no object"),
        ('{"peft_type": "IA3"}', "peft_type"),
        ('{"bias": "all"}', "bias"),
        ("[" * 100_000, "JSON"),
        ('{"alpha_pattern": [1]}', "alpha_pattern"),
        ('{"alpha_pattern": {"a": "1"}}', "alpha_pattern"),
        ('{"lora_alpha": NaN}', "lora_alpha"),
        ('{"lora_alpha": 1%s}' % ("0" * 400), "lora_alpha"),
        ('{"lora_dropout": 1.0}', "lora_dropout"),
        ('{"alora_invocation_tokens": [1]}', "alora_invocation_tokens"),
        ('{"target_parameters": ["a"]}', "target_parameters"),
        ('{"r": "2"}', "whole numbers for r"),
        ('{"rank_pattern": {"a": 0.5}}', "whole numbers for r"),
    ):
        config.write_text(content)
        with pytest.raises(te.errors.ModelFormatError, match=text):
            adapt.load_adapter(make(), tmp_path / "out")
    adapt.save_adapter(adapt.lora(make(), rank=2, targets=["proj", "conv"], dora=True), tmp_path / "out")
    stated = json.loads(config.read_text())
    for change, text in (
        ({"r": 3}, "lora_A.weight of rank 3, as adapter_config.json"),
        ({"rank_pattern": {"conv": 4}}, r"conv\.lora_A\.weight of rank 4"),
        ({"use_dora": False}, "lengths"),
    ):
        config.write_text(json.dumps({**stated, **change}))
        with pytest.raises(te.errors.StateDictError, match=text):
            adapt.load_adapter(make(), tmp_path / "out")


def test_an_adapter_of_other_weights_is_refused(backend: Backend, tmp_path: Path) -> None:
    """Also of a model of the same shapes; the type in which the same values are stored does not matter."""
    model = adapt.lora(make(), rank=2, targets=["proj"])
    train(model)
    adapt.save_adapter(model, tmp_path / "out")
    other = make(seed=1)
    shown, before = repr(other), {name: value.numpy() for name, value in other.state_dict().items()}
    with pytest.raises(te.errors.StateDictError, match=r"sha256 \w+, but those of its layers have .* check_base=False"):
        adapt.load_adapter(other, tmp_path / "out")
    assert repr(other) == shown
    assert all((value.numpy() == before[name]).all() for name, value in other.state_dict().items())
    adapt.load_adapter(other, tmp_path / "out", check_base=False)
    adapt.merge(model)
    adapt.save_adapter(model, tmp_path / "merged")  # what is merged is not the base
    for name in ("out", "merged"):
        adapt.load_adapter(make(), tmp_path / name)
    same = make()
    same.head.weight.data = same.head.weight.detach() * 2  # a layer without an adapter
    adapt.load_adapter(same, tmp_path / "out")


def test_an_adapter_on_blocks_fits_their_values(backend: Backend, tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(32, 8), nn.Linear(8, 2))
    plain = copy.deepcopy(model)
    te.quantize(model, "q8_0", targets=["0"])
    adapt.save_adapter(adapt.lora(model, rank=2, targets=["0"]), tmp_path / "out")
    with pytest.raises(te.errors.StateDictError, match="sha256"):
        adapt.load_adapter(plain, tmp_path / "out")
    again = te.adapt.dequantize(copy.deepcopy(adapt.unload(model)))
    assert again[0].weight.dtype is te.float32
    adapt.load_adapter(again, tmp_path / "out")


def test_adapters_on_a_base_in_16_bits(backend: Backend) -> None:
    """The base takes half of the memory; adapters, their gradients and state are float32."""
    model = make().to(te.bfloat16)
    adapt.lora(model, rank=2, targets=["proj", "head"])
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {te.float32}
    losses = train(model, 8)
    assert losses[-1] < losses[0]


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore::UserWarning")  # PEFT warns of groups
@pytest.mark.parametrize("dora", [False, True], ids=("lora", "dora"))
def test_peft_loads_ours_and_we_load_its(tmp_path: Path, reference: Backend, dora: bool) -> None:
    torch, peft = pytest.importorskip("torch"), pytest.importorskip("peft")

    class Twin(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.words = torch.nn.Embedding(11, 8)
            self.conv = torch.nn.Conv2d(1, 6, 3, stride=2, padding=1)
            self.point = torch.nn.Conv2d(6, 4, 1, groups=2)
            self.proj = torch.nn.Linear(8, 16, bias=False)
            self.head = torch.nn.Linear(16, 3)

        forward = Net.forward

    def twin(of: Net) -> Any:
        made = Twin()
        made.load_state_dict({name: torch.tensor(value.numpy()) for name, value in of.state_dict().items()})
        return made

    def relu(x: Any) -> Any:
        return te.relu(x) if isinstance(x, Tensor) else torch.relu(x)

    targets = ["proj", "head"] if dora else ALL
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(F, "relu", relu)
        model, base = make(), twin(make())
        adapt.lora(model, rank=2, alpha=6, targets=targets, dora=dora)
        train(model)
        adapt.save_adapter(model, tmp_path / "ours")
        theirs = peft.PeftModel.from_pretrained(base, tmp_path / "ours", is_trainable=True)
        got = theirs(torch.tensor(INDEX))
        wanted = model(te.tensor(INDEX))
        np.testing.assert_allclose(got.detach().numpy(), wanted.detach().numpy(), rtol=1e-4, atol=1e-6)
        torch.nn.functional.cross_entropy(got, torch.tensor([1])).backward()
        F.cross_entropy(wanted, te.tensor([1])).backward()
        pairs = zip(
            [p.grad.numpy() for n, p in sorted(theirs.named_parameters()) if p.grad is not None],
            [p.grad.numpy() for n, p in sorted(model.named_parameters()) if p.grad is not None],
            strict=True,
        )
        for a, b in pairs:
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)

        names = targets[:1] if dora else targets[:-1]
        config = peft.LoraConfig(
            r=2, lora_alpha=5, target_modules=names, use_dora=dora, use_rslora=True, init_lora_weights=False
        )
        made = peft.get_peft_model(twin(make()), config)
        made.save_pretrained(tmp_path / "theirs")
        loaded = adapt.load_adapter(make(), tmp_path / "theirs")
        np.testing.assert_allclose(
            loaded(te.tensor(INDEX)).detach().numpy(), made(torch.tensor(INDEX)).detach().numpy(), rtol=1e-4, atol=1e-6
        )


class Attending(nn.Module):
    """PyTorch's attention and layers of transformers, which hand weights of their parts on."""

    def __init__(self, bias: bool) -> None:
        super().__init__()
        options: Any = {"batch_first": True, "dropout": 0.0, "bias": bias}
        self.attention = nn.MultiheadAttention(8, 2, **options)
        self.encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, **options), 1)
        self.decoder = nn.TransformerDecoderLayer(8, 2, 16, **options)

    def forward(self, x: te.Tensor) -> te.Tensor:
        y: te.Tensor = self.decoder(self.encoder(x), self.attention(x, x, x)[0])
        return y


LLAMA = {"vocab_size": 12, "hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1,
         "num_attention_heads": 2}  # fmt: skip
SHIPPED: dict[str, tuple[Any, Any]] = {
    "mha": (lambda: Attending(True), lambda model: model(te.randn(1, 3, 8))),
    "mha without bias": (lambda: Attending(False), lambda model: model(te.randn(1, 3, 8))),
    "transformer": (lambda: te.models.transformer(12, 8, 1, 2, 6), lambda model: model(te.tensor([[1, 5, 2]]))),
    "llama": (lambda: te.models.llama(LLAMA), lambda model: model.loss(*[te.tensor([[1, 5, 2]])] * 2)),
    "llama, tied": (
        lambda: te.models.llama({**LLAMA, "tie_word_embeddings": True}),
        lambda model: model.loss(*[te.tensor([[1, 5, 2]])] * 2),
    ),
    "bert": (lambda: te.models.bert(LLAMA), lambda model: model.embed(te.tensor([[1, 5, 2]]), pooling="pooler")),
}


@pytest.mark.parametrize("base", ["float32", "int8"])
@pytest.mark.parametrize("name", SHIPPED)
def test_no_layer_is_passed_by(reference: Backend, name: str, base: str) -> None:
    """A model that reads the weight of a layer, and does not call it, would leave an adapter untrained, silently."""
    te.manual_seed(0)
    make, call = SHIPPED[name]
    model = make()
    for path in te.adapt.adaptable(model):
        te.adapt.lora(model, rank=1, targets=[path], name=path.replace(".", "-"))
    for layer in model.modules():
        if isinstance(layer, LoraLayer):
            layer.active = tuple(layer.configs)
            for param in (*layer.lora_A.values(), *layer.lora_B.values()):
                nn.init.normal_(param.requires_grad_())
    if base != "float32":
        te.quantize(model, base)
    y = call(model)
    (y * te.randn_like(y)).sum().backward()  # the squares of a layer norm's result always add up to the same
    adapters = {path: param for path, param in model.named_parameters() if ".lora_" in path}
    assert len(adapters) == 2 * len(te.adapt.adaptable(model))
    still = [path for path, param in adapters.items() if param.grad is None or not param.grad.abs().sum().item()]
    assert not still
