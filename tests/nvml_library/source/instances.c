/* MIG: its mode, profiles, placements, GPU instances and compute instances. */
#include "library.h"

#include <stdio.h>
#include <string.h>
#include <sys/random.h>

struct placement {
    unsigned start, size;
};

/* Handles of instances are good until the instance is destroyed, by whomever. Documented: listing and changing
 * instances is for privileged users. Seen: while MIG is off, it is for all. */
static int find_cuttable(handle given, struct device *device)
{
    TRY(find_gpu(given, device));
    return device->gpu->mig_current ? require(MAY_CONFIGURE) : SUCCESS;
}

static int find_gpu_instance(handle given, struct device *device)
{
    uint32_t serial;
    TRY(open_handle(given, GPU_INSTANCE_HANDLE, &serial));
    TRY(find_cuttable(make_handle(GPU_HANDLE, given >> 32 & 0xff, 0), device));
    device->gpu_instance = gpu_instance_of(device->gpu->gpu_instances, serial);
    return device->gpu_instance ? SUCCESS : NOT_FOUND;
}

static int find_compute_instance(handle given, struct device *device)
{
    uint32_t serial;
    TRY(open_handle(given, COMPUTE_INSTANCE_HANDLE, &serial));
    TRY(find_cuttable(make_handle(GPU_HANDLE, given >> 32 & 0xff, 0), device));
    device->compute_instance = compute_instance_of(device->gpu->compute_instances, serial);
    if (device->compute_instance)
        device->gpu_instance = gpu_instance_of(device->gpu->gpu_instances, device->compute_instance->parent);
    return device->gpu_instance ? SUCCESS : NOT_FOUND;
}

/* The partitioning is another one, by what this session did. */
static int changed(const struct device *device)
{
    refresh_view(device->index);
    post_event(device->index, EVENT_MIG_CONFIG_CHANGE, 0);
    return SUCCESS;
}

static unsigned mask_of(unsigned start, unsigned size)
{
    return ((1u << size) - 1) << start;
}

/* Write down the places of a bit mask; seen: without a buffer they are counted. */
static int give_places(unsigned starts, unsigned size, struct placement *places, unsigned *count)
{
    *count = 0;
    for (unsigned start = 0; start < 32; start++)
        if (starts >> start & 1) {
            if (places)
                places[*count] = (struct placement){start, size};
            ++*count;
        }
    return SUCCESS;
}

/* --- mode ---------------------------------------------------------------------------------------------------- */

EXPORT nvmlDeviceGetMigMode(handle given, unsigned *current, unsigned *pending)
{
    CALL_ON(find_gpu, given);
    *current = gpu->mig_current;
    *pending = gpu->mig_pending;
    return gpu->mig_capable ? SUCCESS : NOT_SUPPORTED;
}

/* Documented: that the mode did not take effect at once is told apart from the call itself, which succeeds. That
 * instances must go first is ours: what a driver does with them is not written anywhere. */
EXPORT nvmlDeviceSetMigMode(handle given, unsigned mode, int *activation)
{
    CALL_ON(find_gpu, given);
    if (!gpu->mig_capable)
        return NOT_SUPPORTED;
    if (mode > 1)
        return INVALID_ARGUMENT;
    TRY(require(MAY_CONFIGURE));
    gpu->mig_pending = mode;
    *activation = SUCCESS;
    if (gpu->mig_current == mode)
        return SUCCESS;
    if (gpu->held_open || is_occupied(&device))
        *activation = IN_USE;
    EACH(one, gpu->gpu_instances)
        *activation = IN_USE;
    if (*activation == SUCCESS && gpu->mig_needs_reset)
        *activation = RESET_REQUIRED;
    if (*activation != SUCCESS)
        return SUCCESS;
    gpu->mig_current = mode;
    return changed(&device);
}

/* --- profiles ------------------------------------------------------------------------------------------------ */

/* Seen: a profile that the board does not have is not supported, a number that no board has is an invalid argument. */
static int find_profile(const struct gpu *gpu, unsigned id, const struct profile **profile)
{
    for (*profile = gpu->profiles; *profile < gpu->profiles + gpu->profile_count; ++*profile)
        if ((*profile)->info.id == id)
            return SUCCESS;
    return id < 68 ? NOT_SUPPORTED : INVALID_ARGUMENT;
}

