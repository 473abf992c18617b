// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * plugin - one plugin file, loaded and looked over.
 *
 * Load    dlopen(RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE), never dlclose. Static constructors of the
 *         file run in plugin_open, on its caller's thread.
 * Sizes   the descriptor and each option row are copied into zeroed structs of our own size, so an
 *         older plugin's missing fields are zero; what a newer one has beyond is not looked at, but
 *         if it isn't zero there is a warning.
 * Refuses what breaks a rule of the ABI, with the value found and the one wanted.
 * Thread  plugin_open's, then read-only.
 */
#include "abi/plugin.h"

struct err;

enum {
    PLUGIN_DESC_MAX = 4096,   // bytes of a descriptor
    PLUGIN_OPTION_MAX = 1024, // bytes of an option row
    PLUGIN_OPTIONS_MAX = 4096,
    PLUGIN_NAME_MAX = 64,
    PLUGIN_PATH_MAX = 4096,
    PLUGIN_WARNINGS = 8,
};

struct plugin {
    sv_plugin d;        // the copy; name, version and about are never NULL
    sv_option *options; // owned array, strings are the plugin's
    uint32_t n_options;
    char warnings[PLUGIN_WARNINGS][256];
    uint32_t n_warnings;
};

int plugin_open(struct plugin *p, const char *path, struct err *err);
// The checks alone, of an object that is in memory already.
int plugin_check(struct plugin *p, const sv_plugin *raw, struct err *err);
void plugin_finish(struct plugin *p); // the file stays loaded
