// SPDX-License-Identifier: Apache-2.0
// Any bytes as a safetensors file, and as the index of a folder with one file, a.safetensors.
#include "base/check.h"
#include "base/err.h"
#include "common/tensors.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static volatile unsigned sum; // so that reads are made

static void check_tensors(const char *path)
{
    struct tensors *t;
    struct err err = {0};
    if (tensors_open_safetensors(path, &t, &err) < 0) {
        CHECK(err.code < 0 && err.msg[0]);
        return;
    }
    for (uint32_t i = 0; i < tensors_count(t); i++) {
        const struct tensor *at = tensors_at(t, i);
        CHECK(tensors_find(t, at->name) == at);
        for (uint64_t k = 0; k < at->bytes; k++)
            sum += ((const unsigned char *)at->data)[k];
    }
    tensors_close(t);
}

static void write_file(const char *folder, const char *name, const void *p, size_t n)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    int fd = open(path, O_CREAT | O_TRUNC | O_WRONLY, 0600);
    CHECK(fd >= 0 && write(fd, p, n) == (ssize_t)n);
    close(fd);
}

static char folder[] = "/dev/shm/fuzz-XXXXXX";

static void remove_folder(void)
{
    static const char *const names[] = {"a.safetensors", "model.safetensors.index.json"};
    char path[256];
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        unlink(path);
    }
    rmdir(folder);
}

static void make_folder(void)
{
    static const char header[] = "{\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]}}";
    char file[8 + sizeof header + 1] = {sizeof header - 1};
    CHECK(mkdtemp(folder));
    atexit(remove_folder);
    memcpy(file + 8, header, sizeof header - 1);
    write_file(folder, "a.safetensors", file, 8 + sizeof header - 1 + 2);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static bool ready;
    char path[64];
    if (!ready)
        make_folder();
    ready = true;
    int fd = memfd_create("safetensors", 0);
    CHECK(fd >= 0 && write(fd, data, size) == (ssize_t)size);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    check_tensors(path);
    close(fd);
    write_file(folder, "model.safetensors.index.json", data, size);
    check_tensors(folder);
    return 0;
}
