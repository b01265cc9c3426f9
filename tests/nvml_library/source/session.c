/* Sessions: the file, its lock, faults, handles, and the partitioning as a session sees it. */
#include "library.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

struct machine *machine;
static unsigned sessions;
static uint8_t session_number;
static int state_fd;
static pid_t opened_by;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;

/* --- the file ------------------------------------------------------------------------------------------------ */

/* A lock belongs to the open file, which a forked process would share with its parent: it opens its own. */
static void lock(void)
{
    pthread_mutex_lock(&mutex);
    if (opened_by != getpid()) {
        const char *path = getenv(STATE_VARIABLE);
        int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
        if (fd < 0)
            return;
        state_fd = fd;
        opened_by = getpid();
    }
    while (flock(state_fd, LOCK_EX) != 0)
        ;
}

/* Outside a session the file is not kept open, so that the next one opens what the environment then names. What is
 * mapped keeps the lock, if it is not let go of. */
static void unlock(void)
{
    if (opened_by == getpid()) {
        flock(state_fd, LOCK_UN);
        if (sessions == 0) {
            close(state_fd);
            opened_by = 0;
        }
    }
    pthread_mutex_unlock(&mutex);
}

static int map_state(void)
{
    struct stat status;
    if (opened_by != getpid() || fstat(state_fd, &status) != 0)
        return DRIVER_NOT_LOADED;
    if ((size_t)status.st_size != sizeof *machine)
        return LIB_RM_VERSION_MISMATCH;
    if (machine)
        munmap(machine, sizeof *machine);
    machine = mmap(NULL, sizeof *machine, PROT_READ | PROT_WRITE, MAP_SHARED, state_fd, 0);
    if (machine == MAP_FAILED) {
        machine = NULL;
        return DRIVER_NOT_LOADED;
    }
    return machine->magic == STATE_MAGIC && machine->layout == STATE_LAYOUT ? SUCCESS : LIB_RM_VERSION_MISMATCH;
}

static void sleep_ms(unsigned milliseconds)
{
    struct timespec left = {milliseconds / 1000, (long)(milliseconds % 1000) * 1000000};
    while (nanosleep(&left, &left) != 0)
        ;
}

/* --- calls --------------------------------------------------------------------------------------------------- */

static struct fault *fault_of(const char *function, handle device)
{
    int gpu = device ? (int)(device >> 32 & 0xff) : -1;
    for (struct fault *fault = machine->faults; fault < machine->faults + MAX_FAULTS; fault++)
        if (fault->remaining && strcmp(fault->call, function) == 0 && (fault->gpu < 0 || fault->gpu == gpu)) {
            if (fault->skip == 0)
                return fault;
            fault->skip--;
        }
    return NULL;
}

/* Let happen what was injected for this call. A slow call holds up no other process. */
static struct call suffer(const char *function, handle device)
{
    struct fault *fault = fault_of(function, device);
    if (fault == NULL)
        return (struct call){SUCCESS, false};
    struct fault what = *fault;
    if (fault->remaining != UINT32_MAX)
        fault->remaining--;
    fault->hits++;
    if (what.sleep_ms)
        pause_call(what.sleep_ms);
    if (what.action == KILL_BEFORE)
        kill(getpid(), SIGKILL);
    return (struct call){what.result, what.action == KILL_AFTER};
}

struct call begin_call(const char *function, handle device)
{
    lock();
    if (sessions == 0)
        return (struct call){UNINITIALIZED, false};
    for (unsigned i = 0; !machine->caches_topology && i < machine->gpu_count; i++)
        refresh_view(i);
    struct call call = suffer(function, device);
    if (sessions == 0) /* another thread closed it while this one slept */
        call.result = UNINITIALIZED;
    return call;
}

void end_call(struct call *call)
{
    if (call->fatal)
        kill(getpid(), SIGKILL);
    unlock();
}

/* Let others at the state for a while, in the middle of a call. */
int pause_call(unsigned milliseconds)
{
    unlock();
    sleep_ms(milliseconds);
    lock();
    return sessions ? SUCCESS : UNINITIALIZED;
}

/* --- the partitioning as this session knows it ---------------------------------------------------------------- */

static struct view {
    struct gpu_instance gpu_instances[MAX_INSTANCES];
    struct compute_instance compute_instances[MAX_INSTANCES];
    uint32_t serial_at[MAX_INSTANCES]; /* which MIG device has which index */
} views[MAX_GPUS];

uint32_t slice_at(unsigned gpu, unsigned index)
{
    return index < MAX_INSTANCES ? views[gpu].serial_at[index] : 0;
}

int index_of_slice(unsigned gpu, uint32_t serial)
{
    for (unsigned i = 0; i < MAX_INSTANCES; i++)
        if (views[gpu].serial_at[i] == serial)
            return (int)i;
    return -1;
}

/* The device that gets the next index: they are ordered by GPU instance, then by compute instance. */
static uint32_t next_without_index(unsigned gpu)
{
    uint32_t found = 0, least = UINT32_MAX;
    EACH(one, views[gpu].compute_instances) {
        const struct gpu_instance *parent = gpu_instance_of(views[gpu].gpu_instances, one->parent);
        if (parent && index_of_slice(gpu, one->serial) < 0 && (parent->id << 8 | one->id) < least) {
            least = parent->id << 8 | one->id;
            found = one->serial;
        }
    }
    return found;
}

