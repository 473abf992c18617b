// SPDX-License-Identifier: Apache-2.0
// Trees as text: YAML that reads back the same, and JSON.
#include "base/buf.h"
#include "base/check.h"
#include "conf/yaml.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PLAIN_MAX = 120 }; // bytes of a text that is written without quotes

void yaml_write_number(double v, struct buf *out)
{
    char text[40];

    for (int digits = 6; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, v);
        if (strtod(text, NULL) == v)
            break;
    }
    buf_puts(out, text);
}

// Texts that every YAML reader takes for the same text, also those of YAML 1.1.
static bool is_plain(const char *text)
{
    static const char *const words[] = {"yes", "no", "on", "off", "y", "n"};
    struct yaml_node node = {.text = text};
    size_t n = strlen(text);
    bool begins = (*text >= 'a' && *text <= 'z') || (*text >= 'A' && *text <= 'Z') ||
                  *text == '/' || *text == '_';

    if (!begins || n > PLAIN_MAX ||
        strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_/.-") != n)
        return false;
    char lower[PLAIN_MAX + 1];
    for (size_t i = 0; i <= n; i++)
        lower[i] = text[i] >= 'A' && text[i] <= 'Z' ? (char)(text[i] + 32) : text[i];
    for (size_t i = 0; i < ARRAY_LEN(words); i++)
        if (strcmp(lower, words[i]) == 0)
            return false;
    yaml_retype(&node);
    return node.kind == YAML_TEXT;
}

// One character of valid UTF-8; returns its bytes.
static unsigned decode(const char *text, uint32_t *ret)
{
    const unsigned char *c = (const unsigned char *)text;
    unsigned n = c[0] < 0x80 ? 1 : c[0] < 0xe0 ? 2 : c[0] < 0xf0 ? 3 : 4;
    uint32_t v = n == 1 ? c[0] : c[0] & (0x7fu >> n);

    for (unsigned i = 1; i < n && c[i]; i++)
        v = v << 6 | (c[i] & 0x3f);
    *ret = v;
    return n;
}

// What a reader of YAML folds, refuses or takes for a mark of the file.
static bool must_escape(uint32_t c)
{
    return c < 0x20 || (c >= 0x7f && c < 0xa0) || c == 0x2028 || c == 0x2029 || c == 0xfeff ||
           c == 0xfffe || c == 0xffff;
}

// `refs`: the text is read with references resolved, so "${" must not look like one.
static void write_text(const char *text, bool refs, struct buf *out)
{
    if (is_plain(text)) {
        buf_puts(out, text);
        return;
    }
    buf_puts(out, "\"");
    while (*text) {
        uint32_t c;
        unsigned n = decode(text, &c);
        if (c == '"' || c == '\\')
            buf_printf(out, "\\%c", (char)c);
        else if (refs && c == '$' && text[1] == '{')
            buf_puts(out, "$$");
        else if (c == '\n')
            buf_puts(out, "\\n");
        else if (c == '\t')
            buf_puts(out, "\\t");
        else if (must_escape(c))
            buf_printf(out, "\\u%04x", c);
        else
            buf_put(out, text, n);
        text += n;
    }
    buf_puts(out, "\"");
}

void yaml_write_text(const char *text, struct buf *out)
{
    write_text(text, true, out);
}

static void write_scalar(const struct yaml_node *node, struct buf *out)
{
    if (node->secret) {
        buf_puts(out, "\"***\""); // as yaml_write_text would
        return;
    }
    switch (node->kind) {
    case YAML_NULL:
        buf_puts(out, "null");
        break;
    case YAML_BOOL:
        buf_puts(out, node->boolean ? "true" : "false");
        break;
    case YAML_INT:
        buf_printf(out, "%lld", (long long)node->whole);
        break;
    case YAML_NUM:
        yaml_write_number(node->number, out);
        break;
    case YAML_TEXT:
        yaml_write_text(node->text, out);
        break;
    case YAML_SEQ:
        buf_puts(out, "[]");
        break;
    case YAML_MAP:
        buf_puts(out, "{}");
        break;
    }
}

static void write_items(const struct yaml_node *node, unsigned indent, bool first_inline,
                        struct buf *out)
{
    for (uint32_t i = 0; i < node->n; i++) {
        bool seq = node->kind == YAML_SEQ;
        const struct yaml_node *value = seq ? node->items[i] : node->pairs[i].value;
        bool nested = (value->kind == YAML_SEQ || value->kind == YAML_MAP) && value->n;
        if (i || !first_inline)
            buf_printf(out, "%*s", (int)indent, "");
        if (seq) {
            buf_puts(out, "- ");
        } else {
            write_text(node->pairs[i].key, false, out);
            buf_puts(out, nested ? ":\n" : ": ");
        }
        if (nested)
            write_items(value, indent + 2, seq, out);
        else {
            write_scalar(value, out);
            buf_puts(out, "\n");
        }
    }
}

void yaml_write(const struct yaml_node *node, unsigned indent, struct buf *out)
{
    write_items(node, indent, false, out);
}

static void json_scalar(const struct yaml_node *node, struct buf *out)
{
    bool finite = node->kind == YAML_NUM && isfinite(node->number);

    if (node->kind == YAML_TEXT)
        buf_put_json(out, node->text, strlen(node->text));
    else if (node->kind == YAML_BOOL)
        buf_puts(out, node->boolean ? "true" : "false");
    else if (node->kind == YAML_INT)
        buf_printf(out, "%lld", (long long)node->whole);
    else if (finite)
        yaml_write_number(node->number, out);
    else
        buf_puts(out, "null");
}

void yaml_json(const struct yaml_node *node, struct buf *out)
{
    bool seq = node->kind == YAML_SEQ;

    if (!seq && node->kind != YAML_MAP) {
        json_scalar(node, out);
        return;
    }
    buf_puts(out, seq ? "[" : "{");
    for (uint32_t i = 0; i < node->n; i++) {
        if (i)
            buf_puts(out, ",");
        if (!seq) {
            buf_put_json(out, node->pairs[i].key, strlen(node->pairs[i].key));
            buf_puts(out, ":");
        }
        yaml_json(seq ? node->items[i] : node->pairs[i].value, out);
    }
    buf_puts(out, seq ? "]" : "}");
}
