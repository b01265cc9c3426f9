"""A stand-in for the driver and the harness binaries of NVIDIA's tree. It imports nothing but the standard library and
LoadGen, and is copied into each planted tree, where it runs as `python -m code.main_v2` does in the original.
"""
