"""Ops executed and linked (``dispatch``), and the walk back through them (``backward``)."""
