// SPDX-License-Identifier: Apache-2.0
/*
 * A driver for machines without one: libnvidia-ml.so.1 with $FAKE_GPUS GPUs of $FAKE_GPU_MIB each.
 * FAKE_GPUS=sick: it hangs. FAKE_GPUS=broken: it gives an error.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))

struct memory {
    unsigned version;
    unsigned long long total, reserved, free, used;
};

static const char *gpus(void)
{
    const char *v = getenv("FAKE_GPUS");
    return v ? v : "0";
}

EXPORT int nvmlInit_v2(void);
int nvmlInit_v2(void)
{
    while (strcmp(gpus(), "sick") == 0)
        sleep(1);
    return strcmp(gpus(), "broken") == 0 ? 18 : 0;
}

EXPORT const char *nvmlErrorString(int code);
const char *nvmlErrorString(int code)
{
    return code == 18 ? "Driver/library version mismatch" : "Unknown Error";
}

EXPORT int nvmlDeviceGetCount_v2(unsigned *n);
int nvmlDeviceGetCount_v2(unsigned *n)
{
    *n = (unsigned)strtoul(gpus(), NULL, 10);
    return 0;
}

EXPORT int nvmlDeviceGetHandleByIndex_v2(unsigned i, void **device);
int nvmlDeviceGetHandleByIndex_v2(unsigned i, void **device)
{
    static char places[64];
    *device = &places[i];
    return 0;
}

EXPORT int nvmlDeviceGetUUID(const void *device, char *out, unsigned cap);
int nvmlDeviceGetUUID(const void *device, char *out, unsigned cap)
{
    void *first;
    nvmlDeviceGetHandleByIndex_v2(0, &first);
    snprintf(out, cap, "GPU-%02dfa0e00-0000-4000-8000-000000000000",
             (int)((const char *)device - (char *)first));
    return 0;
}

EXPORT int nvmlDeviceGetName(const void *device, char *out, unsigned cap);
int nvmlDeviceGetName(const void *device, char *out, unsigned cap)
{
    (void)device;
    snprintf(out, cap, "Fake GPU");
    return 0;
}

EXPORT int nvmlDeviceGetMemoryInfo_v2(const void *device, struct memory *m);
int nvmlDeviceGetMemoryInfo_v2(const void *device, struct memory *m)
{
    const char *mib = getenv("FAKE_GPU_MIB");
    (void)device;
    m->reserved = 100ull << 20;
    m->total = m->reserved + (strtoull(mib ? mib : "8192", NULL, 10) << 20);
    return m->version == (sizeof *m | 2 << 24) ? 0 : 25;
}
