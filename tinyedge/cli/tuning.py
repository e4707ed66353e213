"""``tinyedge tune``: measure what suits the GPU best for a model, and remember it."""

from __future__ import annotations

import argparse

import tinyedge
from tinyedge.bench.workloads import TRAINING, WORKLOADS, Run
from tinyedge.errors import ArgumentError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Measure which tiles suit the GPU best for a training step of MODEL at batch 1, and remember them."
    )
    parser.add_argument(
        "model",
        metavar="MODEL",
        help="a model of tinyedge.models, such as mobilenet_v2, or a workload of `tinyedge bench`",
    )
    parser.add_argument("--input", default="1,3,224,224", help="a model's input shape (default: %(default)s)")
    parser.set_defaults(run=tune_model)


def tune_model(options: argparse.Namespace) -> int:
    """Measure what a training step of the model needs, on the default backend; print what was found."""
    if options.model in WORKLOADS:
        choices = tinyedge.tune(Run(WORKLOADS[options.model], TRAINING, compiled=False))
    else:
        make = getattr(tinyedge.models, options.model, None)
        if not callable(make):
            known = dict.fromkeys([*(each for each in tinyedge.models.__all__ if each.islower()), *WORKLOADS])
            raise ArgumentError(
                "tune",
                "a model of tinyedge.models, or a workload",
                f"got {options.model!r}",
                f"One of {', '.join(known)}.",
            )
        model = make()
        x = tinyedge.zeros(*map(int, options.input.split(",")))
        choices = tinyedge.tune(lambda: model(x).sum().backward())
    print(f"{len(choices)} products measured on {tinyedge.get_backend().description}")
    for product, tile in choices.items():
        print(f"  {product} {tile}")
    return 0
