/* GPUs and MIG devices: which there are, and what can be read of them. */
#include "library.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

/* A number that exists for the GPU as a whole; two of them; one of a row. */
#define READING(function, type, member)        \
    EXPORT function(handle given, type *value) \
    {                                          \
        CALL_ON(find_whole_gpu, given);        \
        *value = (type)gpu->member;            \
        return SUCCESS;                        \
    }

#define READING_PAIR(function, one, other)                           \
    EXPORT function(handle given, unsigned *first, unsigned *second) \
    {                                                                \
        CALL_ON(find_whole_gpu, given);                              \
        *first = gpu->one;                                           \
        *second = gpu->other;                                        \
        return SUCCESS;                                              \
    }

#define READING_ROW(function, member)                               \
    EXPORT function(handle given, unsigned which, unsigned *value)  \
    {                                                               \
        CALL_ON(find_whole_gpu, given);                             \
        if (which >= sizeof gpu->member / sizeof gpu->member[0])    \
            return INVALID_ARGUMENT;                                \
        *value = gpu->member[which];                                \
        return SUCCESS;                                             \
    }

static int put_text(char *buffer, unsigned length, const char *text)
{
    if (strlen(text) >= length)
        return INSUFFICIENT_SIZE;
    strcpy(buffer, text);
    return SUCCESS;
}

/* --- the machine --------------------------------------------------------------------------------------------- */

EXPORT nvmlSystemGetDriverVersion(char *version, unsigned length)
{
    CALL(0);
    return put_text(version, length, machine->driver_version);
}

EXPORT nvmlSystemGetNVMLVersion(char *version, unsigned length)
{
    CALL(0);
    return put_text(version, length, machine->nvml_version);
}

EXPORT nvmlSystemGetCudaDriverVersion_v2(unsigned *version)
{
    CALL(0);
    *version = machine->cuda_version;
    return SUCCESS;
}

/* Seen: the first word of the command line. */
EXPORT nvmlSystemGetProcessName(unsigned pid, char *name, unsigned length)
{
    CALL(0);
    char path[32], command[1024] = "";
    snprintf(path, sizeof path, "/proc/%u/cmdline", pid);
    FILE *file = fopen(path, "r");
    if (file == NULL)
        return NOT_FOUND;
    size_t size = fread(command, 1, sizeof command - 1, file);
    fclose(file);
    return size ? put_text(name, length, command) : NOT_FOUND;
}

EXPORT nvmlDeviceGetCount_v2(unsigned *count)
{
    CALL(0);
    *count = machine->gpu_count;
    return SUCCESS;
}

static int give_out(enum kind kind, unsigned gpu, uint32_t serial, handle *found)
{
    *found = make_handle(kind, gpu, serial);
    return machine->gpus[gpu].lost ? GPU_IS_LOST : SUCCESS;
}

EXPORT nvmlDeviceGetHandleByIndex_v2(unsigned index, handle *found)
{
    CALL(0);
    return index < machine->gpu_count ? give_out(GPU_HANDLE, index, 0, found) : INVALID_ARGUMENT;
}

EXPORT nvmlDeviceGetHandleByUUID(const char *uuid, handle *found)
{
    CALL(0);
    for (unsigned gpu = 0; gpu < machine->gpu_count; gpu++) {
        if (strcmp(machine->gpus[gpu].uuid, uuid) == 0)
            return give_out(GPU_HANDLE, gpu, 0, found);
        if (slice_named(uuid, gpu))
            return give_out(MIG_HANDLE, gpu, slice_named(uuid, gpu), found);
    }
    return NOT_FOUND;
}

/* --- who they are -------------------------------------------------------------------------------------------- */

/* Documented: a compute instance that is not all of its GPU instance says so, as in 1c.3g.40gb. */
EXPORT nvmlDeviceGetName(handle given, char *name, unsigned length)
{
    CALL_ON(find_device, given);
    if (device.compute_instance == NULL)
        return put_text(name, length, gpu->name);
    const struct profile *profile = &gpu->profiles[device.gpu_instance->profile];
    char text[128], share[16] = "";
    if (device.compute_instance->slices != profile->info.slices)
        snprintf(share, sizeof share, "%uc.", device.compute_instance->slices);
    snprintf(text, sizeof text, "%s MIG %s%s", gpu->name, share, profile->name);
    return put_text(name, length, text);
}

