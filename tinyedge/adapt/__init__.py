"""What is trained on a device, and in how much memory: budgets (``te.plan_for``, ``te.rehearse``) and LoRA."""

from tinyedge.adapt.budget import Fit, plan_for, rehearse
from tinyedge.adapt.lora import LoraConfig, LoraLayer, lora, merge, set_adapter, unload, unmerge
from tinyedge.adapt.peft import load_adapter, save_adapter

__all__ = [
    "Fit",
    "LoraConfig",
    "LoraLayer",
    "load_adapter",
    "lora",
    "merge",
    "plan_for",
    "rehearse",
    "save_adapter",
    "set_adapter",
    "unload",
    "unmerge",
]
