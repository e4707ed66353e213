"""Tables and charts of what programs do."""

from tinyedge.report.charts import chart
from tinyedge.report.program import Profile, explain, profile

__all__ = ["Profile", "chart", "explain", "profile"]