EXPORT nvmlDeviceGetUUID(handle given, char *uuid, unsigned length)
{
    CALL_ON(find_device, given);
    return put_text(uuid, length, device.compute_instance ? device.compute_instance->uuid : gpu->uuid);
}

EXPORT nvmlDeviceGetIndex(handle given, unsigned *index)
{
    CALL_ON(find_device, given);
    int at = device.compute_instance ? index_of_slice(device.index, device.compute_instance->serial) : (int)device.index;
    *index = (unsigned)at;
    return at < 0 ? NOT_FOUND : SUCCESS;
}

EXPORT nvmlDeviceGetSerial(handle given, char *serial, unsigned length)
{
    CALL_ON(find_whole_gpu, given);
    return put_text(serial, length, gpu->serial_number);
}

struct pci_info {
    char older_bus_id[16];
    unsigned domain, bus, device, pci_device_id, pci_subsystem_id;
    char bus_id[32];
};

EXPORT nvmlDeviceGetPciInfo_v3(handle given, struct pci_info *info)
{
    CALL_ON(find_whole_gpu, given);
    *info = (struct pci_info){.bus = gpu->pci_bus, .pci_device_id = gpu->pci_device_id};
    strncpy(info->bus_id, gpu->bus_id, sizeof info->bus_id - 1);
    strncpy(info->older_bus_id, gpu->bus_id + 4, sizeof info->older_bus_id - 1); /* its domain is four digits shorter */
    return SUCCESS;
}

READING(nvmlDeviceGetMinorNumber, unsigned, minor_number)
READING(nvmlDeviceGetArchitecture, unsigned, architecture)
READING(nvmlDeviceGetNumGpuCores, unsigned, core_count)
READING_PAIR(nvmlDeviceGetCudaComputeCapability, capability_major, capability_minor)

/* --- MIG devices --------------------------------------------------------------------------------------------- */

EXPORT nvmlDeviceIsMigDeviceHandle(handle given, unsigned *answer)
{
    CALL_ON(find_device, given);
    *answer = device.compute_instance != NULL;
    return SUCCESS;
}

EXPORT nvmlDeviceGetMaxMigDeviceCount(handle given, unsigned *count)
{
    CALL_ON(find_gpu, given);
    *count = gpu->mig_current ? gpu->max_mig_devices : 0;
    return SUCCESS;
}

EXPORT nvmlDeviceGetMigDeviceHandleByIndex(handle given, unsigned index, handle *found)
{
    CALL_ON(find_gpu, given);
    *found = make_handle(MIG_HANDLE, device.index, slice_at(device.index, index));
    return slice_at(device.index, index) ? SUCCESS : NOT_FOUND;
}

EXPORT nvmlDeviceGetDeviceHandleFromMigDeviceHandle(handle given, handle *parent)
{
    CALL_ON(find_slice, given);
    *parent = make_handle(GPU_HANDLE, device.index, 0);
    return SUCCESS;
}

/* Seen: of a whole GPU these two are an invalid argument. */
EXPORT nvmlDeviceGetGpuInstanceId(handle given, unsigned *id)
{
    CALL_ON(find_slice, given);
    *id = device.gpu_instance->id;
    return SUCCESS;
}

EXPORT nvmlDeviceGetComputeInstanceId(handle given, unsigned *id)
{
    CALL_ON(find_slice, given);
    *id = device.compute_instance->id;
    return SUCCESS;
}

struct attributes {
    unsigned sm_count, copy_engines, decoders, encoders, jpegs, ofas, gpu_slices, compute_slices;
    unsigned long long memory_mib;
};