/* Take in the partitioning of now. Devices that stay keep their index, which leaves holes in a running session. */
void refresh_view(unsigned index)
{
    struct view *view = &views[index];
    const struct gpu *gpu = &machine->gpus[index];
    memcpy(view->gpu_instances, gpu->gpu_instances, sizeof view->gpu_instances);
    memcpy(view->compute_instances, gpu->compute_instances, sizeof view->compute_instances);
    for (unsigned i = 0; i < MAX_INSTANCES; i++)
        if (compute_instance_of(view->compute_instances, view->serial_at[i]) == NULL)
            view->serial_at[i] = 0;
    for (unsigned i = 0; i < gpu->max_mig_devices; i++)
        if (view->serial_at[i] == 0 && !(gpu->mig_holes >> i & 1))
            view->serial_at[i] = next_without_index(index);
}

/* --- sessions ------------------------------------------------------------------------------------------------ */

static int initialise(void)
{
    if (sessions++ > 0)
        return SUCCESS;
    int result = map_state();
    if (result == SUCCESS)
        result = suffer("nvmlInitWithFlags", 0).result;
    if (result != SUCCESS) {
        sessions = 0;
        return result;
    }
    session_number++;
    memset(views, 0, sizeof views);
    for (unsigned i = 0; i < machine->gpu_count; i++)
        refresh_view(i);
    return SUCCESS;
}

EXPORT nvmlInitWithFlags(unsigned flags)
{
    (void)flags;
    lock();
    int result = initialise();
    unlock();
    return result;
}

EXPORT nvmlShutdown(void)
{
    CALL(0);
    if (--sessions == 0) {
        forget_event_sets();
        forget_samples();
    }
    return SUCCESS;
}

__attribute__((visibility("default"))) const char *nvmlErrorString(int result)
{
    switch (result) {
    case IN_USE: return "In use by another client";
    case INSUFFICIENT_RESOURCES: return "Insufficient Resources";
    case ARGUMENT_VERSION_MISMATCH: return "Argument version mismatch";
    default: return "Unknown Error"; /* pynvml knows the others itself */
    }
}

/* --- handles ------------------------------------------------------------------------------------------------- */

handle make_handle(enum kind kind, unsigned gpu, uint32_t number)
{
    return (handle)kind << 48 | (handle)session_number << 40 | (handle)gpu << 32 | number;
}

/* Seen: a handle of a session before is an invalid argument. */
int open_handle(handle given, enum kind kind, uint32_t *number)
{
    if (given >> 48 != kind || (uint8_t)(given >> 40) != session_number)
        return INVALID_ARGUMENT;
    *number = (uint32_t)given;
    return SUCCESS;
}

static int find_of_kind(handle given, enum kind kind, struct device *device, uint32_t *number)
{
    *device = (struct device){.index = given >> 32 & 0xff};
    TRY(open_handle(given, kind, number));
    if (device->index >= machine->gpu_count)
        return INVALID_ARGUMENT;
    device->gpu = &machine->gpus[device->index];
    return device->gpu->lost ? GPU_IS_LOST : SUCCESS;
}

int find_gpu(handle given, struct device *device)
{
    uint32_t number;
    return find_of_kind(given, GPU_HANDLE, device, &number);
}

/* A MIG device of this session, whether or not it is still there. */
int find_slice(handle given, struct device *device)
{
    uint32_t serial;
    TRY(find_of_kind(given, MIG_HANDLE, device, &serial));
    struct view *view = &views[device->index];
    device->compute_instance = compute_instance_of(view->compute_instances, serial);
    if (device->compute_instance)
        device->gpu_instance = gpu_instance_of(view->gpu_instances, device->compute_instance->parent);
    return device->gpu_instance ? SUCCESS : INVALID_ARGUMENT;
}

int find_device(handle given, struct device *device)
{
    return given >> 48 == MIG_HANDLE ? find_slice(given, device) : find_gpu(given, device);
}

/* For what exists only for the GPU as a whole: power, clocks, temperature and their like. */
int find_whole_gpu(handle given, struct device *device)
{
    TRY(find_device(given, device));
    return device->compute_instance ? NOT_SUPPORTED : SUCCESS;
}

struct gpu_instance *gpu_instance_of(struct gpu_instance *instances, uint32_t serial)
{
    EACH(one, instances)
        if (one->serial == serial)
            return one;
    return NULL;
}

struct compute_instance *compute_instance_of(struct compute_instance *instances, uint32_t serial)
{
    EACH(one, instances)
        if (one->serial == serial)
            return one;
    return NULL;
}

struct gpu_instance *gpu_instance_by_id(struct gpu *gpu, unsigned id)
{
    EACH(one, gpu->gpu_instances)
        if (one->id == id)
            return one;
    return NULL;
}

/* Its UUID, or the older form MIG-GPU-<uuid>/<GPU instance>/<compute instance>. */
bool is_named(const char *name, const struct gpu *gpu, const struct gpu_instance *parent,
              const struct compute_instance *one)
{
    char older[96];
    snprintf(older, sizeof older, "MIG-%s/%u/%u", gpu->uuid, parent->id, one->id);
    return strcmp(name, one->uuid) == 0 || strcmp(name, older) == 0;
}

uint32_t slice_named(const char *name, unsigned gpu)
{
    EACH(one, views[gpu].compute_instances) {
        const struct gpu_instance *parent = gpu_instance_of(views[gpu].gpu_instances, one->parent);
        if (parent && is_named(name, &machine->gpus[gpu], parent, one))
            return one->serial;
    }
    return 0;
}

int require(unsigned permission)
{
    return machine->permissions & permission ? SUCCESS : NO_PERMISSION;
}
