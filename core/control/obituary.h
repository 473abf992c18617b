// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * obituary - what is known of a process that ended: from its page, which outlived it, and from what
 * the supervisor saw. For the log and for `salver status`.
 *
 * Trust   the page was its owner's: every string and count in it is checked.
 * Bounds  OBITUARY_IDS requests by name (all are counted) and the last PAGE_LOG_LINES lines of its
 *         log and of what it wrote that nobody had read.
 */
#include "wire/page.h"
#include "wire/wire.h"

struct cJSON;

enum {
    OBITUARY_IDS = 1024,   // that status names
    OBITUARY_IDS_LOG = 32, // that the log names
    OBITUARY_SENTENCE = 512,
};

struct obituary {
    char name[128], plugin[128];
    uint64_t pid;
    uint32_t generation;
    int32_t status;       // exit status when signal is 0
    uint32_t signal;      // that ended it, or that its handler saw
    uint64_t address;     // of the fault
    char doing[24];       // the callback of the thread that fell, "" unknown
    char why[256];        // its own last words
    char backtrace[4096]; // a line a frame, "" without
    uint64_t given[OBITUARY_IDS];
    uint32_t n_given; // in all: requests the plugin had
    uint32_t n_lines;
    char lines[PAGE_LOG_LINES][PAGE_LOG_LINE];
};

// `killed_why`: why we killed it, or ""; what it said of its end by itself goes first.
void obituary_read(struct obituary *o, const struct page *p, const struct wire_died *d,
                   const char *killed_why);
// "signal 11 (SIGSEGV) at 0x0 in run(), plugin echo 1.0; 3 requests were aboard"
void obituary_sentence(const struct obituary *o, char out[OBITUARY_SENTENCE]);
void obituary_log(const struct obituary *o);
struct cJSON *obituary_json(const struct obituary *o); // the caller's