/* Seen: not supported for a whole GPU. */
EXPORT nvmlDeviceGetAttributes_v2(handle given, struct attributes *attributes)
{
    CALL_ON(find_device, given);
    if (device.compute_instance == NULL)
        return NOT_SUPPORTED;
    const struct profile_info *info = &gpu->profiles[device.gpu_instance->profile].info;
    *attributes = (struct attributes){
        device.compute_instance->sm_count, info->copy_engines, info->decoders, info->encoders, info->jpegs, info->ofas,
        info->slices, device.compute_instance->slices, info->memory_mib,
    };
    return SUCCESS;
}

/* --- memory -------------------------------------------------------------------------------------------------- */

struct memory {
    unsigned long long total, free, used;
};

struct memory_v2 {
    unsigned version;
    unsigned long long total, reserved, free, used;
};

/* Documented: of a GPU in MIG mode it is the sum of all instances, for those who may monitor it. */
static int read_memory(struct device *device, struct memory_v2 *memory)
{
    struct gpu *gpu = device->gpu;
    memory->used = resident_bytes(device);
    if (device->compute_instance) {
        const struct gpu_instance *live = gpu_instance_of(gpu->gpu_instances, device->gpu_instance->serial);
        if (live == NULL || compute_instance_of(gpu->compute_instances, device->compute_instance->serial) == NULL)
            return NOT_FOUND;
        memory->total = gpu->profiles[live->profile].info.memory_mib << 20;
        memory->reserved = 0;
        memory->used += live->memory_used_bytes;
    } else {
        if (gpu->mig_current)
            TRY(require(MAY_MONITOR));
        memory->total = gpu->memory_total_bytes;
        memory->reserved = gpu->memory_reserved_bytes;
        memory->used += gpu->memory_used_bytes;
        EACH(one, gpu->gpu_instances)
            memory->used += one->memory_used_bytes;
    }
    uint64_t gone = memory->reserved + memory->used;
    memory->free = gone < memory->total ? memory->total - gone : 0;
    return SUCCESS;
}

/* Seen: what is reserved counts as used here, and not in version 2. */
EXPORT nvmlDeviceGetMemoryInfo(handle given, struct memory *memory)
{
    CALL_ON(find_device, given);
    struct memory_v2 all;
    TRY(read_memory(&device, &all));
    *memory = (struct memory){all.total, all.free, all.reserved + all.used};
    return SUCCESS;
}

/* Seen: another version is answered as if the function were missing. */
EXPORT nvmlDeviceGetMemoryInfo_v2(handle given, struct memory_v2 *memory)
{
    CALL_ON(find_device, given);
    return memory->version == (sizeof *memory | 2u << 24) ? read_memory(&device, memory) : FUNCTION_NOT_FOUND;
}

/* --- power, temperature, clocks ------------------------------------------------------------------------------ */

READING(nvmlDeviceGetPowerUsage, unsigned, power_mw)
READING(nvmlDeviceGetPowerManagementLimit, unsigned, power_limit_mw)
READING(nvmlDeviceGetPowerManagementDefaultLimit, unsigned, power_default_limit_mw)
READING(nvmlDeviceGetEnforcedPowerLimit, unsigned, power_enforced_limit_mw)
READING_PAIR(nvmlDeviceGetPowerManagementLimitConstraints, power_min_limit_mw, power_max_limit_mw)
READING(nvmlDeviceGetTotalEnergyConsumption, unsigned long long, energy_mj)
READING(nvmlDeviceGetCurrentClocksEventReasons, unsigned long long, clocks_event_reasons)
READING(nvmlDeviceGetCurrentClocksThrottleReasons, unsigned long long, clocks_event_reasons)
READING(nvmlDeviceGetSupportedClocksEventReasons, unsigned long long, supported_clocks_event_reasons)
READING(nvmlDeviceGetSupportedClocksThrottleReasons, unsigned long long, supported_clocks_event_reasons)
READING_ROW(nvmlDeviceGetClockInfo, clocks_mhz)
READING_ROW(nvmlDeviceGetMaxClockInfo, max_clocks_mhz)

EXPORT nvmlDeviceGetTemperature(handle given, unsigned sensor, unsigned *celsius)
{
    CALL_ON(find_whole_gpu, given);
    *celsius = gpu->temperature_c;
    return sensor == 0 ? SUCCESS : INVALID_ARGUMENT;
}

