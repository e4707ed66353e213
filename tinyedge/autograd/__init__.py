"""Eager execution and differentiation.

In: op calls, and a loss. Out: executed Steps that are linked into the graph, and gradients of leaves. ``dispatch``
executes and links a call; ``backward`` walks the graph in reverse; ``recorder`` and ``scope`` let ``te.compile`` and
``te.checkpoint`` take part.
"""
