/* A stand-in for libcuda.so.1: as much as it takes to have a context, which succeeds, fails or never comes back as the
 * environment says. On which device it is, and who is listed there, is the other stand-in's business. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SUCCESS = 0, NO_DEVICE = 100 };

int cuInit(unsigned flags)
{
    const char *mood = getenv("HETEROMIG_TEST_CUDA");
    (void)flags;
    if (mood && strcmp(mood, "hangs") == 0)
        for (;;)
            pause();
    return mood && strcmp(mood, "fails") == 0 ? NO_DEVICE : SUCCESS;
}

int cuDeviceGet(int *device, int ordinal)
{
    *device = ordinal;
    return SUCCESS;
}

int cuDevicePrimaryCtxRetain(void **context, int device)
{
    (void)device;
    *context = context;
    return SUCCESS;
}
