/* A stand-in for NVIDIA's libnvidia-ml.so.1, for tests: what its parts share.
 *
 * All that it shows is in one file (state.h, written by layout.py from the definition there), which every process maps
 * and a lock on the file protects. A process keeps only its session: the partitioning as it was when it began, its
 * event sets and its GPM samples. Where a comment says "seen", the behaviour was read off an H200 with driver
 * 580.159.04; "documented" is nvml.h or NVIDIA's MIG user guide.
 */
#ifndef LIBRARY_H
#define LIBRARY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "state.h"

#define EXPORT __attribute__((visibility("default"))) int
#define WHOLE_GPU 0xFFFFFFFFu

enum {
    SUCCESS = 0,
    UNINITIALIZED = 1,
    INVALID_ARGUMENT = 2,
    NOT_SUPPORTED = 3,
    NO_PERMISSION = 4,
    NOT_FOUND = 6,
    INSUFFICIENT_SIZE = 7,
    DRIVER_NOT_LOADED = 9,
    TIMEOUT = 10,
    FUNCTION_NOT_FOUND = 13,
    GPU_IS_LOST = 15,
    RESET_REQUIRED = 16,
    LIB_RM_VERSION_MISMATCH = 18,
    IN_USE = 19,
    MEMORY = 20,
    INSUFFICIENT_RESOURCES = 23,
    ARGUMENT_VERSION_MISMATCH = 25,
};

enum { EVENT_MIG_CONFIG_CHANGE = 0x100 };

/* A handle of NVML is an opaque pointer. Ours say in their bits what they stand for and in which session they were
 * given out, so that none is ever dereferenced and none is good for longer than NVML promises. */
typedef uint64_t handle;

enum kind { GPU_HANDLE = 1, MIG_HANDLE, GPU_INSTANCE_HANDLE, COMPUTE_INSTANCE_HANDLE, EVENT_SET_HANDLE, SAMPLE_HANDLE };

/* What a handle means: a GPU, perhaps with a GPU instance and a compute instance of it. Those of a MIG device are the
 * session's, which may be gone by now; those of handles of instances are the state's. */
struct device {
    unsigned index;
    struct gpu *gpu;
    struct gpu_instance *gpu_instance;
    struct compute_instance *compute_instance;
};

/* A call in progress: `fatal` says that the process ends with it. */
struct call {
    int result;
    bool fatal;
};

extern struct machine *machine;

struct call begin_call(const char *function, handle device);
void end_call(struct call *call);
int pause_call(unsigned milliseconds);

/* Opens exported functions: within a session, with the state locked until the function returns, and unless a fault
 * that was injected says otherwise. */
#define CALL(device)                                                                    \
    __attribute__((cleanup(end_call))) struct call call = begin_call(__func__, device); \
    if (call.result != SUCCESS)                                                         \
    return call.result

#define TRY(expression)          \
    do {                         \
        int try_ = (expression); \
        if (try_ != SUCCESS)     \
            return try_;         \
    } while (0)

/* The same for functions of a handle: `device` and `gpu` are what `find` makes of it. */
#define CALL_ON(find, given)         \
    CALL(given);                     \
    struct device device;            \
    TRY(find(given, &device));       \
    struct gpu *const gpu = device.gpu; \
    (void)gpu

/* Every instance that is there. */
#define EACH(one, instances)                                                                      \
    for (__typeof__(&(instances)[0]) one = (instances); one < (instances) + MAX_INSTANCES; one++) \
        if (one->serial)

/* session.c */
handle make_handle(enum kind kind, unsigned gpu, uint32_t number);
int open_handle(handle given, enum kind kind, uint32_t *number);
int find_gpu(handle given, struct device *device);
int find_slice(handle given, struct device *device);
int find_device(handle given, struct device *device);
int find_whole_gpu(handle given, struct device *device);
int require(unsigned permission);
struct gpu_instance *gpu_instance_of(struct gpu_instance *instances, uint32_t serial);
struct compute_instance *compute_instance_of(struct compute_instance *instances, uint32_t serial);
struct gpu_instance *gpu_instance_by_id(struct gpu *gpu, unsigned id);
bool is_named(const char *name, const struct gpu *gpu, const struct gpu_instance *parent,
              const struct compute_instance *one);
uint32_t slice_named(const char *name, unsigned gpu);
uint32_t slice_at(unsigned gpu, unsigned index);
int index_of_slice(unsigned gpu, uint32_t serial);
void refresh_view(unsigned gpu);

/* processes.c */
uint64_t resident_bytes(const struct device *device);
bool is_occupied(const struct device *device);

/* events.c */
void post_event(unsigned gpu, uint64_t type, uint64_t data);
void forget_event_sets(void);

/* gpm.c */
void forget_samples(void);

#endif
