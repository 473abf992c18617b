// SPDX-License-Identifier: Apache-2.0
#include "conf/field.h"

#include "base/buf.h"
#include "base/check.h"
#include "base/str.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

enum { QUOTED_MAX = 80 }; // bytes of a value that a message shows

static void read_field(const struct field_reader *r, const struct field *f,
                       const struct yaml_pair *pair, void *obj);
static void tell_unknown(const struct field_reader *r, const struct field_table *t,
                         const struct yaml_pair *pair);
static void store(const struct field *f, union field_value v, void *obj);

const struct field *field_find(const struct field_table *t, const char *name)
{
    for (const struct field *f = t->fields; f->name; f++)
        if (strcmp(f->name, name) == 0)
            return f;
    return NULL;
}

// --- defaults

static void set_default(const struct field *f, void *obj, struct arena *arena)
{
    union field_value v = {0};

    if (f->type == FIELD_TABLE) {
        field_defaults(f->table, (char *)obj + f->offset, arena);
        return;
    }
    if (f->flags & FIELD_PLAN) {
        if (f->type == FIELD_NUMBER || f->type == FIELD_SECONDS)
            v.number = f->unset;
        else
            v.whole = (int64_t)f->unset;
        store(f, v, obj);
        return;
    }
    if (!f->def || f->type == FIELD_LIST || f->type == FIELD_TREE || f->type == FIELD_NONE)
        return;
    struct report none;
    report_init(&none, arena);
    if (f->type == FIELD_TEXT)
        v.text = f->def;
    else
        CHECK(
            field_scalar(&none, f, yaml_scalar(arena, (struct place){f->name, 0, 0}, f->def), &v));
    store(f, v, obj);
}

void field_defaults(const struct field_table *t, void *obj, struct arena *arena)
{
    for (const struct field *f = t->fields; f->name; f++)
        set_default(f, obj, arena);
}

static void store_whole(const struct field *f, int64_t v, char *at)
{
    if (f->size == sizeof(uint64_t))
        memcpy(at, &v, sizeof v);
    else if (f->size == sizeof(uint32_t))
        memcpy(at, &(uint32_t){(uint32_t)v}, sizeof(uint32_t));
    else if (f->size == sizeof(bool))
        *(bool *)at = v != 0;
    else
        BUG("field '%s' has no size for a whole number", f->name);
}

static void store(const struct field *f, union field_value v, void *obj)
{
    char *at = (char *)obj + f->offset;

    switch (f->type) {
    case FIELD_TEXT:
        memcpy(at, &v.text, sizeof v.text);
        break;
    case FIELD_BOOL:
        *(bool *)at = v.boolean;
        break;
    case FIELD_WHOLE:
    case FIELD_BYTES:
    case FIELD_CHOICE:
        store_whole(f, v.whole, at);
        break;
    case FIELD_NUMBER:
    case FIELD_SECONDS:
        memcpy(at, &v.number, sizeof v.number);
        break;
    case FIELD_TREE:
    case FIELD_TABLE:
    case FIELD_LIST:
    case FIELD_NONE:
        break;
    }
}

// --- what a field wants, in words

// An amount in the largest unit that it is a whole number of.
static void put_amount(const struct field *f, double v, struct buf *out)
{
    static const struct unit {
        const char *name;
        double next; // how many make one of the next unit; 0: the last
    } sizes[] = {{"", 1024}, {"KiB", 1024}, {"MiB", 1024}, {"GiB", 1024}, {"TiB", 0}},
      times[] = {{"s", 60}, {"m", 60}, {"h", 24}, {"d", 0}}, none[] = {{"", 0}};
    const struct unit *u = f->type == FIELD_BYTES ? sizes : f->type == FIELD_SECONDS ? times : none;

    for (; u->next > 0 && v >= u->next && fmod(v, u->next) == 0; u++)
        v /= u->next;
    buf_printf(out, "%.15g%s", v, u->name);
}

void field_range_text(const struct field *f, struct buf *out)
{
    if (f->min == 0 && f->max == 0)
        return;
    if (isinf(f->max)) {
        put_amount(f, f->min, out);
        buf_puts(out, " or more");
    } else {
        put_amount(f, f->min, out);
        buf_puts(out, " to ");
        put_amount(f, f->max, out);
    }
    if (f->unit)
        buf_printf(out, " %s", f->unit);
}

static void put_choices(const struct field *f, struct buf *out)
{
    for (const char *const *c = f->choices; *c; c++)
        buf_printf(out, "%s%s", c == f->choices ? "" : c[1] ? ", " : " or ", *c);
}

