// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * doc - one text of configuration as it was accepted, parsed; the store keeps it under its hash.
 *
 * Record  JSON: {"path","text"} of a file or a request, {"plugin","options"} of `serve --plugin`.
 * Owner   counted references; what hangs on doc.conf lives as long.
 */
#include "base/sha256.h"
#include "conf/app.h"

struct cJSON;
struct err;

struct doc {
    uint32_t refs;
    char sha[SHA256_HEX]; // of its record
    char *record;         // owned
    struct conf_file conf;
};

// On failure err is conf_load's.
int doc_from_text(const char *path, const char *text, size_t n, struct doc **ret, struct err *err);
int doc_from_flags(const char *plugin, const struct cJSON *options, struct doc **ret,
                   struct err *err);
int doc_from_record(const char *record, struct doc **ret, struct err *err);
struct doc *doc_ref(struct doc *d);
void doc_unref(struct doc *d);            // NULL is allowed
void doc_warn(struct doc *d, bool quiet); // warnings that were not logged yet; quiet: nor will be
const struct conf_app *doc_app(const struct doc *d, const char *name); // NULL: not in it
