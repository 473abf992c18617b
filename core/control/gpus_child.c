// SPDX-License-Identifier: Apache-2.0
/*
 * The throw-away process that asks the driver. No CUDA header is needed: the few functions are
 * declared as nvml.h and cuda.h have them, and found by name.
 */
#include "base/check.h"
#include "base/os.h"
#include "control/gpus.h"

#include <cjson/cJSON.h>

#include <dlfcn.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct nvml_memory { // nvmlMemory_v2_t
    unsigned version;
    unsigned long long total, reserved, free, used;
};
enum { NVML_MEMORY_V2 = (int)sizeof(struct nvml_memory) | 2 << 24 };

static struct {
    int (*init)(void);
    const char *(*text)(int);
    int (*count)(unsigned *);
    int (*get)(unsigned, void **);
    int (*uuid)(void *, char *, unsigned);
    int (*name)(void *, char *, unsigned);
    int (*memory)(void *, struct nvml_memory *);
} nvml;

static struct {
    int (*init)(unsigned);
    int (*count)(int *);
    int (*get)(int *, int);
    int (*uuid)(unsigned char[16], int);
    int (*name)(char *, int, int);
    int (*memory)(size_t *, int);
} cuda;

struct symbol {
    void *to;
    const char *name;
};

// False: the library is not there, or lacks a function.
static bool find(const char *file, const struct symbol *symbols, size_t n)
{
    void *library = dlopen(file, RTLD_NOW | RTLD_LOCAL);
    for (size_t i = 0; library && i < n; i++) {
        void *at = dlsym(library, symbols[i].name);
        if (!at)
            return false;
        memcpy(symbols[i].to, &at, sizeof at);
    }
    return library;
}

static bool find_nvml(void)
{
    const struct symbol symbols[] = {{&nvml.init, "nvmlInit_v2"},
                                     {&nvml.text, "nvmlErrorString"},
                                     {&nvml.count, "nvmlDeviceGetCount_v2"},
                                     {&nvml.get, "nvmlDeviceGetHandleByIndex_v2"},
                                     {&nvml.uuid, "nvmlDeviceGetUUID"},
                                     {&nvml.name, "nvmlDeviceGetName"},
                                     {&nvml.memory, "nvmlDeviceGetMemoryInfo_v2"}};
    return find("libnvidia-ml.so.1", symbols, ARRAY_LEN(symbols));
}

static bool find_cuda(void)
{
    const struct symbol symbols[] = {
        {&cuda.init, "cuInit"},          {&cuda.count, "cuDeviceGetCount"},
        {&cuda.get, "cuDeviceGet"},      {&cuda.uuid, "cuDeviceGetUuid"},
        {&cuda.name, "cuDeviceGetName"}, {&cuda.memory, "cuDeviceTotalMem_v2"},
    };
    return find("libcuda.so.1", symbols, ARRAY_LEN(symbols));
}

static int nvml_ask(struct gpus *g)
{
    unsigned n = 0;
    int rc = nvml.init();
    if (rc == 0)
        rc = nvml.count(&n);
    for (unsigned i = 0; rc == 0 && i < n && g->n < GPUS_MAX; i++) {
        struct gpu *to = &g->gpu[g->n];
        struct nvml_memory memory = {.version = NVML_MEMORY_V2};
        void *device;
        rc = nvml.get(i, &device);
        if (rc == 0)
            rc = nvml.uuid(device, to->uuid, sizeof to->uuid);
        if (rc == 0)
            rc = nvml.name(device, to->name, sizeof to->name);
        if (rc == 0)
            rc = nvml.memory(device, &memory);
        to->bytes = memory.total - memory.reserved;
        g->n += rc == 0;
    }
    return rc;
}

static int cuda_ask(struct gpus *g)
{
    int n = 0, rc = cuda.init(0);
    if (rc == 0)
        rc = cuda.count(&n);
    for (int i = 0; rc == 0 && i < n && g->n < GPUS_MAX; i++) {
        struct gpu *to = &g->gpu[g->n];
        unsigned char id[16] = {0};
        size_t bytes = 0;
        int device;
        rc = cuda.get(&device, i);
        if (rc == 0)
            rc = cuda.uuid(id, device);
        if (rc == 0)
            rc = cuda.name(to->name, sizeof to->name, device);
        if (rc == 0)
            rc = cuda.memory(&bytes, device);
        int at = snprintf(to->uuid, sizeof to->uuid, "GPU");
        for (int k = 0; k < 16; k++)
            at += snprintf(to->uuid + at, sizeof to->uuid - (size_t)at, "%s%02x",
                           k == 0 || (k >= 4 && k <= 10 && k % 2 == 0) ? "-" : "", id[k]);
        to->bytes = bytes;
        g->n += rc == 0;
    }
    return rc;
}

// The GPU that a word of CUDA_VISIBLE_DEVICES means: an index, or the beginning of a UUID; or -1.
static int find_visible(const struct gpus *g, const char *word, size_t len)
{
    char *end;
    unsigned long index = strtoul(word, &end, 10);
    if (len > 0 && end == word + len && *word != '-')
        return index < g->n ? (int)index : -1;
    for (uint32_t i = 0; i < g->n; i++)
        if (len > 4 && strncmp(g->gpu[i].uuid, word, len) == 0)
            return (int)i;
    return -1;
}

// As CUDA reads it: in the order written, up to the first word that means none.
static void keep_visible(struct gpus *g, const char *visible)
{
    struct gpus all = *g;
    g->n = 0;
    for (const char *p = visible; *p && g->n < GPUS_MAX;) {
        size_t len = strcspn(p, ",");
        int i = find_visible(&all, p, len);
        if (i < 0)
            break;
        g->gpu[g->n++] = all.gpu[i];
        p += len + (p[len] == ',');
    }
}

int gpus_child_main(void)
{
    static struct gpus g;
    const char *visible = getenv("CUDA_VISIBLE_DEVICES");
    os_die_with_parent(SIGKILL);
    if (find_nvml()) {
        int rc = nvml_ask(&g);
        if (rc != 0)
            snprintf(g.why, sizeof g.why, "NVML says: %s (%d)", nvml.text(rc), rc);
        if (visible)
            keep_visible(&g, visible);
    } else if (find_cuda()) { // which reads CUDA_VISIBLE_DEVICES by itself
        int rc = cuda_ask(&g);
        if (rc != 0)
            snprintf(g.why, sizeof g.why, "libcuda fails with error %d", rc);
    }
    cJSON *j = gpus_json(&g);
    char *text = cJSON_PrintUnformatted(j);
    fputs(text, stdout);
    fflush(stdout);
    _exit(0); // the driver's destructors are not ours to wait for
}
