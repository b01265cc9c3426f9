"""A stand-in for NVIDIA's libnvidia-ml.so.1 that tests compile, and the real pynvml runs against.

`source/` is the library, in C. All that it shows is one memory-mapped file: `layout` defines it for both languages,
`state.State` makes it and changes it while any number of processes use it, `boards` says what there is to show.
Processes find the library by LD_LIBRARY_PATH and the file by an environment variable, see `fixtures.environment`:

    state = make_state("a100-sxm-80gb/7x1g.10gb")             # fixtures, to be imported by a conftest
    nvml = connect(state)                                     # pynvml in a child process, see `remote.Remote`
    subprocess.run(..., env={**os.environ, **environment(library_dir, state)})
    state.inject("nvmlGpuInstanceDestroy", action=KILL_AFTER, skip=2, times=1)

`cuda/` is as much of libcuda.so.1 as it takes to have a context, for whoever probes with one; see `fixtures.cuda_dir`.

It models what a driver says, not a GPU: nothing is computed, and numbers are what a test put there. Not modelled are
GPU resets, vGPUs, NVLink, fans, accounting, encoders, the third version of GPU instance profiles (pynvml has none) and
revisions of compute instance profiles. Permissions are the machine's, not a process's.
"""
