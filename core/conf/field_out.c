// SPDX-License-Identifier: Apache-2.0
// Structs as text by their tables: YAML that loads again, JSON, and Markdown.
#include "base/buf.h"
#include "base/check.h"
#include "conf/field.h"

#include <inttypes.h>
#include <string.h>

enum { COMMENT_COLUMNS = 100 };

static int64_t load_whole(const struct field *f, const void *obj)
{
    const char *at = (const char *)obj + f->offset;
    uint32_t narrow;
    int64_t wide;

    if (f->size == sizeof(bool))
        return *(const bool *)at;
    if (f->size == sizeof narrow) {
        memcpy(&narrow, at, sizeof narrow);
        return narrow;
    }
    memcpy(&wide, at, sizeof wide);
    return wide;
}

static double load_number(const struct field *f, const void *obj)
{
    double v;

    memcpy(&v, (const char *)obj + f->offset, sizeof v);
    return v;
}

static const void *load_pointer(const struct field *f, const void *obj)
{
    const void *p;

    memcpy(&p, (const char *)obj + f->offset, sizeof p);
    return p;
}

// Nothing was said and there is no default: the key is left out.
static bool is_unset(const struct field *f, const void *obj)
{
    switch (f->type) {
    case FIELD_TEXT:
        return !load_pointer(f, obj) && !(f->flags & FIELD_NULLABLE);
    case FIELD_TREE:
        return !load_pointer(f, obj) ||
               (!(f->flags & FIELD_LISTS) && !((const struct yaml_node *)load_pointer(f, obj))->n);
    case FIELD_WHOLE:
    case FIELD_BYTES:
        return (f->flags & FIELD_PLAN) && load_whole(f, obj) == (int64_t)f->unset;
    case FIELD_NUMBER:
    case FIELD_SECONDS:
        return (f->flags & FIELD_PLAN) && load_number(f, obj) == f->unset;
    case FIELD_TABLE:
        return f->present && !*((const bool *)obj + f->present - 1);
    case FIELD_NONE:
        return true;
    case FIELD_BOOL:
    case FIELD_CHOICE:
    case FIELD_LIST:
        return false;
    }
    return false;
}

static void put_bytes(int64_t v, struct buf *out)
{
    static const char *const units[] = {"", "KiB", "MiB", "GiB"};
    size_t unit = 0;

    for (; unit + 1 < ARRAY_LEN(units) && v >= 1024 && v % 1024 == 0; unit++)
        v /= 1024;
    buf_printf(out, "%" PRId64 "%s", v, units[unit]);
}

static void put_scalar(const struct field *f, const void *obj, bool json, struct buf *out)
{
    const char *text;

    switch (f->type) {
    case FIELD_TEXT:
        text = load_pointer(f, obj);
        if (!text)
            buf_puts(out, "null");
        else if (json)
            buf_put_json(out, text, strlen(text));
        else
            yaml_write_text(text, out);
        break;
    case FIELD_BOOL:
        buf_puts(out, *((const bool *)obj + f->offset) ? "true" : "false");
        break;
    case FIELD_WHOLE:
        buf_printf(out, "%" PRId64, load_whole(f, obj));
        break;
    case FIELD_BYTES:
        if (json)
            buf_printf(out, "%" PRId64, load_whole(f, obj));
        else
            put_bytes(load_whole(f, obj), out);
        break;
    case FIELD_NUMBER:
    case FIELD_SECONDS:
        yaml_write_number(load_number(f, obj), out);
        break;
    case FIELD_CHOICE:
        buf_printf(out, json ? "\"%s\"" : "%s", f->choices[load_whole(f, obj)]);
        break;
    case FIELD_TREE:
    case FIELD_TABLE:
    case FIELD_LIST:
    case FIELD_NONE:
        BUG("field '%s' is no scalar", f->name);
    }
}

// --- YAML

struct style {
    void (*table)(const struct field_table *, const void *, unsigned, struct buf *);
};

static void put_list(const struct field *f, const void *obj, unsigned indent, struct style style,
                     struct buf *out)
{
    const char *items = load_pointer(f, obj);
    uint32_t n;

