"""Files to models, and models to files."""

from tinyedge.convert.safetensors import load, load_safetensors, read_metadata, save

__all__ = ["load", "load_safetensors", "read_metadata", "save"]
