"""Flower, where it is installed: the names of its that are used."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import numpy as np

from tinyedge.errors import MissingPackageError

ARRAYS, WIRE = "arrays", "wire"  # the records of a message: parameters; and how they are encoded


@cache
def flower() -> Any:
    """Flower's classes.

    Errors: MissingPackageError if it is not installed.
    """
    try:
        app, client, server = (import_module(f"flwr.{name}") for name in ("app", "clientapp", "serverapp"))
        strategy = import_module("flwr.serverapp.strategy")
    except ImportError as error:
        raise MissingPackageError(
            "te.federated",
            "the package flwr, 1.41 or newer",
            str(error),
            'Install it: pip install "tinyedge[federated]".',
        ) from error

    def arrays(values: Mapping[str, Any]) -> Any:
        return app.ArrayRecord({name: app.Array(np.ascontiguousarray(value)) for name, value in values.items()})

    names = ("ArrayRecord", "ConfigRecord", "MetricRecord", "RecordDict", "Message", "MessageType")
    return SimpleNamespace(
        **{name: getattr(app, name) for name in names},
        ClientApp=client.ClientApp,
        ServerApp=server.ServerApp,
        FedAvg=strategy.FedAvg,
        arrays=arrays,
    )
