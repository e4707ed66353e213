"""The command line: ``tinyedge COMMAND``; a file for each command."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence

import tinyedge
from tinyedge.bench import command
from tinyedge.cli import caching, comparing, converting, device_list, federated_app, finetuning, info, tuning
from tinyedge.cli.models import as_options, print_json
from tinyedge.errors import TinyedgeError

COMMANDS: dict[str, tuple[str, Callable[[argparse.ArgumentParser], None]]] = {
    "devices": ("list every device, whether it works, and which one is used", device_list.add_arguments),
    "info": ("what a model file holds, and what training it takes", info.add_arguments),
    "finetune": ("tune a model file on your own data, and write it back", finetuning.add_arguments),
    "compare": ("tinyedge against LiteRT, ONNX Runtime or TensorFlow, layer by layer", comparing.add_arguments),
    "convert": ("a model file, or its weights, in another format", converting.add_convert),
    "extract": ("a model's weights as raw files, with a manifest", converting.add_extract),
    "federated": ("federated learning on Flower", federated_app.add_arguments),
    "bench": ("measure models and ops on the device", command.add_arguments),
    "tune": ("measure what suits the GPU best for training a model, and remember it", tuning.add_arguments),
    "cache": ("the built kernels as one file, for machines with the same device", caching.add_arguments),
}

EPILOG = """`tinyedge COMMAND --help` explains a command, with examples. Exit codes: 0, done; 1, it failed, or what was
checked is not so; 2, the command line is wrong. TINYEDGE_BACKEND names the device: opencl:0, opencl:1, numpy."""


def make_parser() -> argparse.ArgumentParser:
    """What reads the command line."""
    parser = argparse.ArgumentParser(
        prog="tinyedge", description="Train neural networks where the data is.", epilog=EPILOG
    )
    parser.add_argument("--version", action="version", version=f"tinyedge {tinyedge.__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    for name, (text, add_arguments) in COMMANDS.items():
        add_arguments(commands.add_parser(name, help=text, formatter_class=argparse.RawDescriptionHelpFormatter))
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit status."""
    parser = make_parser()
    parsed = parser.parse_args(arguments)
    if "run" not in parsed:
        parser.print_help()
        return 0
    try:
        status: int = parsed.run(parsed)
    except TinyedgeError as error:
        return _failed(parsed, as_options(str(error)))
    except OSError as error:  # a file that is not there, or cannot be read or written
        name = "" if error.filename is None else f"{error.filename}: "
        return _failed(parsed, f"{name}{error.strerror or error}")
    return status


def _failed(parsed: argparse.Namespace, text: str) -> int:
    """Say what was wrong: machines read it as they read results."""
    if getattr(parsed, "json", None) is True:
        print_json({"error": text})
    print(f"tinyedge: {text}", file=sys.stderr)
    return 1
