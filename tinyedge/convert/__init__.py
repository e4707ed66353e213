"""Files to models, and models to files."""

from tinyedge.convert.gguf_model import from_gguf
from tinyedge.convert.graph import GraphModel
from tinyedge.convert.huggingface import from_pretrained
from tinyedge.convert.loading import load_model
from tinyedge.convert.onnx_model import from_onnx
from tinyedge.convert.safetensors import load, load_safetensors, read_metadata, save
from tinyedge.convert.tflite_model import from_tflite
from tinyedge.convert.tokenizer import tokenizer

__all__ = [
    "GraphModel",
    "from_gguf",
    "from_onnx",
    "from_pretrained",
    "from_tflite",
    "load",
    "load_model",
    "load_safetensors",
    "read_metadata",
    "save",
    "tokenizer",
]
