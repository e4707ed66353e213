"""Plain data that flows between stages: values, steps, kernels, launches. No stage's work is done here."""
