"""Kernels: how an op describes one (``spec``), and how its source is made (``render``)."""
