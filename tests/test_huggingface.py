"""Folders of config.json and safetensors files: what they give, and what is refused; the encoder that they hold."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tinyedge as te
from tests.llama_configs import BASE, FAMILIES
from tinyedge.backends import Backend
from tinyedge.errors import ArgumentError, ModelFormatError, ShapeError, UnsupportedOpError

INDEX = "model.safetensors.index.json"
ENCODER = {"model_type": "bert", "vocab_size": 20, "hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 3,
           "intermediate_size": 16, "max_position_embeddings": 9}  # fmt: skip


def write(folder: Path, config: Any, state: dict[str, Any]) -> None:
    (folder / "config.json").write_text(json.dumps(config))
    te.save(state, folder / "model.safetensors")


def decoder(folder: Path, family: str = "llama") -> te.models.Llama:
    te.manual_seed(1)
    model = te.models.llama(FAMILIES[family])
    write(folder, FAMILIES[family], {name: model.get_parameter(name) for name in model.config.shapes()})
    return model


def divide(folder: Path) -> dict[str, Any]:
    """The folder's one file as two; returns the index."""
    state = te.load(folder / "model.safetensors")
    names = list(state)
    files = {"a-1.safetensors": names[::2], "a-2.safetensors": names[1::2]}
    for file, part in files.items():
        te.save({name: state[name] for name in part}, folder / file)
    (folder / "model.safetensors").unlink()
    index = {"metadata": {}, "weight_map": {name: file for file, part in files.items() for name in part}}
    (folder / INDEX).write_text(json.dumps(index))
    return index


