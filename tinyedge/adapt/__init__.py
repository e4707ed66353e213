"""What is trained on a device, and in how much memory: ``te.plan_for``, ``te.rehearse``."""
