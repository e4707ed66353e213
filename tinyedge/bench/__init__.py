"""Measurement: what ``tinyedge bench`` and the suites in ``benchmarks/`` share."""
