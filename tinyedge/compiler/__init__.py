"""``te.compile``: a call recorded, rewritten, fused, scheduled, placed in memory, and replayed."""