static int find_enumerated(const struct gpu *gpu, unsigned enumerator, const struct profile **profile)
{
    for (*profile = gpu->profiles; *profile < gpu->profiles + gpu->profile_count; ++*profile)
        if ((*profile)->enumerator == enumerator)
            return SUCCESS;
    return enumerator <= 0x10 ? NOT_SUPPORTED : INVALID_ARGUMENT;
}

EXPORT nvmlDeviceGetGpuInstanceProfileInfo(handle given, unsigned enumerator, struct profile_info *info)
{
    const struct profile *profile;
    CALL_ON(find_gpu, given);
    TRY(find_enumerated(gpu, enumerator, &profile));
    *info = profile->info;
    return SUCCESS;
}

struct profile_info_v2 {
    unsigned version, numbers[10];
    unsigned long long memory_mib;
    char name[96];
};

/* Seen: names begin with "MIG ", the version comes back as 0, and another version is an invalid argument. (There is a
 * third version, which pynvml does not use.) */
EXPORT nvmlDeviceGetGpuInstanceProfileInfoV(handle given, unsigned enumerator, struct profile_info_v2 *info)
{
    const struct profile *profile;
    CALL_ON(find_gpu, given);
    if (info->version != (sizeof *info | 2u << 24))
        return INVALID_ARGUMENT;
    TRY(find_enumerated(gpu, enumerator, &profile));
    *info = (struct profile_info_v2){.memory_mib = profile->info.memory_mib};
    memcpy(info->numbers, &profile->info, sizeof info->numbers);
    snprintf(info->name, sizeof info->name, "MIG %s", profile->name);
    return SUCCESS;
}

/* --- placements ---------------------------------------------------------------------------------------------- */

static unsigned memory_taken(struct gpu *gpu)
{
    unsigned taken = 0;
    EACH(one, gpu->gpu_instances)
        taken |= mask_of(one->start, gpu->profiles[one->profile].size);
    return taken;
}

/* How many more of the profile there may be, wherever they find room. */
static unsigned allowance(struct gpu *gpu, const struct profile *profile)
{
    unsigned left = profile->info.instances;
    EACH(one, gpu->gpu_instances)
        left -= &gpu->profiles[one->profile] == profile;
    return left;
}

static bool fits(const struct profile *profile, unsigned start, unsigned taken)
{
    return start < 32 && profile->starts >> start & 1 && !(mask_of(start, profile->size) & taken);
}

/* How many places for instances are lost, over all profiles, when these memory slices are taken as well. */
static unsigned loss(const struct gpu *gpu, unsigned taken, unsigned mask)
{
    unsigned lost = 0;
    for (unsigned i = 0; i < gpu->profile_count; i++)
        for (unsigned start = 0; start < gpu->memory_slices; start++)
            lost += fits(&gpu->profiles[i], start, taken) && !fits(&gpu->profiles[i], start, taken | mask);
    return lost;
}

/* Where a driver puts an instance when nobody says where: it spoils the least, and lies leftmost among equals. This
 * gives the ids that NVIDIA's MIG user guide shows: 13, 11, 12, 7, 8, 9, 10 for seven times 1g; 13, 5, 1 for 1g, 2g, 4g;
 * 2, 3, 9, 10 for 3g, 2g, 1g, 1g; and no room for a 3g after 1g, 1g, 2g. */
static unsigned best_start(struct gpu *gpu, const struct profile *profile)
{
    unsigned taken = memory_taken(gpu), least = ~0u, best = ~0u;
    for (unsigned start = 0; start < gpu->memory_slices; start++)
        if (fits(profile, start, taken) && loss(gpu, taken, mask_of(start, profile->size)) < least) {
            least = loss(gpu, taken, mask_of(start, profile->size));
            best = start;
        }
    return best;
}

/* Documented: every legal place, whether or not something is there. */
EXPORT nvmlDeviceGetGpuInstancePossiblePlacements_v2(handle given, unsigned id, struct placement *places, unsigned *count)
{
    const struct profile *profile;
    CALL_ON(find_cuttable, given);
    TRY(find_profile(gpu, id, &profile));
    return give_places(profile->starts, profile->size, places, count);
}

