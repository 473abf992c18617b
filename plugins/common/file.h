// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * file - a file from outside, whole: mapped read-only, or read into memory.
 *
 * Checked  a regular file (a symlink to one is fine) of at most `max` bytes.
 * Owner    file_unmap; the mapping outlives the descriptor, which is closed at once. A file cut
 *          short while it is mapped kills whoever reads there (SIGBUS).
 * Thread   any.
 */
#include <stddef.h>
#include <stdint.h>

struct buf;
struct err;

struct file_map {
    const uint8_t *p; // NULL: nothing is mapped
    size_t n;
};

// An empty file is refused. SV_E_NOT_FOUND, SV_E_INVALID, SV_E_TOO_LARGE.
int file_map(const char *path, uint64_t max, struct file_map *ret, struct err *err);
void file_unmap(struct file_map *m);
void file_prefetch(const struct file_map *m); // asks the system to begin reading all of it
void file_forget(const struct file_map *m);   // its pages leave this process until they are read

// Appends the file to *out.
int file_read(const char *path, size_t max, struct buf *out, struct err *err);