    memcpy(&n, (const char *)obj + f->count, sizeof n);
    buf_printf(out, "%*s%s:%s\n", (int)indent, "", f->name, n ? "" : " []");
    for (uint32_t i = 0; i < n; i++) {
        size_t start = buf_len(out);
        style.table(f->table, items + i * f->table->size, indent + 4, out);
        // The first line that is no comment begins the entry: its indent gets the dash.
        char *line = buf_head(out) + start + indent + 2;
        while (line[2] == '#')
            line = strchr(line, '\n') + 1 + indent + 2;
        line[0] = '-';
    }
}

static void put_tree(const struct field *f, const struct yaml_node *tree, unsigned indent,
                     struct buf *out)
{
    buf_printf(out, "%*s%s:", (int)indent, "", f->name);
    if (!tree || !tree->n) {
        buf_puts(out, tree && tree->kind == YAML_SEQ ? " []\n" : " {}\n");
        return;
    }
    buf_puts(out, "\n");
    yaml_write(tree, indent + 2, out);
}

void field_dump(const struct field_table *t, const void *obj, unsigned indent, struct buf *out)
{
    for (const struct field *f = t->fields; f->name; f++) {
        if (is_unset(f, obj) || (f->unless && *((const bool *)obj + f->unless - 1)))
            continue;
        if (f->type == FIELD_LIST) {
            put_list(f, obj, indent, (struct style){field_dump}, out);
        } else if (f->type == FIELD_TREE) {
            put_tree(f, load_pointer(f, obj), indent, out);
        } else if (f->type == FIELD_TABLE) {
            struct buf inner = {0};
            field_dump(f->table, (const char *)obj + f->offset, indent + 2, &inner);
            if (buf_len(&inner)) {
                buf_printf(out, "%*s%s:\n", (int)indent, "", f->name);
                buf_put(out, buf_head(&inner), buf_len(&inner));
            }
            buf_finish(&inner);
        } else {
            buf_printf(out, "%*s%s: ", (int)indent, "", f->name);
            put_scalar(f, obj, false, out);
            buf_puts(out, "\n");
        }
    }
}

// --- YAML that explains itself

// Words of text, broken into comment lines.
static void put_comment(const char *text, unsigned indent, struct buf *out)
{
    size_t column = indent + 1;

    buf_printf(out, "%*s#", (int)indent, "");
    while (*text) {
        size_t n = strcspn(text, " ");
        if (column + 1 + n > COMMENT_COLUMNS) {
            buf_printf(out, "\n%*s#", (int)indent, "");
            column = indent + 1;
        }
        buf_puts(out, " ");
        buf_put(out, text, n);
        column += n + 1;
        text += n + (text[n] == ' ');
    }
    buf_puts(out, "\n");
}

static void put_about(const struct field *f, unsigned indent, struct buf *out)
{
    struct buf about = {0}, range = {0};

    field_range_text(f, &range);
    if (f->choices)
        for (const char *const *c = f->choices; *c; c++)
            buf_printf(&range, "%s%s", c == f->choices ? "" : " | ", *c);
    buf_puts(&about, f->doc);
    if (buf_len(&range))
        buf_printf(&about, " (%s)", buf_cstr(&range));
    put_comment(buf_cstr(&about), indent, out);
    buf_finish(&about);
    buf_finish(&range);
}

static void put_lines_commented(struct buf *lines, unsigned indent, struct buf *out)
{
    while (buf_len(lines)) {
        const char *line = buf_head(lines);
        size_t n = (size_t)((const char *)memchr(line, '\n', buf_len(lines)) - line) + 1;
        buf_printf(out, "%*s# ", (int)indent, "");
        buf_put(out, line + indent, n - indent);
        buf_consume(lines, n);
    }
}

void field_dump_defaults(const struct field_table *t, const void *obj, unsigned indent,
                         struct buf *out)
{
    for (const struct field *f = t->fields; f->name; f++) {
        if (f->type == FIELD_NONE)
            continue;
        put_about(f, indent, out);
        if (f->type == FIELD_LIST) {
            put_list(f, obj, indent, (struct style){field_dump_defaults}, out);
        } else if (f->type == FIELD_TREE) {
            put_tree(f, load_pointer(f, obj), indent, out);
        } else if (f->type == FIELD_TABLE) {
            struct buf inner = {0};
            buf_printf(&inner, "%*s%s:\n", (int)indent, "", f->name);
            field_dump_defaults(f->table, (const char *)obj + f->offset, indent + 2, &inner);
            if (f->present) // excludes another key that has a default
                put_lines_commented(&inner, indent, out);
            else
                buf_put(out, buf_head(&inner), buf_len(&inner));
            buf_finish(&inner);
        } else if (is_unset(f, obj)) {
            buf_printf(out, "%*s# %s:\n", (int)indent, "", f->name);
        } else {
            buf_printf(out, "%*s%s: ", (int)indent, "", f->name);
            put_scalar(f, obj, false, out);
            buf_puts(out, "\n");
        }
    }
}

