"""Files to models, and models to files. What reads a format is imported when it is first used."""

from importlib import import_module as _import_module
from typing import TYPE_CHECKING
from typing import Any as _Any

from tinyedge.convert.loading import load_model
from tinyedge.convert.safetensors import load, load_safetensors, read_metadata, save

if TYPE_CHECKING:
    from tinyedge.convert.chat import ChatTemplate, chat_template
    from tinyedge.convert.gguf_model import from_gguf
    from tinyedge.convert.graph import GraphModel
    from tinyedge.convert.huggingface import from_pretrained
    from tinyedge.convert.onnx_export import to_onnx
    from tinyedge.convert.onnx_model import from_onnx
    from tinyedge.convert.qfp import from_qfp, to_qfp
    from tinyedge.convert.tensorflow_model import from_tensorflow
    from tinyedge.convert.tflite_model import from_tflite
    from tinyedge.convert.tokenizer import tokenizer

_PARTS = {
    "ChatTemplate": "chat", "chat_template": "chat", "from_gguf": "gguf_model", "GraphModel": "graph",
    "from_pretrained": "huggingface", "to_onnx": "onnx_export", "from_onnx": "onnx_model", "from_qfp": "qfp",
    "to_qfp": "qfp", "from_tensorflow": "tensorflow_model", "from_tflite": "tflite_model", "tokenizer": "tokenizer",
}  # fmt: skip
"""By the name: the file that has it."""


def __getattr__(name: str) -> _Any:
    if name not in _PARTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(_import_module(f"{__name__}.{_PARTS[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_PARTS})


__all__ = [
    "ChatTemplate",
    "GraphModel",
    "chat_template",
    "from_gguf",
    "from_onnx",
    "from_pretrained",
    "from_qfp",
    "from_tensorflow",
    "from_tflite",
    "load",
    "load_model",
    "load_safetensors",
    "read_metadata",
    "save",
    "to_onnx",
    "to_qfp",
    "tokenizer",
]
