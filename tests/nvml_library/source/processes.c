/* Who is on a GPU or a slice: the processes of this machine whose CUDA_VISIBLE_DEVICES says so, and those of the state.
 */
#include "library.h"

#include <ctype.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct process_info {
    unsigned pid;
    unsigned long long memory_bytes;
    unsigned gpu_instance_id, compute_instance_id;
};

/* Whom a walk looks for, and where they go: they are counted, and kept while there is room. */
struct walk {
    struct gpu *gpu;
    unsigned kind;
    uint32_t parent, one; /* serials of the instances that they must be on, 0 for any */
    unsigned count, room;
    struct process_info *kept;
    uint64_t memory_bytes;
};

static FILE *open_proc(const char *pid, const char *name)
{
    char path[300];
    snprintf(path, sizeof path, "/proc/%s/%s", pid, name);
    return fopen(path, "r");
}

/* The first device that a process was told to use. Programs that see several are on the first in our model; numbers of
 * GPUs are not understood, because others on this machine may mean another GPU by them. */
static bool visible_device(const char *pid, char *device, size_t size)
{
    static const char variable[] = "CUDA_VISIBLE_DEVICES=";
    FILE *file = open_proc(pid, "environ");
    char *entry = NULL;
    size_t room = 0;
    *device = '\0';
    while (file && *device == '\0' && getdelim(&entry, &room, '\0', file) > 0)
        if (strncmp(entry, variable, sizeof variable - 1) == 0)
            snprintf(device, size, "%.*s", (int)strcspn(entry + sizeof variable - 1, ","), entry + sizeof variable - 1);
    free(entry);
    if (file)
        fclose(file);
    return *device != '\0';
}

static uint64_t resident_of(const char *pid)
{
    unsigned long pages = 0;
    FILE *file = open_proc(pid, "statm");
    if (file && fscanf(file, "%*u %lu", &pages) != 1)
        pages = 0;
    if (file)
        fclose(file);
    return pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

static void visit(struct walk *walk, struct process_info process, const struct gpu_instance *parent,
                  const struct compute_instance *one)
{
    if ((walk->parent && (!parent || parent->serial != walk->parent)) ||
        (walk->one && (!one || one->serial != walk->one)))
        return;
    if (walk->count < walk->room)
        walk->kept[walk->count] = process;
    walk->count++;
    walk->memory_bytes += process.memory_bytes;
}

static void visit_listed(struct walk *walk, const struct process *listed)
{
    const struct gpu_instance *parent = gpu_instance_by_id(walk->gpu, listed->gpu_instance_id);
    const struct compute_instance *on = NULL;
    EACH(one, walk->gpu->compute_instances)
        if (parent && one->parent == parent->serial && one->id == listed->compute_instance_id)
            on = one;
    struct process_info process = {listed->pid, listed->memory_bytes, listed->gpu_instance_id,
                                   listed->compute_instance_id};
    visit(walk, process, parent, on);
}

static void visit_running(struct walk *walk, const char *pid)
{
    char device[96];
    struct gpu *gpu = walk->gpu;
    if (machine->unlisted || !visible_device(pid, device, sizeof device))
        return;
    unsigned shown = (unsigned)atoi(pid) + machine->pid_shift;
    if (!gpu->mig_current && strcmp(device, gpu->uuid) == 0)
        visit(walk, (struct process_info){shown, resident_of(pid), WHOLE_GPU, WHOLE_GPU}, NULL, NULL);
    EACH(one, gpu->compute_instances) {
        const struct gpu_instance *parent = gpu_instance_of(gpu->gpu_instances, one->parent);
        if (parent && is_named(device, gpu, parent, one))
            visit(walk, (struct process_info){shown, resident_of(pid), parent->id, one->id}, parent, one);
    }
}

static void look(struct walk *walk)
{
    if (walk->gpu->processes_hidden)
        return;
    for (unsigned i = 0; i < MAX_PROCESSES; i++)
        if (walk->gpu->processes[i].kind == walk->kind)
            visit_listed(walk, &walk->gpu->processes[i]);
    DIR *proc = walk->kind == COMPUTE_PROCESS ? opendir("/proc") : NULL;
    for (struct dirent *entry; proc && (entry = readdir(proc)) != NULL;)
        if (isdigit((unsigned char)entry->d_name[0]))
            visit_running(walk, entry->d_name);
    if (proc)
        closedir(proc);
}

/* All compute instances of a GPU instance share its memory. */
uint64_t resident_bytes(const struct device *device)
{
    struct walk walk = {device->gpu, COMPUTE_PROCESS, .parent = 0};
    walk.parent = device->gpu_instance ? device->gpu_instance->serial : 0;
    look(&walk);
    return walk.memory_bytes;
}

bool is_occupied(const struct device *device)
{
    unsigned count = 0;
    for (unsigned kind = COMPUTE_PROCESS; kind <= MPS_PROCESS; kind++) {
        struct walk walk = {device->gpu, kind, .parent = 0};
        walk.parent = device->gpu_instance ? device->gpu_instance->serial : 0;
        walk.one = device->compute_instance ? device->compute_instance->serial : 0;
        look(&walk);
        count += walk.count;
    }
    return count > 0;
}

/* Documented: of a GPU in MIG mode they are those of all instances, for those who may monitor it. */
static int list(const struct device *device, unsigned kind, unsigned *count, struct process_info *processes)
{
    struct walk walk = {device->gpu, kind, .room = processes ? *count : 0, .kept = processes};
    walk.one = device->compute_instance ? device->compute_instance->serial : 0;
    if (walk.one == 0 && device->gpu->mig_current)
        TRY(require(MAY_MONITOR));
    if (walk.one && compute_instance_of(device->gpu->compute_instances, walk.one) == NULL)
        return NOT_FOUND;
    look(&walk);
    *count = walk.count;
    if (walk.count > walk.room)
        return INSUFFICIENT_SIZE;
    for (unsigned i = 0; device->gpu->process_memory_hidden && i < walk.count; i++)
        processes[i].memory_bytes = ~0ull;
    return SUCCESS;
}

EXPORT nvmlDeviceGetComputeRunningProcesses_v3(handle given, unsigned *count, struct process_info *processes)
{
    CALL_ON(find_device, given);
    return list(&device, COMPUTE_PROCESS, count, processes);
}

EXPORT nvmlDeviceGetGraphicsRunningProcesses_v3(handle given, unsigned *count, struct process_info *processes)
{
    CALL_ON(find_device, given);
    return list(&device, GRAPHICS_PROCESS, count, processes);
}

EXPORT nvmlDeviceGetMPSComputeRunningProcesses_v3(handle given, unsigned *count, struct process_info *processes)
{
    CALL_ON(find_device, given);
    return list(&device, MPS_PROCESS, count, processes);
}
