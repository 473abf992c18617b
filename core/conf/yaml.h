// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * yaml - one YAML document as a tree that knows where every key and value was written.
 *
 * Types    plain scalars by YAML 1.2's core schema: null, true/false, 12, 0x1f, 0o17, 1.5e3, .inf;
 *          `yes`, `no`, `on`, `off`, 10_000 and dates are texts. Quoted scalars are texts. The tags
 *          of that schema (!!str, !!int ...) are obeyed, others refused.
 * Aliases  are copied out, so a tree has no shared nodes; `<<: *base` merges as in YAML 1.1.
 * Bounds   CONF_FILE_MAX bytes, CONF_DEPTH_MAX levels, CONF_NODES_MAX nodes and YAML_TEXT_MAX bytes
 *          of text, both with aliases counted each time (no "billion laughs").
 * Refused  duplicate keys (with both places), keys that are not scalars, a second document, NUL.
 * Owner    everything hangs on the arena.
 * Thread   one at a time.
 */
#include "conf/report.h"

#include <stddef.h>

struct buf;

enum { YAML_TEXT_MAX = 4 << 20 }; // bytes of all scalars together

enum yaml_kind { YAML_NULL, YAML_BOOL, YAML_INT, YAML_NUM, YAML_TEXT, YAML_SEQ, YAML_MAP };

struct yaml_node {
    enum yaml_kind kind;
    bool plain;  // a scalar without quotes or tag: its text alone decides its kind
    bool secret; // text came from ${ENV} or file:, or stands where a secret stands
    bool broken; // a reference in it failed and was reported: nothing more is to be said
    struct place at;
    const char *text; // scalars: as written, NUL-terminated
    union {
        bool boolean;
        int64_t whole;
        double number; // may be infinite or NaN
    };
    uint32_t n;               // of items or pairs
    struct yaml_node **items; // YAML_SEQ
    struct yaml_pair *pairs;  // YAML_MAP
};

struct yaml_pair {
    const char *key;
    struct place at;
    struct yaml_node *value; // never NULL
};

// The tree of `p[0, n)`, or NULL with at least one error in the report. An empty text is a
// YAML_NULL.
struct yaml_node *yaml_parse(const char *name, const char *p, size_t n, struct report *r);

// A scalar built by us: text as it would stand in YAML without quotes.
struct yaml_node *yaml_scalar(struct arena *arena, struct place at, const char *text);
struct yaml_node *yaml_map(struct arena *arena, struct place at, uint32_t n_max);
void yaml_add(struct yaml_node *map, const char *key, struct yaml_node *value); // within n_max

// Decides kind and value of a plain scalar's text anew (it changed).
void yaml_retype(struct yaml_node *node);

// The value of a key, or NULL (also when `map` is NULL or no map).
struct yaml_node *yaml_get(const struct yaml_node *map, const char *key);
const struct yaml_pair *yaml_pair(const struct yaml_node *map, const char *key);

// `over` laid on `base`: maps key by key, anything else replaced. Neither is changed.
struct yaml_node *yaml_merge(struct arena *arena, struct yaml_node *base, struct yaml_node *over);

const char *yaml_kind_text(const struct yaml_node *node);      // "a list"
void yaml_json(const struct yaml_node *node, struct buf *out); // .inf and .nan become null

// A list or mapping as YAML, block style, `indent` spaces deep. Secrets are written "***".
void yaml_write(const struct yaml_node *node, unsigned indent, struct buf *out);
// A text so that it reads back as the same text: plain where that is possible, else quoted.
void yaml_write_text(const char *text, struct buf *out);
void yaml_write_number(double v, struct buf *out); // finite; shortest form that reads back