struct temperature {
    unsigned version, sensor, celsius;
};

EXPORT nvmlDeviceGetTemperatureV(handle given, struct temperature *temperature)
{
    CALL_ON(find_whole_gpu, given);
    if (temperature->version != (sizeof *temperature | 1u << 24))
        return ARGUMENT_VERSION_MISMATCH;
    temperature->celsius = gpu->temperature_c;
    return temperature->sensor == 0 ? SUCCESS : INVALID_ARGUMENT;
}

/* Seen: four thresholds, four more that servers do not have, and no others. */
EXPORT nvmlDeviceGetTemperatureThreshold(handle given, unsigned which, unsigned *celsius)
{
    CALL_ON(find_whole_gpu, given);
    if (which >= 4)
        return which < 8 ? NOT_SUPPORTED : INVALID_ARGUMENT;
    *celsius = gpu->temperature_thresholds_c[which];
    return SUCCESS;
}

static uint64_t now_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

struct violation {
    unsigned long long reference_us, violated_ns;
};

EXPORT nvmlDeviceGetViolationStatus(handle given, unsigned policy, struct violation *violation)
{
    CALL_ON(find_whole_gpu, given);
    if (policy > 11 || (policy > 5 && policy < 10))
        return INVALID_ARGUMENT;
    *violation = (struct violation){now_us(), gpu->violation_ns[policy]};
    return SUCCESS;
}

/* --- fields by number ---------------------------------------------------------------------------------------- */

enum { UNSIGNED_INT = 1, UNSIGNED_LONG_LONG = 3 };

struct field_value {
    uint32_t id, scope;
    int64_t timestamp_us, latency_us;
    unsigned type;
    int result;
    uint64_t value; /* a union; on the machines that NVML runs on, smaller numbers begin where this one does */
};

static int put(struct field_value *field, unsigned type, uint64_t value)
{
    field->type = type;
    field->value = value;
    return SUCCESS;
}

static int read_field(const struct gpu *gpu, struct field_value *field)
{
    for (unsigned i = 0; i < MAX_FIELD_FAULTS; i++)
        if (gpu->field_faults[i].result && gpu->field_faults[i].id == field->id)
            return gpu->field_faults[i].result;
    switch (field->id) {
    case 74 ... 79: /* power, thermal, synchronous boost, board limit, low utilization, reliability */
        return put(field, UNSIGNED_LONG_LONG, gpu->violation_ns[field->id - 74]);
    case 80 ... 81: /* application clocks, base clocks */
        return put(field, UNSIGNED_LONG_LONG, gpu->violation_ns[field->id - 70]);
    case 82: return put(field, UNSIGNED_INT, gpu->memory_temperature_c);
    case 83:
    case 191: return put(field, UNSIGNED_LONG_LONG, gpu->energy_mj);
    case 184: return put(field, UNSIGNED_INT, gpu->resetless_mig);
    case 185 ... 186: return put(field, UNSIGNED_INT, gpu->power_mw); /* averaged, instant */
    case 187: return put(field, UNSIGNED_INT, gpu->power_min_limit_mw);
    case 188: return put(field, UNSIGNED_INT, gpu->power_max_limit_mw);
    case 189: return put(field, UNSIGNED_INT, gpu->power_default_limit_mw);
    case 190:
    case 192: return put(field, UNSIGNED_INT, gpu->power_limit_mw); /* current, requested */
    case 199: return put(field, UNSIGNED_INT, gpu->mig_capable);
    case 269: return put(field, UNSIGNED_LONG_LONG, gpu->sw_thermal_ns);
    case 270: return put(field, UNSIGNED_LONG_LONG, gpu->hw_thermal_ns);
    case 271: return put(field, UNSIGNED_LONG_LONG, gpu->hw_power_brake_ns);
    default: return field->id < 289 ? NOT_SUPPORTED : INVALID_ARGUMENT; /* seen */
    }
}

