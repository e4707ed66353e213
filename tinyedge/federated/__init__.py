"""Federated learning on Flower (``pip install "tinyedge[federated]"``): clients train on their data, changes travel."""

from tinyedge.federated.client import Client, client_app
from tinyedge.federated.server import Report, WireGrid, server_app

__all__ = ["Client", "Report", "WireGrid", "client_app", "server_app"]
