// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * stash - plugins found, and copied to where nobody overwrites them.
 *
 * Find   NAME.so or NAME/NAME.so in, one after another: the --plugins folder, $SALVER_PLUGINS
 * (folders with ':' between), `plugins` beside this executable, `../lib/salver/plugins` beside its
 *        folder. A name with a slash is a path, relative to the YAML file's folder.
 * Copy   to <state>/plugins/<sha256>/: the plugin, and when it lies in a folder of its own name
 * every other shared library there. The hash is taken of the bytes that are copied. Made in a
 *        temporary folder and renamed: a folder with a hash for a name is always whole.
 *        What is there already, by its bytes, is not copied again: a full disk is no obstacle then.
 * Sweep  copies that nobody uses any more go, STASH_SWEEP_MAX at a time. Not while a copy is made.
 * Bounds STASH_FILES_MAX libraries beside a plugin.
 * Thread any; blocks on the disk.
 */
#include <limits.h>
#include <stdbool.h>
#include <stdint.h>

struct err;

enum { STASH_FILES_MAX = 256, STASH_PATH_MAX = 4096, STASH_SWEEP_MAX = 8 };

struct stash {
    char path[STASH_PATH_MAX]; // of the copy
    char dir[STASH_PATH_MAX];  // its folder, <state>/plugins/<sha256>
};

// The plugin's file. base_dir: of the YAML file; plugins_dir: --plugins, or NULL.
int stash_find(const char *plugin, const char *base_dir, const char *plugins_dir,
               char ret_path[STASH_PATH_MAX], struct err *err);
// Of the files that stash_copy would copy: changes when one of them was written or replaced.
int stash_stamp(const char *path, uint64_t *ret, struct err *err);
int stash_copy(const char *path, const char *state_dir, struct stash *ret, struct err *err);
// Copies for whose sha256 keeps() says no, and what was left of one that was cut short. How many
// went; STASH_SWEEP_MAX: there may be more.
uint32_t stash_sweep(const char *state_dir, bool (*keeps)(void *ctx, const char *sha256),
                     void *ctx);