EXPORT nvmlDeviceGetFieldValues(handle given, int count, struct field_value *fields)
{
    CALL_ON(find_whole_gpu, given);
    for (int i = 0; i < count; i++) {
        fields[i] = (struct field_value){.id = fields[i].id, .scope = fields[i].scope};
        fields[i].timestamp_us = (int64_t)now_us();
        fields[i].result = read_field(gpu, &fields[i]);
    }
    return SUCCESS;
}

/* --- how it is doing ----------------------------------------------------------------------------------------- */

READING(nvmlDeviceGetPersistenceMode, unsigned, persistence_mode)
READING(nvmlDeviceGetComputeMode, unsigned, compute_mode)
READING(nvmlDeviceGetPerformanceState, unsigned, performance_state)
READING(nvmlDeviceGetCurrPcieLinkGeneration, unsigned, pcie_generation)
READING(nvmlDeviceGetCurrPcieLinkWidth, unsigned, pcie_width)
READING_PAIR(nvmlDeviceGetEccMode, ecc_current, ecc_pending)

struct utilization {
    unsigned gpu, memory;
};

/* Documented: not available in MIG mode, of the GPU no more than of its slices. */
EXPORT nvmlDeviceGetUtilizationRates(handle given, struct utilization *utilization)
{
    CALL_ON(find_whole_gpu, given);
    if (gpu->mig_current)
        return NOT_SUPPORTED;
    *utilization = (struct utilization){gpu->utilization_gpu_percent, gpu->utilization_memory_percent};
    return SUCCESS;
}

enum { DRAM, SRAM };

/* Documented: of an instance only what is uncorrected, volatile and not in DRAM. */
static int count_errors(struct device *device, unsigned error, unsigned counter, int place, unsigned long long *errors)
{
    struct gpu *gpu = device->gpu;
    if (error > 1 || counter > 1)
        return INVALID_ARGUMENT;
    if (!gpu->ecc_current)
        return NOT_SUPPORTED;
    if (device->compute_instance == NULL) {
        *errors += gpu->ecc_errors[error][counter][place];
        return SUCCESS;
    }
    const struct gpu_instance *live = gpu_instance_of(gpu->gpu_instances, device->gpu_instance->serial);
    *errors += live ? live->sram_errors : 0;
    return error == 1 && counter == 0 && place == SRAM ? SUCCESS : NOT_SUPPORTED;
}

EXPORT nvmlDeviceGetTotalEccErrors(handle given, unsigned error, unsigned counter, unsigned long long *total)
{
    CALL_ON(find_device, given);
    *total = 0;
    if (device.compute_instance == NULL)
        TRY(count_errors(&device, error, counter, DRAM, total));
    return count_errors(&device, error, counter, SRAM, total);
}

/* Seen: DRAM (2) and SRAM (7) are all that is counted. */
EXPORT nvmlDeviceGetMemoryErrorCounter(handle given, unsigned error, unsigned counter, unsigned location,
                                       unsigned long long *errors)
{
    CALL_ON(find_device, given);
    *errors = 0;
    if (location == 2 || location == 7)
        return count_errors(&device, error, counter, location == 7 ? SRAM : DRAM, errors);
    return location < 7 ? NOT_SUPPORTED : INVALID_ARGUMENT;
}

EXPORT nvmlDeviceGetRemappedRows(handle given, unsigned *correctable, unsigned *uncorrectable, unsigned *pending,
                                 unsigned *failed)
{
    CALL_ON(find_whole_gpu, given);
    *correctable = gpu->remapped_rows[0];
    *uncorrectable = gpu->remapped_rows[1];
    *pending = gpu->remapped_rows[2];
    *failed = gpu->remapped_rows[3];
    return SUCCESS;
}

/* Seen: boards that remap rows retire no pages. */
EXPORT nvmlDeviceGetRetiredPages(handle given, unsigned cause, unsigned *count, unsigned long long *addresses)
{
    (void)cause, (void)count, (void)addresses;
    CALL_ON(find_whole_gpu, given);
    return NOT_SUPPORTED;
}

EXPORT nvmlDeviceGetRetiredPagesPendingStatus(handle given, unsigned *pending)
{
    (void)pending;
    CALL_ON(find_whole_gpu, given);
    return NOT_SUPPORTED;
}
