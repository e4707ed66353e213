"""What is trained on a device, and in how much memory: budgets (``te.plan_for``), LoRA, quantised bases,
checkpoints."""

from tinyedge.adapt.budget import Fit, plan_for, rehearse
from tinyedge.adapt.choose import bias_only, head_only, last, norm_only, summary
from tinyedge.adapt.live import Live, LiveStats
from tinyedge.adapt.lora import LoraConfig, LoraLayer, adaptable, lora, merge, set_adapter, unload, unmerge
from tinyedge.adapt.minibatch import MinibatchNorm, minibatch_norm, to_batch_renorm, to_group_norm
from tinyedge.adapt.peft import load_adapter, save_adapter
from tinyedge.adapt.quantise import LayerError, QuantizeReport, dequantize, quantize
from tinyedge.adapt.rank import LayerRank, Ranking, rank_layers
from tinyedge.adapt.replay import ReplayBuffer
from tinyedge.adapt.resume import load_checkpoint, save_checkpoint
from tinyedge.adapt.watch import Watch, watch

__all__ = [
    "Fit",
    "LayerError",
    "LayerRank",
    "Live",
    "LiveStats",
    "LoraConfig",
    "LoraLayer",
    "MinibatchNorm",
    "QuantizeReport",
    "Ranking",
    "ReplayBuffer",
    "Watch",
    "adaptable",
    "bias_only",
    "dequantize",
    "head_only",
    "last",
    "load_adapter",
    "load_checkpoint",
    "lora",
    "merge",
    "minibatch_norm",
    "norm_only",
    "plan_for",
    "quantize",
    "rank_layers",
    "rehearse",
    "save_adapter",
    "save_checkpoint",
    "set_adapter",
    "summary",
    "to_batch_renorm",
    "to_group_norm",
    "unload",
    "unmerge",
    "watch",
]