EXPORT nvmlDeviceGetGpuInstanceRemainingCapacity(handle given, unsigned id, unsigned *count)
{
    const struct profile *profile;
    CALL_ON(find_cuttable, given);
    TRY(find_profile(gpu, id, &profile));
    *count = 0;
    for (unsigned start = 0; start < gpu->memory_slices; start++) /* the places of one profile do not overlap */
        *count += *count < allowance(gpu, profile) && fits(profile, start, memory_taken(gpu));
    return SUCCESS;
}

/* --- GPU instances ------------------------------------------------------------------------------------------- */

static int create(const struct device *device, unsigned id, const struct placement *where, handle *created)
{
    const struct profile *profile;
    struct gpu *gpu = device->gpu;
    if (!gpu->mig_current)
        return NOT_SUPPORTED;
    TRY(find_profile(gpu, id, &profile));
    if (where && (where->size != profile->size || !fits(profile, where->start, 0)))
        return INVALID_ARGUMENT;
    unsigned start = where ? where->start : best_start(gpu, profile);
    if (allowance(gpu, profile) == 0 || !fits(profile, start, memory_taken(gpu)))
        return INSUFFICIENT_RESOURCES;
    struct gpu_instance *one = gpu->gpu_instances;
    while (one->serial) /* there are as many places as memory slices */
        one++;
    *one = (struct gpu_instance){
        .serial = ++machine->last_serial,
        /* The nodes of a binary tree over the memory slices, numbered level by level: 7g is 0, 3g and 4g are 1 and 2. */
        .id = gpu->memory_slices / profile->size - 1 + start / profile->size,
        .profile = (uint32_t)(profile - gpu->profiles),
        .start = start,
        .memory_used_bytes = IDLE_BYTES,
    };
    memcpy(one->metrics, gpu->metrics, sizeof one->metrics);
    for (unsigned i = 0; i < MAX_METRICS; i++)
        one->metrics[i].value = 0;
    *created = make_handle(GPU_INSTANCE_HANDLE, device->index, one->serial);
    return changed(device);
}

EXPORT nvmlDeviceCreateGpuInstance(handle given, unsigned id, handle *created)
{
    CALL_ON(find_cuttable, given);
    return create(&device, id, NULL, created);
}

EXPORT nvmlDeviceCreateGpuInstanceWithPlacement(handle given, unsigned id, const struct placement *where, handle *created)
{
    CALL_ON(find_cuttable, given);
    return create(&device, id, where, created);
}

EXPORT nvmlGpuInstanceDestroy(handle given)
{
    CALL_ON(find_gpu_instance, given);
    EACH(one, gpu->compute_instances)
        if (one->parent == device.gpu_instance->serial)
            return IN_USE;
    if (is_occupied(&device))
        return IN_USE;
    *device.gpu_instance = (struct gpu_instance){0};
    return changed(&device);
}

EXPORT nvmlDeviceGetGpuInstances(handle given, unsigned id, handle *instances, unsigned *count)
{
    const struct profile *profile;
    CALL_ON(find_cuttable, given);
    *count = 0;
    int result = find_profile(gpu, id, &profile);
    EACH(one, gpu->gpu_instances)
        if (&gpu->profiles[one->profile] == profile)
            instances[(*count)++] = make_handle(GPU_INSTANCE_HANDLE, device.index, one->serial);
    return result == NOT_SUPPORTED ? SUCCESS : result; /* seen */
}

EXPORT nvmlDeviceGetGpuInstanceById(handle given, unsigned id, handle *instance)
{
    CALL_ON(find_cuttable, given);
    const struct gpu_instance *one = gpu_instance_by_id(gpu, id);
    *instance = make_handle(GPU_INSTANCE_HANDLE, device.index, one ? one->serial : 0);
    return one ? SUCCESS : NOT_FOUND;
}

struct gpu_instance_info {
    handle device;
    unsigned id, profile_id;
    struct placement placement;
};

EXPORT nvmlGpuInstanceGetInfo(handle given, struct gpu_instance_info *info)
{
    CALL_ON(find_gpu_instance, given);
    const struct gpu_instance *one = device.gpu_instance;
    const struct profile *profile = &gpu->profiles[one->profile];
    handle parent = make_handle(GPU_HANDLE, device.index, 0);
    *info = (struct gpu_instance_info){parent, one->id, profile->info.id, {one->start, profile->size}};
    return SUCCESS;
}

