// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * statefile - small files of the state folder: written whole or not at all (a new file, renamed).
 *
 * Bounds  STATEFILE_MAX bytes are read. Thread: any; blocks on the disk.
 */
#include "base/buf.h"

struct err;

enum { STATEFILE_MAX = 64 << 20 };

int statefile_write(const char *dir, const char *name, const char *p, size_t n, struct err *err);
int statefile_read(const char *dir, const char *name, struct buf *out, struct err *err);
int statefile_read_path(const char *path, struct buf *out, struct err *err);
