"""Training on a device: which layers (``last``, ``rank_layers``, ``summary``), in how much memory (``te.plan_for``),
adapters over quantised weights (``lora``, ``te.quantize``), norms of single samples (``minibatch_norm``), while a model
is in use (``Live``), and to be continued (``save_checkpoint``).
"""

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
