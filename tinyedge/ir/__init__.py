"""Plain data that flows between the stages: values, steps, kernels, launch groups. It has no behaviour of a stage, so
that every stage can import it without a circle of imports.
"""
