"""Tables and charts of a Program: ``explain()``, ``profile()`` and ``chart()``."""

from tinyedge.report.charts import chart
from tinyedge.report.program import Profile, explain, profile

__all__ = ["Profile", "chart", "explain", "profile"]
