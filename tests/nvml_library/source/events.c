/* Events: a ring of them in the state, and sets that each hear what comes after they were told to listen. */
#include "library.h"

#include <string.h>
#include <time.h>

enum { MAX_SETS = 16, POLL_MS = 2 };

static const uint64_t KNOWN_TYPES = 0xFFFF;

struct event_set {
    bool open;
    uint64_t types[MAX_GPUS];
    uint64_t heard[MAX_GPUS]; /* the last event that this set is done with, for each GPU */
};

static struct event_set sets[MAX_SETS];

void forget_event_sets(void)
{
    memset(sets, 0, sizeof sets);
}

void post_event(unsigned gpu, uint64_t type, uint64_t data)
{
    struct event *event = &machine->events[++machine->last_sequence % MAX_EVENTS];
    *event = (struct event){
        .sequence = machine->last_sequence,
        .type = type,
        .data = data,
        .gpu = gpu,
        .gpu_instance_id = WHOLE_GPU,
        .compute_instance_id = WHOLE_GPU,
    };
}

static int find_set(handle given, struct event_set **set)
{
    uint32_t number;
    TRY(open_handle(given, EVENT_SET_HANDLE, &number));
    if (number >= MAX_SETS || !sets[number].open)
        return INVALID_ARGUMENT;
    *set = &sets[number];
    return SUCCESS;
}

EXPORT nvmlEventSetCreate(handle *created)
{
    CALL(0);
    for (unsigned i = 0; i < MAX_SETS; i++)
        if (!sets[i].open) {
            sets[i] = (struct event_set){.open = true};
            *created = make_handle(EVENT_SET_HANDLE, 0, i);
            return SUCCESS;
        }
    return MEMORY;
}

EXPORT nvmlEventSetFree(handle given)
{
    struct event_set *set;
    CALL(0);
    TRY(find_set(given, &set));
    set->open = false;
    return SUCCESS;
}

EXPORT nvmlDeviceGetSupportedEventTypes(handle given, unsigned long long *types)
{
    CALL_ON(find_gpu, given);
    *types = gpu->supported_events;
    return SUCCESS;
}

/* Seen: bits that no board has are refused, and bits that are known and not supported are not. Documented: what
 * happened before is not heard. */
EXPORT nvmlDeviceRegisterEvents(handle given, unsigned long long types, handle given_set)
{
    struct event_set *set;
    CALL_ON(find_gpu, given);
    TRY(find_set(given_set, &set));
    if (types & ~KNOWN_TYPES)
        return NOT_SUPPORTED;
    if (set->types[device.index] == 0)
        set->heard[device.index] = machine->last_sequence;
    set->types[device.index] |= types & gpu->supported_events;
    return SUCCESS;
}

struct event_data {
    handle device;
    unsigned long long type, data;
    unsigned gpu_instance_id, compute_instance_id;
};

/* The first event that the set has not heard; documented: who may not monitor the GPU is not told of its instances. */
static int next_event(struct event_set *set, struct event_data *data)
{
    const struct event *next = NULL;
    for (unsigned i = 0; i < machine->gpu_count; i++)
        if (set->types[i] && machine->gpus[i].lost)
            return GPU_IS_LOST;
    for (unsigned i = 0; i < MAX_EVENTS; i++) {
        const struct event *event = &machine->events[i];
        if (event->sequence == 0 || event->gpu >= machine->gpu_count || event->sequence <= set->heard[event->gpu] ||
            !(event->type & set->types[event->gpu]) || (next && next->sequence < event->sequence))
            continue;
        next = event;
    }
    if (next == NULL)
        return TIMEOUT;
    set->heard[next->gpu] = next->sequence;
    bool all = require(MAY_MONITOR) == SUCCESS;
    *data = (struct event_data){
        .device = make_handle(GPU_HANDLE, next->gpu, 0),
        .type = next->type,
        .data = next->data,
        .gpu_instance_id = all ? next->gpu_instance_id : WHOLE_GPU,
        .compute_instance_id = all ? next->compute_instance_id : WHOLE_GPU,
    };
    return SUCCESS;
}

static uint64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

EXPORT nvmlEventSetWait_v2(handle given, struct event_data *data, unsigned timeout_ms)
{
    struct event_set *set;
    CALL(0);
    for (uint64_t deadline = now_ms() + timeout_ms;;) {
        TRY(find_set(given, &set)); /* another thread may have freed it meanwhile */
        int result = next_event(set, data);
        if (result != TIMEOUT || now_ms() >= deadline)
            return result;
        TRY(pause_call(POLL_MS));
    }
}
