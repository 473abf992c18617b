// SPDX-License-Identifier: Apache-2.0
/*
 * descriptors - plugins with older, newer, broken and hostile descriptors. Compiled once for each
 * name in CMakeLists.txt with -DCASE_<name>; tests/e2e/test_inspect.py says what must come of each.
 *
 * The object is larger than sv_plugin, as one of a later minor would be.
 */
#include "plugin.h"

typedef struct {
    sv_plugin d;
    unsigned char rest[64];
} later;

static int run(void *self, sv_req **reqs, uint32_t n)
{
    (void)self;
    for (uint32_t i = 0; i < n; i++)
        sv_reply(reqs[i], "text/plain", "descriptor", 10);
    return SV_OK;
}

static int submit(void *self, sv_req *r)
{
    (void)self;
    return sv_reply(r, "text/plain", "descriptor", 10);
}

#define OPTION(name, type, low, high)                                                              \
    {                                                                                              \
        type, 0, name, NULL, low, high, "A number."                                                \
    }
#define HEAD(bytes)         .size = (bytes), .abi_major = SV_ABI_MAJOR, .abi_minor = SV_ABI_MINOR
#define GOOD                HEAD(sizeof(sv_plugin)), .name = "descriptor", .version = "1.0", .run = run
#define WITH(table, n, row) GOOD, .options = (table), .n_options = (n), .option_size = (row)
#define SIZE_TO(field)      offsetof(sv_plugin, field)

static const sv_option good_options[] = {OPTION("number", SV_INT, 0, 9)};
static const sv_option twice[] = {OPTION("same", SV_INT, 0, 0), OPTION("same", SV_STR, 0, 0)};
static const sv_option no_name[] = {OPTION(NULL, SV_INT, 0, 0)};
static const sv_option bad_type[] = {OPTION("number", 99, 0, 0)};
static const sv_option bad_range[] = {OPTION("number", SV_INT, 9, 1)};
static const sv_option wild_name[] = {OPTION((const char *)16, SV_INT, 0, 0)};
// Rows of a later minor: longer than ours.
static const struct {
    sv_option o;
    uint64_t more;
} long_rows[] = {{OPTION("first", SV_INT, 0, 0), 1}, {OPTION("second", SV_INT, 0, 0), 2}};
static const char long_name[] =
    "0123456789012345678901234567890123456789012345678901234567890123456789";

SV_EXPORT const later sv_plugin_v1;
const later sv_plugin_v1 = {
#if defined CASE_good
    .d = {WITH(good_options, 1, sizeof(sv_option))},
#elif defined CASE_older      // ends behind run
    .d = {GOOD, .size = SIZE_TO(batch_key)},
#elif defined CASE_older_rest // what lies behind its end is somebody else's
    .d = {GOOD, .size = SIZE_TO(batch_key), .submit = submit},
#elif defined CASE_newer
    .d = {GOOD, .size = sizeof(later), .abi_minor = 9},
#elif defined CASE_newer_rest
    .d = {GOOD, .size = sizeof(later), .abi_minor = 9},
    .rest = {1},
#elif defined CASE_wrong_major
    .d = {GOOD, .abi_major = 2},
#elif defined CASE_major_zero
    .d = {GOOD, .abi_major = 0},
#elif defined CASE_needs_newer
    .d = {GOOD, .abi_minor = 99, .min_host_minor = 99},
#elif defined CASE_unknown_flags
    .d = {GOOD, .flags = 0x80},
#elif defined CASE_both
    .d = {GOOD, .submit = submit},
#elif defined CASE_neither
    .d = {GOOD, .run = NULL},
#elif defined CASE_no_name
    .d = {GOOD, .name = NULL},
#elif defined CASE_empty_name
    .d = {GOOD, .name = ""},
#elif defined CASE_path_name
    .d = {GOOD, .name = "../../etc"},
#elif defined CASE_binary_name
    .d = {GOOD, .name = "a\n\x1b[31mb"},
#elif defined CASE_long_name
    .d = {GOOD, .name = long_name},
#elif defined CASE_wild_name
    .d = {GOOD, .name = (const char *)16},
#elif defined CASE_size_zero
    .d = {GOOD, .size = 0},
#elif defined CASE_size_small
    .d = {GOOD, .size = 16},
#elif defined CASE_size_cut // in the middle of run
    .d = {GOOD, .size = SIZE_TO(run) + 4},
#elif defined CASE_size_huge
    .d = {GOOD, .size = UINT32_MAX},
#elif defined CASE_many_options
    .d = {WITH(good_options, UINT32_MAX, sizeof(sv_option))},
#elif defined CASE_too_many_options // within bounds, beyond the table: runs off the file's pages
    .d = {WITH(good_options, 4000, 1024)},
#elif defined CASE_no_table
    .d = {WITH(NULL, 3, sizeof(sv_option))},
#elif defined CASE_rows_zero
    .d = {WITH(good_options, 1, 0)},
#elif defined CASE_rows_small
    .d = {WITH(good_options, 1, 4)},
#elif defined CASE_rows_huge
    .d = {WITH(good_options, 1, UINT32_MAX)},
#elif defined CASE_rows_long
    .d = {WITH(&long_rows[0].o, 2, sizeof long_rows[0])},
#elif defined CASE_wild_table
    .d = {WITH((const sv_option *)16, 1, sizeof(sv_option))},
#elif defined CASE_option_wild_name
    .d = {WITH(wild_name, 1, sizeof(sv_option))},
#elif defined CASE_option_no_name
    .d = {WITH(no_name, 1, sizeof(sv_option))},
#elif defined CASE_option_twice
    .d = {WITH(twice, 2, sizeof(sv_option))},
#elif defined CASE_option_type
    .d = {WITH(bad_type, 1, sizeof(sv_option))},
#elif defined CASE_option_range
    .d = {WITH(bad_range, 1, sizeof(sv_option))},
#else
#error "no such case"
#endif
};
