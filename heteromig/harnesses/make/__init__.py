"""NVIDIA's tree of MLPerf Inference benchmarks, driven by its own Makefile."""
