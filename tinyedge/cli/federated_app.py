"""``tinyedge federated new``: a Flower app that runs, to begin from."""

from __future__ import annotations

import argparse

from tinyedge.federated.template import new_app


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = "Federated learning on Flower."
    parts = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    app = parts.add_parser("new", help="write an app that runs, to begin from", description="Write a Flower app.")
    app.add_argument("folder", metavar="APPDIR", help="a new or empty folder; its name is the app's")
    app.set_defaults(run=new_federated_app)


def new_federated_app(options: argparse.Namespace) -> int:
    """Write what ``tinyedge federated new`` is asked for; print the files."""
    for path in new_app(options.folder):
        print(path)
    return 0