@pytest.mark.parametrize("divided", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_decoders_folder(family: str, divided: bool, tmp_path: Path, backend: Backend) -> None:
    model = decoder(tmp_path, family)
    if divided:
        divide(tmp_path)
    loaded = te.load_model(tmp_path)
    assert isinstance(loaded, te.models.Llama)
    assert not loaded.training
    assert loaded.model.norm.weight.backend is backend
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(loaded.state_dict()[name].numpy(), value.numpy())


def test_dtypes(tmp_path: Path, reference: Backend) -> None:
    decoder(tmp_path)
    state = {name: value.bfloat16() for name, value in te.load(tmp_path / "model.safetensors").items()}
    te.save(state, tmp_path / "model.safetensors")
    assert te.convert.from_pretrained(tmp_path).lm_head.weight.dtype is te.bfloat16
    loaded = te.convert.from_pretrained(tmp_path, dtype="float32")
    assert loaded.lm_head.weight.dtype is te.float32
    np.testing.assert_array_equal(loaded.lm_head.weight.detach().numpy(), state["lm_head.weight"].float().numpy())
    with pytest.raises(ArgumentError, match="floating-point"):
        te.convert.from_pretrained(tmp_path, dtype="int8")


def test_old_buffers_and_a_tied_head_are_passed_over(tmp_path: Path, reference: Backend) -> None:
    model = decoder(tmp_path, "qwen2")
    state = te.load(tmp_path / "model.safetensors")
    state["model.layers.0.self_attn.rotary_emb.inv_freq"] = te.zeros(4)
    state["lm_head.weight"] = state["model.embed_tokens.weight"]
    te.save(state, tmp_path / "model.safetensors")
    loaded = te.load_model(tmp_path)
    np.testing.assert_array_equal(loaded.lm_head.weight.detach().numpy(), model.lm_head.weight.detach().numpy())


def changed(**changes: Any) -> dict[str, Any]:
    return {**FAMILIES["llama"], **changes}


CONFIGS = {
    "no JSON": ("{", ModelFormatError, "no JSON"),
    "deep": ("[" * 100_000, ModelFormatError, "no JSON"),
    "a list": ("[]", ModelFormatError, "no object"),
    "no text": (b"\xff\xfe\xff", ModelFormatError, "no JSON"),
    "another model": (json.dumps({"model_type": "gemma3"}), UnsupportedOpError, "gemma3"),
    "no model_type": (json.dumps(BASE), UnsupportedOpError, "model_type"),
    "a size of text": (json.dumps(changed(hidden_size="x")), ModelFormatError, "hidden_size"),
    "many layers": (json.dumps(changed(num_hidden_layers=2**31 - 1)), ModelFormatError, "layers"),
    "one layer more": (json.dumps(changed(num_hidden_layers=3)), ModelFormatError, "without"),
    "one layer less": (json.dumps(changed(num_hidden_layers=1)), ModelFormatError, "unknown"),
    "a wider model": (json.dumps(changed(hidden_size=2**30, head_dim=4)), ModelFormatError, "by the configuration"),
    "a scaling of text": (json.dumps(changed(rope_scaling="x")), ModelFormatError, "config.json"),
    "a factor of text": (
        json.dumps(changed(rope_scaling={"rope_type": "linear", "factor": "x"})), ModelFormatError, "config.json"
    ),
    "layers of text": (json.dumps(changed(no_rope_layers="xy", model_type="smollm3")), ModelFormatError, "no_rope"),
    "many layers with an interval": (
        json.dumps(changed(num_hidden_layers=2**31 - 1, model_type="smollm3")), ModelFormatError, "num_hidden_layers"
    ),
    "ties of text": (json.dumps(changed(tie_word_embeddings="no")), ModelFormatError, "tie_word_embeddings"),
}  # fmt: skip


@pytest.mark.parametrize(("content", "error", "words"), CONFIGS.values(), ids=CONFIGS)
def test_configurations_that_do_not_fit(
    content: str | bytes, error: type[Exception], words: str, tmp_path: Path, reference: Backend
) -> None:
    decoder(tmp_path)
    (tmp_path / "config.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(error, match=words):
        te.load_model(tmp_path)


def outside(index: dict[str, Any], name: str) -> dict[str, Any]:
    first = next(iter(index["weight_map"]))
    return {"weight_map": {**index["weight_map"], first: name}}


INDICES = {
    "a folder above": lambda index: outside(index, "../a-1.safetensors"),
    "a whole path": lambda index: outside(index, "/etc/passwd"),
    "another kind of file": lambda index: outside(index, "a.bin"),
    "a number": lambda index: outside(index, 3),  # type: ignore[arg-type]
    "the other file": lambda index: outside(index, "a-2.safetensors"),
    "a name more": lambda index: {"weight_map": {**index["weight_map"], "new": "a-1.safetensors"}},
    "no map": lambda index: {"weight_map": []},
    "many files": lambda index: {"weight_map": {str(n): f"{n}.safetensors" for n in range(5000)}},
}


@pytest.mark.parametrize("change", INDICES.values(), ids=INDICES)
def test_indices_that_are_wrong(change: Any, tmp_path: Path, reference: Backend) -> None:
    decoder(tmp_path)
    (tmp_path / INDEX).write_text(json.dumps(change(divide(tmp_path))))
    with pytest.raises(ModelFormatError):
        te.load_model(tmp_path)


def test_links_out_of_the_folder(tmp_path: Path, reference: Backend) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    decoder(folder)
    divide(folder)
    (folder / "a-1.safetensors").rename(tmp_path / "a-1.safetensors")
    os.symlink(tmp_path / "a-1.safetensors", folder / "a-1.safetensors")
    with pytest.raises(ModelFormatError, match="out of the folder"):
        te.load_model(folder)


def test_weights_that_are_damaged_or_missing(tmp_path: Path, reference: Backend) -> None:
    decoder(tmp_path)
    path = tmp_path / "model.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[:-5])
    with pytest.raises(ModelFormatError, match=r"model\.safetensors"):
        te.load_model(tmp_path)
    path.unlink()
    with pytest.raises(FileNotFoundError):
        te.load_model(tmp_path)


# Encoders


def encoder() -> te.models.Bert:
    te.manual_seed(2)
    model = te.models.bert(ENCODER)
    for param in model.parameters():
        te.nn.init.normal_(param, 0.0, 0.5)
    return model.eval()


@pytest.mark.parametrize("prefix", ["", "bert."])
@pytest.mark.parametrize("pooler", [False, True])
def test_an_encoders_folder(prefix: str, pooler: bool, tmp_path: Path, backend: Backend) -> None:
    model = encoder()
    names = model.config.shapes(pooler)
    state = {prefix + name: model.get_parameter(name) for name in names}
    state[prefix + "embeddings.position_ids"] = te.zeros(9).long()
    write(tmp_path, ENCODER, state | ({"cls.predictions.bias": te.zeros(20)} if prefix else {}))
    loaded = te.load_model(tmp_path)
    assert isinstance(loaded, te.models.Bert)
    assert (loaded.pooler is None) == (not pooler)
    ids = te.tensor([[1, 4, 2]])
    with te.no_grad():
        np.testing.assert_array_equal(loaded(ids).numpy(), model(ids).numpy())


def test_what_is_masked_changes_nothing(backend: Backend) -> None:
    model = encoder()
    assert {name: param.shape for name, param in model.named_parameters()} == model.config.shapes()
    short = te.tensor([[1, 4, 2]])
    long, mask = te.tensor([[1, 4, 2, 7, 7]]), te.tensor([[1, 1, 1, 0, 0]])
    with te.no_grad():
        for pooling in ("mean", "max", "cls", "pooler"):
            a = model.embed(short, pooling=pooling).numpy()
            b = model.embed(long, mask, pooling=pooling).numpy()
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5, err_msg=pooling)
        c = model.embed(long, mask, normalize=True).numpy()
    np.testing.assert_allclose(np.linalg.norm(c, axis=-1), 1.0, rtol=1e-5)


def test_an_encoder_is_trained(backend: Backend) -> None:
    model = encoder().train()
    ids, kinds = te.tensor([[1, 4, 2], [3, 3, 0]]), te.tensor([[0, 0, 1], [0, 1, 1]])
    plain = copy_of(model)
    plain.eval(), model.eval()
    model.gradient_checkpointing_enable()
    for each in (model, plain):
        each.embed(ids, None, kinds).square().sum().backward()
    for (name, param), other in zip(model.named_parameters(), plain.parameters(), strict=True):
        if param.grad is not None:
            np.testing.assert_array_equal(param.grad.numpy(), other.grad.numpy(), err_msg=name)


def copy_of(model: te.models.Bert) -> te.models.Bert:
    other = te.models.bert(model.config)
    other.load_state_dict(model.state_dict())
    return other


def test_what_an_encoder_refuses(reference: Backend) -> None:
    for change in ({"hidden_act": "x"}, {"hidden_size": 13}, {"position_embedding_type": "relative_key"},
                   {"is_decoder": True}, {"hidden_dropout_prob": 2}, {"model_type": "roberta"}):  # fmt: skip
        with pytest.raises(ArgumentError, match=next(iter(change)).partition("_size")[0]):
            te.models.bert({**ENCODER, **change})
    model = encoder()
    with pytest.raises(ShapeError, match="at most 9"):
        model(te.zeros(1, 10).long())
    with pytest.raises(ShapeError, match="attention_mask"):
        model(te.zeros(1, 3).long(), te.ones(1, 2))
    with pytest.raises(ArgumentError, match="pooling"):
        model.embed(te.zeros(1, 3).long(), pooling="sum")
    with pytest.raises(ArgumentError, match="none"):
        te.models.bert(ENCODER, add_pooling_layer=False).embed(te.zeros(1, 3).long(), pooling="pooler")
