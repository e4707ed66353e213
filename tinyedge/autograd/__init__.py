"""Eager execution and differentiation.

In: op calls, and a loss. Out: executed Steps that are linked into the graph, and gradients of leaves. ``dispatch``
executes and links a call; ``walk`` goes back through the graph; ``recorder`` and ``scope`` let ``te.compile`` and
``te.checkpoint`` take part.
"""