static void put_wanted(const struct field *f, struct buf *out)
{
    static const char *const wanted[] = {
        [FIELD_TEXT] = "a text",
        [FIELD_BOOL] = "true or false",
        [FIELD_WHOLE] = "a whole number",
        [FIELD_NUMBER] = "a number",
        [FIELD_BYTES] = "a size",
        [FIELD_SECONDS] = "a time",
        [FIELD_CHOICE] = "",
        [FIELD_TREE] = "a mapping (key: value)",
        [FIELD_TABLE] = "a mapping (key: value)",
        [FIELD_LIST] = "a list (lines that begin with '- ')",
        [FIELD_NONE] = "nothing",
    };

    buf_puts(out, wanted[f->type]);
    if (f->flags & FIELD_LISTS)
        buf_puts(out, " or a list");
    if (f->type == FIELD_CHOICE)
        put_choices(f, out);
    struct buf range = {0};
    field_range_text(f, &range);
    if (buf_len(&range))
        buf_printf(out, " %s %s", isinf(f->max) ? "of" : "from", buf_cstr(&range));
    buf_finish(&range);
    if (f->flags & FIELD_AUTO)
        buf_puts(out, " or auto");
}

// How to write one, for who wrote something else.
static const char *how_to_write(const struct field *f, const struct yaml_node *node)
{
    double seconds;
    int64_t bytes;
    bool text = node->kind == YAML_TEXT;

    if (f->type == FIELD_SECONDS && !(text && str_to_time(node->text, &seconds, NULL) == 0))
        return text ? " (write seconds, or a number with its unit: 250ms, 10s, 5m, 1h)" : "";
    if (f->type == FIELD_BYTES && !(text && str_to_bytes(node->text, &bytes, NULL) == 0))
        return text ? " (write bytes, or a whole number with its unit: 512KiB, 16MiB, 1GiB)" : "";
    return "";
}

static void put_got(const struct yaml_node *node, struct buf *out)
{
    if (node->secret) // what came from the environment or a file is not shown
        buf_puts(out, "what its reference holds");
    else if (node->kind == YAML_TEXT && node->text)
        buf_printf(out, "'%.*s'%s", QUOTED_MAX, node->text,
                   strlen(node->text) > QUOTED_MAX ? "..." : "");
    else if (node->text && *node->text)
        buf_printf(out, "%.*s", QUOTED_MAX, node->text);
    else
        buf_puts(out, yaml_kind_text(node));
}

static bool tell_wanted(struct report *report, const struct field *f, const struct yaml_node *node,
                        const char *hint)
{
    struct buf wanted = {0}, got = {0};

    put_wanted(f, &wanted);
    put_got(node, &got);
    report_error(report, node->at, "'%s' wants %s, not %s%s%s", f->name, buf_cstr(&wanted),
                 buf_cstr(&got), how_to_write(f, node), hint);
    buf_finish(&wanted);
    buf_finish(&got);
    return false;
}

// --- scalars

static bool in_range(const struct field *f, double v)
{
    return (f->min == 0 && f->max == 0) || (v >= f->min && v <= f->max);
}

static bool scalar_whole(const struct field *f, const struct yaml_node *node, int64_t *ret)
{
    if (node->kind == YAML_INT)
        *ret = node->whole;
    else if (node->kind != YAML_TEXT)
        return false;
    else if ((f->flags & FIELD_AUTO) && strcmp(node->text, "auto") == 0)
        return *ret = 0, true;
    else if (f->type == FIELD_BYTES ? str_to_bytes(node->text, ret, NULL) < 0
                                    : str_to_i64(node->text, ret, NULL) < 0)
        return false;
    return in_range(f, (double)*ret);
}

static bool scalar_number(const struct field *f, const struct yaml_node *node, double *ret)
{
    if (node->kind == YAML_INT)
        *ret = (double)node->whole;
    else if (node->kind == YAML_NUM)
        *ret = node->number;
    else if (node->kind != YAML_TEXT)
        return false;
    else if (f->type == FIELD_SECONDS ? str_to_time(node->text, ret, NULL) < 0
                                      : str_to_f64(node->text, ret, NULL) < 0)
        return false;
    return isfinite(*ret) && in_range(f, *ret);
}

static const char *choice_at(void *arg, size_t i)
{
    return ((const struct field *)arg)->choices[i];
}

static bool scalar_choice(const struct field *f, const struct yaml_node *node, int64_t *ret)
{
    if (!node->text)
        return false;
    for (*ret = 0; f->choices[*ret]; ++*ret)
        if (strcasecmp(f->choices[*ret], node->text) == 0)
            return true;
    return false;
}

