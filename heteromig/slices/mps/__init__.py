"""Shares of one GPU under CUDA MPS."""
