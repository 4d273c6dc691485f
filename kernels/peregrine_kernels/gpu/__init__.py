"""The GPU backend: Triton kernels around cuBLAS's GEMMs.

Each kernel's launcher makes a `launch.Launch`.
"""
