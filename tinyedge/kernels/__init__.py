"""From KernelSpec to OpenCL C.

In: KernelSpecs of ops, and kernels with pointwise ops fused in. Out: source text, and for matrix products the tile.
``lowering`` and ``gemm`` / ``tile`` make the KernelSpecs that many ops share; ``render`` fills a template; ``inline``
writes prologues and epilogues; ``persistent`` joins the kernels of a launch group into one function.
"""
