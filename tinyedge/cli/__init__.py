"""The command line: ``tinyedge COMMAND``; a file for each command."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import tinyedge
from tinyedge.bench import command
from tinyedge.cli import comparing, converting, device_list, info, tuning
from tinyedge.errors import TinyedgeError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit status."""
    parser = argparse.ArgumentParser(prog="tinyedge", description="Train neural networks where the data is.")
    parser.add_argument("--version", action="version", version=f"tinyedge {tinyedge.__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    device_list.add_arguments(
        commands.add_parser("devices", help="list every device, whether it works, and which one is used")
    )
    parts = {"formatter_class": argparse.RawDescriptionHelpFormatter}
    info.add_arguments(commands.add_parser("info", help="what a model file holds, and what training it takes", **parts))
    converting.add_convert(
        commands.add_parser("convert", help="a model file, or its weights, in another format", **parts)
    )
    converting.add_extract(
        commands.add_parser("extract", help="a model's weights as raw files, with a manifest", **parts)
    )
    comparing.add_arguments(
        commands.add_parser(
            "compare", help="tinyedge against LiteRT, ONNX Runtime or TensorFlow, layer by layer", **parts
        )
    )
    command.add_arguments(commands.add_parser("bench", help="measure models and ops on the device"))
    tuning.add_arguments(
        commands.add_parser("tune", help="measure what suits the GPU best for training a model, and remember it")
    )
    parsed = parser.parse_args(arguments)
    if "run" not in parsed:
        parser.print_help()
        return 0
    try:
        status: int = parsed.run(parsed)
    except TinyedgeError as error:
        print(f"tinyedge: {error}", file=sys.stderr)
        return 1
    return status
