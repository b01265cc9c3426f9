/* GPM: what a GPU or a GPU instance did between two samples. Samples hold what the state said when they were taken. */
#include "library.h"

#include <math.h>
#include <string.h>
#include <time.h>

enum { MAX_SAMPLES = 64, DRAM_BANDWIDTH = 10, FIRST_UNKNOWN = 300 };

/* Documented; seen up to 60 ms. */
static const uint64_t SHORTEST_NS = 100000000;

struct sample {
    bool allocated;
    uint64_t taken_ns;
    struct metric metrics[MAX_METRICS];
};

static struct sample samples[MAX_SAMPLES];

void forget_samples(void)
{
    memset(samples, 0, sizeof samples);
}

static int find_sample(handle given, struct sample **sample)
{
    uint32_t number;
    TRY(open_handle(given, SAMPLE_HANDLE, &number));
    if (number >= MAX_SAMPLES || !samples[number].allocated)
        return INVALID_ARGUMENT;
    *sample = &samples[number];
    return SUCCESS;
}

EXPORT nvmlGpmSampleAlloc(handle *allocated)
{
    CALL(0);
    for (unsigned i = 0; i < MAX_SAMPLES; i++)
        if (!samples[i].allocated) {
            samples[i] = (struct sample){.allocated = true};
            *allocated = make_handle(SAMPLE_HANDLE, 0, i);
            return SUCCESS;
        }
    return MEMORY;
}

EXPORT nvmlGpmSampleFree(handle given)
{
    struct sample *sample;
    CALL(0);
    TRY(find_sample(given, &sample));
    sample->allocated = false;
    return SUCCESS;
}

static int take(const struct gpu *gpu, const struct metric *metrics, handle given)
{
    struct sample *sample;
    struct timespec now;
    TRY(find_sample(given, &sample));
    if (!gpu->gpm_supported)
        return NOT_SUPPORTED;
    clock_gettime(CLOCK_MONOTONIC, &now);
    sample->taken_ns = (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
    memcpy(sample->metrics, metrics, sizeof sample->metrics);
    return SUCCESS;
}

EXPORT nvmlGpmSampleGet(handle given, handle given_sample)
{
    CALL_ON(find_device, given);
    if (device.compute_instance == NULL)
        return take(gpu, gpu->metrics, given_sample);
    const struct gpu_instance *live = gpu_instance_of(gpu->gpu_instances, device.gpu_instance->serial);
    return live ? take(gpu, live->metrics, given_sample) : NOT_FOUND;
}

/* Seen: an invalid argument where there is no such GPU instance. */
EXPORT nvmlGpmMigSampleGet(handle given, unsigned gpu_instance_id, handle given_sample)
{
    CALL_ON(find_gpu, given);
    const struct gpu_instance *one = gpu_instance_by_id(gpu, gpu_instance_id);
    return one ? take(gpu, one->metrics, given_sample) : INVALID_ARGUMENT;
}

struct metric_value {
    unsigned id;
    int result;
    double value;
    const char *short_name, *long_name, *unit;
};

struct metrics_get {
    unsigned version, count;
    handle first, second;
    struct metric_value metrics[]; /* as many as `count` says: how many there are at most differs between releases */
};

/* The names outlive a session, which the state does not. */
static const char *lasting_name(const struct metric *metric)
{
    static char names[FIRST_UNKNOWN][sizeof metric->name];
    memcpy(names[metric->id], metric->name, sizeof metric->name);
    return names[metric->id];
}

static bool is_rate(unsigned id)
{
    return id == 20 || id == 21 || id >= 60;
}

/* Seen: a metric that the board does not have is 0 as any other, and has no name; of samples that are too close
 * together the memory bandwidth is no number and everything else 0. */
static void evaluate(struct metric_value *asked, const struct sample *sample, bool too_close)
{
    *asked = (struct metric_value){.id = asked->id, .result = INVALID_ARGUMENT};
    if (asked->id == 0 || asked->id >= FIRST_UNKNOWN)
        return;
    asked->result = SUCCESS;
    asked->unit = is_rate(asked->id) ? "MiB/s" : "%";
    for (unsigned i = 0; i < MAX_METRICS; i++)
        if (sample->metrics[i].id == asked->id) {
            asked->value = sample->metrics[i].value;
            asked->short_name = asked->long_name = lasting_name(&sample->metrics[i]);
            if (too_close)
                asked->value = asked->id == DRAM_BANDWIDTH ? NAN : 0;
        }
}

EXPORT nvmlGpmMetricsGet(struct metrics_get *wanted)
{
    struct sample *first, *second;
    CALL(0);
    if (wanted->version != 1)
        return ARGUMENT_VERSION_MISMATCH;
    TRY(find_sample(wanted->first, &first));
    TRY(find_sample(wanted->second, &second));
    if (first->taken_ns == 0 || second->taken_ns < first->taken_ns)
        return INVALID_ARGUMENT;
    for (unsigned i = 0; i < wanted->count; i++)
        evaluate(&wanted->metrics[i], second, second->taken_ns - first->taken_ns < SHORTEST_NS);
    return SUCCESS;
}

struct gpm_support {
    unsigned version, supported;
};

EXPORT nvmlGpmQueryDeviceSupport(handle given, struct gpm_support *support)
{
    CALL_ON(find_device, given);
    support->supported = gpu->gpm_supported;
    return support->version == 1 ? SUCCESS : ARGUMENT_VERSION_MISMATCH;
}