/* --- compute instances --------------------------------------------------------------------------------------- */

/* A way to cut a GPU instance of so many compute slices; `starts` is a bit mask of them. */
struct share {
    const struct profile *whole;
    unsigned size, starts;
};

/* The id of a profile is its enumerator. Documented, `nvidia-smi mig -lcip`: a 4g takes 1c, 2c and 4c, and a 7g no 5c or
 * 6c. Revisions of the 1-slice profile exist on some boards and are not modelled. */
static int find_share(const struct device *device, unsigned number, struct share *share)
{
    static const unsigned sizes[] = {1, 2, 3, 4, 7};
    const struct profile *whole = &device->gpu->profiles[device->gpu_instance->profile];
    if (number >= sizeof sizes / sizeof *sizes)
        return number < 9 ? NOT_SUPPORTED : INVALID_ARGUMENT;
    *share = (struct share){whole, sizes[number], 0};
    for (unsigned start = 0; start + share->size <= whole->info.slices; start += share->size == 3 ? 4 : share->size)
        share->starts |= 1u << start;
    return share->starts == 0 || (share->size == 3 && whole->info.slices == 4) ? NOT_SUPPORTED : SUCCESS;
}

/* The places of a share that are free. */
static unsigned free_starts(const struct device *device, const struct share *share)
{
    unsigned starts = share->starts;
    EACH(one, device->gpu->compute_instances)
        for (unsigned start = 0; start < 8; start++)
            if (one->parent == device->gpu_instance->serial &&
                mask_of(start, share->size) & mask_of(one->start, one->slices))
                starts &= ~(1u << start);
    return starts;
}

/* All of a GPU instance, or as many times what a 1g has as slices are taken. */
static unsigned sm_count_of(const struct gpu *gpu, const struct share *share)
{
    unsigned least = share->whole->info.sm_count;
    for (unsigned i = 0; i < gpu->profile_count; i++)
        if (gpu->profiles[i].info.slices == 1 && gpu->profiles[i].info.sm_count < least)
            least = gpu->profiles[i].info.sm_count;
    return share->size == share->whole->info.slices ? share->whole->info.sm_count : least * share->size;
}

struct share_info {
    unsigned id, slices, instances, sm_count, engines[5];
};

struct share_info_v2 {
    unsigned version;
    struct share_info info;
    char name[96];
};

static int describe(const struct device *device, unsigned number, unsigned engine, struct share_info_v2 *info)
{
    struct share share;
    if (engine != 0)
        return INVALID_ARGUMENT;
    TRY(find_share(device, number, &share));
    unsigned instances = (unsigned)__builtin_popcount(share.starts);
    info->info = (struct share_info){number, share.size, instances, sm_count_of(device->gpu, &share), {0}};
    memcpy(info->info.engines, &share.whole->info.copy_engines, sizeof info->info.engines);
    if (share.size == share.whole->info.slices)
        snprintf(info->name, sizeof info->name, "MIG %s", share.whole->name);
    else
        snprintf(info->name, sizeof info->name, "MIG %uc.%s", share.size, share.whole->name);
    return SUCCESS;
}

EXPORT nvmlGpuInstanceGetComputeInstanceProfileInfo(handle given, unsigned number, unsigned engine,
                                                    struct share_info *info)
{
    CALL_ON(find_gpu_instance, given);
    struct share_info_v2 all;
    TRY(describe(&device, number, engine, &all));
    *info = all.info;
    return SUCCESS;
}

EXPORT nvmlGpuInstanceGetComputeInstanceProfileInfoV(handle given, unsigned number, unsigned engine,
                                                     struct share_info_v2 *info)
{
    CALL_ON(find_gpu_instance, given);
    return info->version == (sizeof *info | 2u << 24) ? describe(&device, number, engine, info) : INVALID_ARGUMENT;
}

EXPORT nvmlGpuInstanceGetComputeInstancePossiblePlacements(handle given, unsigned number, struct placement *places,
                                                           unsigned *count)
{
    CALL_ON(find_gpu_instance, given);
    struct share share;
    TRY(find_share(&device, number, &share));
    return give_places(share.starts, share.size, places, count);
}