bool field_scalar(struct report *report, const struct field *f, const struct yaml_node *node,
                  union field_value *ret)
{
    const char *hint = "";
    bool ok = false;

    if (node->broken)
        return false;
    switch (f->type) {
    case FIELD_TEXT:
        ok = node->kind == YAML_TEXT || node->kind == YAML_INT || node->kind == YAML_NUM;
        ret->text = node->text;
        break;
    case FIELD_BOOL:
        ok = node->kind == YAML_BOOL;
        ret->boolean = node->boolean;
        if (!ok && node->kind == YAML_TEXT) // "true" from a quoted reference
            ok = strcmp(node->text, "true") == 0 || strcmp(node->text, "false") == 0,
            ret->boolean = *node->text == 't';
        break;
    case FIELD_WHOLE:
    case FIELD_BYTES:
        ok = scalar_whole(f, node, &ret->whole);
        break;
    case FIELD_NUMBER:
    case FIELD_SECONDS:
        ok = scalar_number(f, node, &ret->number);
        break;
    case FIELD_CHOICE:
        ok = scalar_choice(f, node, &ret->whole);
        if (!ok && node->text && !node->secret)
            hint = field_hint(report->arena, node->text, choice_at, (void *)(uintptr_t)f);
        break;
    case FIELD_TREE:
    case FIELD_TABLE:
    case FIELD_LIST:
    case FIELD_NONE:
        BUG("field '%s' is no scalar", f->name);
    }
    return ok || tell_wanted(report, f, node, hint);
}

// --- mappings

static void tell_null(const struct field_reader *r, const struct field *f,
                      const struct yaml_pair *pair)
{
    if (f->def)
        report_error(r->report, pair->at, "'%s' has no value; without this line it is %s", f->name,
                     f->def);
    else
        report_error(r->report, pair->at, "'%s' has no value", f->name);
}

static void read_list(const struct field_reader *r, const struct field *f,
                      const struct yaml_node *node, void *obj)
{
    size_t size = f->table->size;
    uint32_t n = node->n;

    if (n > f->items_max) {
        report_error(r->report, node->at, "'%s' holds %u entries; at most %u are taken", f->name, n,
                     f->items_max);
        n = f->items_max;
    }
    char *items = arena_alloc(r->report->arena, (n ? n : 1) * size);
    for (uint32_t i = 0; i < n; i++) {
        const struct yaml_node *item = node->items[i];
        field_defaults(f->table, items + i * size, r->report->arena);
        if (item->kind == YAML_MAP)
            field_read(r, f->table, item, items + i * size);
        else
            report_error(r->report, item->at, "an entry of '%s' is a mapping (key: value), not %s",
                         f->name, yaml_kind_text(item));
    }
    memcpy((char *)obj + f->offset, &items, sizeof items);
    memcpy((char *)obj + f->count, &n, sizeof n);
}

static bool is_kind_wanted(const struct field *f, enum yaml_kind kind)
{
    if (f->type == FIELD_LIST)
        return kind == YAML_SEQ;
    return kind == YAML_MAP || (kind == YAML_SEQ && f->flags & FIELD_LISTS);
}

static void read_value(const struct field_reader *r, const struct field *f,
                       const struct yaml_node *node, void *obj)
{
    char *at = (char *)obj + f->offset;
    union field_value v;

    if (f->type == FIELD_TREE || f->type == FIELD_TABLE || f->type == FIELD_LIST) {
        if (node->broken)
            return;
        if (!is_kind_wanted(f, node->kind)) {
            tell_wanted(r->report, f, node, "");
        } else if (f->type == FIELD_TREE) {
            memcpy(at, &node, sizeof node);
        } else if (f->type == FIELD_LIST) {
            read_list(r, f, node, obj);
        } else {
            if (f->present)
                *((bool *)obj + f->present - 1) = true;
            field_read(r, f->table, node, at);
        }
        return;
    }
    if (field_scalar(r->report, f, node, &v))
        store(f, v, obj);
}

// One new name of an old one. False: both stand there.
static bool read_new(const struct field_reader *r, const struct field_table *t, const char *name,
                     const struct yaml_node *map, const struct yaml_pair *pair, void *obj)
{
    const struct field *f = field_find(t, name);

    CHECK(f);
    if (yaml_get(map, name))
        return false;
    if (pair->value->kind != YAML_NULL)
        read_value(r, f, pair->value, obj);
    return true;
}

