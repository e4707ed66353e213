"""Models to start from, with new weights; ``load_state_dict`` puts trained ones in."""

from tinyedge.models.bert import Bert, BertConfig, bert
from tinyedge.models.lenet import LeNet5, lenet5
from tinyedge.models.llama import Llama, LlamaConfig, llama
from tinyedge.models.mobilenet import MobileNetV1, MobileNetV2, mobilenet_v1, mobilenet_v2
from tinyedge.models.resnet import ResNet, resnet18, resnet34
from tinyedge.models.transformer import Transformer, transformer

__all__ = [
    "Bert",
    "BertConfig",
    "LeNet5",
    "Llama",
    "LlamaConfig",
    "MobileNetV1",
    "MobileNetV2",
    "ResNet",
    "Transformer",
    "bert",
    "lenet5",
    "llama",
    "mobilenet_v1",
    "mobilenet_v2",
    "resnet18",
    "resnet34",
    "transformer",
]
