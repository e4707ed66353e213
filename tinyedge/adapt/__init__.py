"""What is trained on a device, and in how much memory."""
