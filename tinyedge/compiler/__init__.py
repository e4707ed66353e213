"""``te.compile``, a file for each stage.

In: a Python function and the arguments of a call. Out: a Program that later calls replay. ``api`` takes the call,
``guards`` decide whether an earlier program may be replayed, ``record`` keeps the Steps of a new call, ``rewrite`` and
``fuse`` change them, ``memory`` plans the arena, ``schedule`` finds what waits for what in a persistent kernel,
``assemble`` runs these four; ``describe`` gives the launches as plain data, ``program`` replays them, ``binding`` binds
what moved before, and ``backward`` replays the second part of a program whose results are differentiable.
"""
