// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * field - a table beside a struct: what the keys of a mapping are called, mean and may be.
 *
 * From one table come the parser with its checks, the defaults, the messages with their "did you
 * mean", the dump that parses again, JSON, and the documentation.
 *
 * Messages  name the key, what it wants with range and unit, and what it got:
 *           'port' wants a whole number from 1 to 65535, not 70000
 * Thread    one at a time. Tables are constant.
 */
#include "conf/yaml.h"

#include <stddef.h>

struct buf;

enum field_type {
    FIELD_TEXT,    // const char *
    FIELD_BOOL,    // bool
    FIELD_WHOLE,   // uint32_t, uint64_t, int64_t
    FIELD_NUMBER,  // double
    FIELD_BYTES,   // uint32_t, uint64_t; 4096 or 4KiB
    FIELD_SECONDS, // double; 5 or 250ms
    FIELD_CHOICE,  // bool, int: index in `choices`
    FIELD_TREE,    // struct yaml_node *, a mapping that somebody else checks
    FIELD_TABLE,   // a struct of its own inside of ours
    FIELD_LIST,    // an array of structs: pointer at `offset`, uint32_t count at `count`
    FIELD_NONE     // nothing is stored: ignored, refused and old names
};

enum {
    FIELD_REQUIRED = 1 << 0,
    FIELD_OURS = 1 << 1,     // not one of Ray's
    FIELD_NULLABLE = 1 << 2, // null is as good as absent; FIELD_TEXT: null is NULL
    FIELD_PLAN = 1 << 3,     // absent is `unset`: the plugin's plan or another key says
    FIELD_AUTO = 1 << 4,     // FIELD_WHOLE: the word auto is taken, as 0
    FIELD_IGNORED = 1 << 5,  // Ray's, without a meaning here: warns
    FIELD_REFUSED = 1 << 6,  // Ray's, and going on without it would do harm: an error
    FIELD_OLD = 1 << 7,      // an old name of `instead`: warns
    FIELD_LISTS = 1 << 8     // FIELD_TREE: a list is taken, too, and an empty one is something
};

// What a change of the value does to a running deployment.
enum field_reload {
    RELOAD_SERVER, // read when the server starts
    RELOAD_NONE,   // no replica is touched
    RELOAD_LIVE,   // replicas are told and go on
    RELOAD_ROLLING // replicas are replaced one after the other
};

struct field {
    const char *name;
    enum field_type type;
    enum field_reload reload;
    uint32_t flags;
    size_t offset, size;
    double min, max;                 // both 0: any
    double unset;                    // FIELD_PLAN
    const char *def;                 // as it would stand in YAML; NULL: nothing
    const char *unit;                // behind a number in texts: "requests"
    const char *const *choices;      // NULL-terminated
    const char *instead;             // FIELD_OLD: the new name
    const char *also;                // FIELD_OLD: a second one
    const struct field_table *table; // FIELD_TABLE, FIELD_LIST
    size_t present;     // FIELD_TABLE: 1 + offset of a bool that says whether it was there
    size_t unless;      // 1 + offset of a bool: while it is true the field is not dumped
    size_t count;       // FIELD_LIST: offset of the count
    uint32_t items_max; // FIELD_LIST
    const char *doc;    // one line
};

struct field_table {
    const char *name;           // where: "applications[].deployments[]"; NULL: the whole file
    const char *doc;            // a line or two
    size_t size;                // of the struct
    const struct field *fields; // ends with a field without a name
};

#define FIELD(strct, member, kind, ...)                                                            \
    {                                                                                              \
        .name = #member, .type = FIELD_##kind, .offset = offsetof(struct strct, member),           \
        .size = sizeof(((struct strct *)0)->member), __VA_ARGS__                                   \
    }
// For members that are not called as their keys are.
#define FIELD_AS(strct, member, key, kind, ...)                                                    \
    {                                                                                              \
        .name = key, .type = FIELD_##kind, .offset = offsetof(struct strct, member),               \
        .size = sizeof(((struct strct *)0)->member), __VA_ARGS__                                   \
    }
#define FIELD_RAY(key, ...)                                                                        \
    {                                                                                              \
        .name = key, .type = FIELD_NONE, .flags = FIELD_IGNORED, .doc = __VA_ARGS__                \
    }
#define FIELD_RENAMED(key, ...)                                                                    \
    {                                                                                              \
        .name = key, .type = FIELD_NONE, .flags = FIELD_OLD, .instead = __VA_ARGS__                \
    }

const struct field *field_find(const struct field_table *t, const char *name);

void field_defaults(const struct field_table *t, void *obj, struct arena *arena);

// Fills obj from the mapping `node`; what is absent gets its default. `root` is where a key that is
// unknown here is looked for. All that is wrong goes into the report.
struct field_reader {
    struct report *report;
    const struct field_table *root;
};
void field_read(const struct field_reader *r, const struct field_table *t,
                const struct yaml_node *node, void *obj);

union field_value {
    bool boolean;
    int64_t whole; // FIELD_WHOLE, FIELD_BYTES, FIELD_CHOICE
    double number; // FIELD_NUMBER, FIELD_SECONDS
    const char *text;
};
// One scalar against the field's type and range; false: reported.
bool field_scalar(struct report *report, const struct field *f, const struct yaml_node *node,
                  union field_value *ret);

// " (did you mean 'x'?)" on the arena, or "" when nothing is near.
const char *field_hint(struct arena *arena, const char *word,
                       const char *(*candidate)(void *arg, size_t i), void *arg);

void field_dump(const struct field_table *t, const void *obj, unsigned indent, struct buf *out);
// Every key with its default, its line of doc as a comment; parses again. `values` of required keys
// are `obj`'s.
void field_dump_defaults(const struct field_table *t, const void *obj, unsigned indent,
                         struct buf *out);
void field_doc(const struct field_table *t, struct buf *out); // Markdown, nested tables too
// An object of a table of scalars alone.
void field_json(const struct field_table *t, const void *obj, struct buf *out);
// "1 to 65535 requests", "" without a range.
void field_range_text(const struct field *f, struct buf *out);
