"""Places to run: discovery, geometry, telemetry, the NVML gateway and its sampler process, the simulator."""