static void read_old(const struct field_reader *r, const struct field_table *t,
                     const struct field *old, const struct yaml_node *map,
                     const struct yaml_pair *pair, void *obj)
{
    bool fresh = read_new(r, t, old->instead, map, pair, obj);

    if (old->also) { // a key that became two: whichever stands there itself wins
        read_new(r, t, old->also, map, pair, obj);
        report_warn(r->report, pair->at, "'%s' is an old name; write '%s' and '%s'", old->name,
                    old->instead, old->also);
    } else if (fresh) {
        report_warn(r->report, pair->at, "'%s' is an old name; write '%s'", old->name,
                    old->instead);
    } else {
        report_error(r->report, pair->at,
                     "'%s' is the old name of '%s', which stands at line %u too: remove one",
                     old->name, old->instead, yaml_pair(map, old->instead)->at.line);
    }
}

static void read_field(const struct field_reader *r, const struct field *f,
                       const struct yaml_pair *pair, void *obj)
{
    bool null = pair->value->kind == YAML_NULL;

    if (f->flags & FIELD_IGNORED) {
        report_warn(r->report, pair->at, "'%s' means nothing here and is ignored: %.*s", f->name,
                    (int)strlen(f->doc) - 1, f->doc); // without its full stop
    } else if (f->flags & FIELD_REFUSED) {
        if (!null)
            report_error(r->report, pair->at, "'%s' is not taken: %s", f->name, f->doc);
    } else if (f->type == FIELD_NONE) {
        return; // somebody else's check
    } else if (null && !(f->flags & FIELD_NULLABLE)) {
        tell_null(r, f, pair);
    } else if (!null) {
        read_value(r, f, pair->value, obj);
    } else if (f->type == FIELD_TEXT) {
        store(f, (union field_value){.text = NULL}, obj);
    }
}

void field_read(const struct field_reader *r, const struct field_table *t,
                const struct yaml_node *node, void *obj)
{
    for (uint32_t i = 0; i < node->n; i++) { // old names first: the others win over them
        const struct field *f = field_find(t, node->pairs[i].key);
        if (f && f->also)
            read_old(r, t, f, node, &node->pairs[i], obj);
    }
    for (uint32_t i = 0; i < node->n; i++) {
        const struct field *f = field_find(t, node->pairs[i].key);
        if (!f)
            tell_unknown(r, t, &node->pairs[i]);
        else if (!(f->flags & FIELD_OLD))
            read_field(r, f, &node->pairs[i], obj);
        else if (!f->also)
            read_old(r, t, f, node, &node->pairs[i], obj);
    }
    for (const struct field *f = t->fields; f->name; f++)
        if ((f->flags & FIELD_REQUIRED) && !yaml_get(node, f->name))
            report_error(r->report, node->at, "'%s' is missing %s%s", f->name,
                         t->name ? "under " : "at the top of the file", t->name ? t->name : "");
}

// --- unknown keys

const char *field_hint(struct arena *arena, const char *word,
                       const char *(*candidate)(void *arg, size_t i), void *arg)
{
    const char *near = str_suggest(word, candidate, arg);

    return near ? arena_printf(arena, " (did you mean '%s'?)", near) : "";
}

static const char *name_at(void *arg, size_t i)
{
    return ((const struct field_table *)arg)->fields[i].name;
}

// The table that has the key, other than `not`: where a misplaced key belongs.
static const struct field_table *find_home(const struct field_table *t, const char *key,
                                           const struct field_table * not )
{
    const struct field_table *found = NULL;
    const struct field *own = t == not ? NULL : field_find(t, key);

    if (own && !(own->flags & (FIELD_IGNORED | FIELD_REFUSED)))
        return t;
    for (const struct field *f = t->fields; f->name && !found; f++)
        if (f->table)
            found = find_home(f->table, key, not );
    return found;
}

static void tell_unknown(const struct field_reader *r, const struct field_table *t,
                         const struct yaml_pair *pair)
{
    const struct field_table *home = find_home(r->root, pair->key, t);
    const char *hint = field_hint(r->report->arena, pair->key, name_at, (void *)(uintptr_t)t);

    const char *here =
        t->name ? arena_printf(r->report->arena, "under %s", t->name) : "at the top of the file";

    if (home)
        report_error(r->report, pair->at, "'%s' belongs %s%s, not %s", pair->key,
                     home->name ? "under " : "", home->name ? home->name : "at the top of the file",
                     here);
    else if (*hint)
        report_error(r->report, pair->at, "unknown key '%s' %s%s", pair->key, here, hint);
    else
        report_error(r->report, pair->at,
                     "unknown key '%s' %s ('salver config --defaults' shows all keys)", pair->key,
                     here);
}
