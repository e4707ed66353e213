"""What is trained on a device, and in how much memory: budgets (``te.plan_for``), LoRA, quantised bases,
checkpoints."""

from tinyedge.adapt.budget import Fit, plan_for, rehearse
from tinyedge.adapt.choose import bias_only, head_only, last, norm_only, summary
from tinyedge.adapt.lora import LoraConfig, LoraLayer, lora, merge, set_adapter, unload, unmerge
from tinyedge.adapt.peft import load_adapter, save_adapter
from tinyedge.adapt.quantise import LayerError, QuantizeReport, dequantize, quantize
from tinyedge.adapt.resume import load_checkpoint, save_checkpoint

__all__ = [
    "Fit",
    "LayerError",
    "LoraConfig",
    "LoraLayer",
    "QuantizeReport",
    "bias_only",
    "dequantize",
    "head_only",
    "last",
    "load_adapter",
    "load_checkpoint",
    "lora",
    "merge",
    "norm_only",
    "plan_for",
    "quantize",
    "rehearse",
    "save_adapter",
    "save_checkpoint",
    "set_adapter",
    "summary",
    "unload",
    "unmerge",
]