// --- JSON

void field_json(const struct field_table *t, const void *obj, struct buf *out)
{
    const char *sep = "";

    buf_puts(out, "{");
    for (const struct field *f = t->fields; f->name; f++) {
        if (f->type == FIELD_NONE)
            continue;
        buf_printf(out, "%s\"%s\":", sep, f->name);
        put_scalar(f, obj, true, out);
        sep = ",";
    }
    buf_puts(out, "}");
}

// --- Markdown

static void doc_row(const struct field *f, struct buf *out)
{
    static const char *const types[] = {
        [FIELD_TEXT] = "text",
        [FIELD_BOOL] = "true, false",
        [FIELD_WHOLE] = "whole number",
        [FIELD_NUMBER] = "number",
        [FIELD_BYTES] = "size",
        [FIELD_SECONDS] = "time",
        [FIELD_CHOICE] = "word",
        [FIELD_TREE] = "mapping",
        [FIELD_TABLE] = "mapping",
        [FIELD_LIST] = "list",
        [FIELD_NONE] = "",
    };
    static const char *const reloads[] = {
        [RELOAD_SERVER] = "restart",
        [RELOAD_NONE] = "at once",
        [RELOAD_LIVE] = "live",
        [RELOAD_ROLLING] = "rolling",
    };

    buf_printf(out, "| `%s`%s | %s%s", f->name, f->flags & FIELD_OURS ? " *" : "", types[f->type],
               f->flags & FIELD_LISTS ? " or list" : "");
    if (f->choices) {
        buf_puts(out, ":");
        for (const char *const *c = f->choices; *c; c++)
            buf_printf(out, "%s %s", c == f->choices ? "" : ",", *c);
    }
    struct buf range = {0};
    field_range_text(f, &range);
    if (buf_len(&range))
        buf_printf(out, ", %s", buf_cstr(&range));
    buf_finish(&range);
    if (f->flags & FIELD_REQUIRED)
        buf_puts(out, " | required");
    else if (f->def)
        buf_printf(out, " | `%s`", *f->def ? f->def : "\"\"");
    else
        buf_puts(out, " |");
    buf_printf(out, " | %s | %s |\n", reloads[f->reload], f->doc);
}

// "Ignored, with a warning: `a` (why), `b` (why)."
static void doc_others(const struct field_table *t, uint32_t flag, const char *title,
                       struct buf *out)
{
    bool any = false;

    for (const struct field *f = t->fields; f->name; f++) {
        if (!(f->flags & flag))
            continue;
        buf_printf(out, "%s- `%s`: ", any ? "" : title, f->name);
        if (flag == FIELD_OLD)
            buf_printf(out, "now `%s`%s%s%s.\n", f->instead, f->also ? " and `" : "",
                       f->also ? f->also : "", f->also ? "`" : "");
        else
            buf_printf(out, "%s\n", f->doc);
        any = true;
    }
    if (any)
        buf_puts(out, "\n");
}

void field_doc(const struct field_table *t, struct buf *out)
{
    buf_printf(out, "## %s\n\n%s\n\n", t->name ? t->name : "Top of the file", t->doc);
    buf_puts(out, "| key | value | default | a change | meaning |\n|---|---|---|---|---|\n");
    for (const struct field *f = t->fields; f->name; f++)
        if (f->type != FIELD_NONE)
            doc_row(f, out);
    buf_puts(out, "\n");
    doc_others(t, FIELD_OLD, "Old names, read with a warning:\n\n", out);
    doc_others(t, FIELD_IGNORED, "Ray's keys without a meaning here, ignored with a warning:\n\n",
               out);
    doc_others(t, FIELD_REFUSED,
               "Ray's keys that are refused, since ignoring them would do "
               "harm:\n\n",
               out);
    for (const struct field *f = t->fields; f->name; f++)
        if (f->table)
            field_doc(f->table, out);
}
