"""Files to models, and models to files."""

from tinyedge.convert.chat import ChatTemplate, chat_template
from tinyedge.convert.gguf_model import from_gguf
from tinyedge.convert.graph import GraphModel
from tinyedge.convert.huggingface import from_pretrained
from tinyedge.convert.loading import load_model
from tinyedge.convert.onnx_export import to_onnx
from tinyedge.convert.onnx_model import from_onnx
from tinyedge.convert.qfp import from_qfp, to_qfp
from tinyedge.convert.safetensors import load, load_safetensors, read_metadata, save
from tinyedge.convert.tensorflow_model import from_tensorflow
from tinyedge.convert.tflite_model import from_tflite
from tinyedge.convert.tokenizer import tokenizer

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