EXPORT nvmlGpuInstanceGetComputeInstanceRemainingCapacity(handle given, unsigned number, unsigned *count)
{
    CALL_ON(find_gpu_instance, given);
    struct share share;
    TRY(find_share(&device, number, &share));
    *count = (unsigned)__builtin_popcount(free_starts(&device, &share));
    return SUCCESS;
}

/* A UUID of version 4: another one whenever a device is made again. */
static void name_slice(struct compute_instance *one)
{
    uint8_t b[16] = {0};
    if (getrandom(b, sizeof b, 0) < 0)
        b[0] = (uint8_t)one->serial;
    b[6] = (b[6] & 0x0f) | 0x40;
    b[8] = (b[8] & 0x3f) | 0x80;
    snprintf(one->uuid, sizeof one->uuid, "MIG-%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x",
             b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7], b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15]);
}

static int create_compute(const struct device *device, unsigned number, const struct placement *where, handle *created)
{
    struct share share;
    struct gpu *gpu = device->gpu;
    TRY(find_share(device, number, &share));
    if (where && (where->size != share.size || where->start > 7 || !(share.starts >> where->start & 1)))
        return INVALID_ARGUMENT;
    unsigned starts = free_starts(device, &share) & (where ? 1u << where->start : ~0u), id = 0;
    if (starts == 0)
        return INSUFFICIENT_RESOURCES;
    EACH(one, gpu->compute_instances) /* twice, whatever their order: the least that is not taken */
        EACH(other, gpu->compute_instances)
            id += other->parent == device->gpu_instance->serial && other->id == id;
    struct compute_instance *one = gpu->compute_instances;
    while (one->serial) /* there are more places than compute slices */
        one++;
    *one = (struct compute_instance){
        .serial = ++machine->last_serial,
        .parent = device->gpu_instance->serial,
        .id = id,
        .profile_id = number,
        .start = (unsigned)__builtin_ctz(starts),
        .slices = share.size,
        .sm_count = sm_count_of(gpu, &share),
    };
    name_slice(one);
    *created = make_handle(COMPUTE_INSTANCE_HANDLE, device->index, one->serial);
    return changed(device);
}

EXPORT nvmlGpuInstanceCreateComputeInstance(handle given, unsigned number, handle *created)
{
    CALL_ON(find_gpu_instance, given);
    return create_compute(&device, number, NULL, created);
}

EXPORT nvmlGpuInstanceCreateComputeInstanceWithPlacement(handle given, unsigned number, const struct placement *where,
                                                         handle *created)
{
    CALL_ON(find_gpu_instance, given);
    return create_compute(&device, number, where, created);
}

EXPORT nvmlComputeInstanceDestroy(handle given)
{
    CALL_ON(find_compute_instance, given);
    if (is_occupied(&device))
        return IN_USE;
    *device.compute_instance = (struct compute_instance){0};
    return changed(&device);
}

EXPORT nvmlGpuInstanceGetComputeInstances(handle given, unsigned number, handle *instances, unsigned *count)
{
    CALL_ON(find_gpu_instance, given);
    *count = 0;
    EACH(one, gpu->compute_instances)
        if (one->parent == device.gpu_instance->serial && one->profile_id == number)
            instances[(*count)++] = make_handle(COMPUTE_INSTANCE_HANDLE, device.index, one->serial);
    return SUCCESS;
}

EXPORT nvmlGpuInstanceGetComputeInstanceById(handle given, unsigned id, handle *instance)
{
    CALL_ON(find_gpu_instance, given);
    EACH(one, gpu->compute_instances)
        if (one->parent == device.gpu_instance->serial && one->id == id) {
            *instance = make_handle(COMPUTE_INSTANCE_HANDLE, device.index, one->serial);
            return SUCCESS;
        }
    return NOT_FOUND;
}

struct compute_instance_info {
    handle device, gpu_instance;
    unsigned id, profile_id;
    struct placement placement;
};

EXPORT nvmlComputeInstanceGetInfo_v2(handle given, struct compute_instance_info *info)
{
    CALL_ON(find_compute_instance, given);
    const struct compute_instance *one = device.compute_instance;
    handle parent = make_handle(GPU_HANDLE, device.index, 0);
    handle whole = make_handle(GPU_INSTANCE_HANDLE, device.index, one->parent);
    *info = (struct compute_instance_info){parent, whole, one->id, one->profile_id, {one->start, one->slices}};
    return SUCCESS;
}
