"""The OpenCL backend.

``devices`` and ``drivers`` find devices that work, ``backend`` builds and launches kernels, ``binding`` says what each
argument is, ``pool`` and ``memory`` allocate, ``binaries`` keeps built kernels between runs.
"""
