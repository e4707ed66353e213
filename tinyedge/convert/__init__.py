"""Files to models, and models to files."""

from tinyedge.convert.graph import GraphModel
from tinyedge.convert.loading import load_model
from tinyedge.convert.onnx_model import from_onnx
from tinyedge.convert.safetensors import load, load_safetensors, read_metadata, save

__all__ = ["GraphModel", "from_onnx", "load", "load_model", "load_safetensors", "read_metadata", "save"]
