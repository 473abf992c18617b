// SPDX-License-Identifier: Apache-2.0
#include "serve/model_field.h"

#include "base/check.h"

#include <string.h>

static const char *take_text(struct model_field *f, const char *p, const char *end);
static const char *skip_text(struct model_field *f, const char *p, const char *end);
static const char *find_special(const char *p, const char *end);
static void begin_text(struct model_field *f, enum model_field_state state, bool skip);
static void end_text(struct model_field *f);

void model_field_init(struct model_field *f, const char *content_type)
{
    memset(f, 0, offsetof(struct model_field, text));
    if (!model_form_init(f, content_type))
        f->state = MF_START;
}

void model_field_end(struct model_field *f, bool has)
{
    f->has = has;
    f->done = true;
}

void model_field_put(struct model_field *f, char c)
{
    if (f->n < MODEL_FIELD_MAX)
        f->text[f->n++] = c;
    else
        f->too_long = true;
}

static void forget(struct model_field *f)
{
    f->has = f->too_long = false;
    f->n = 0;
}

// Between the strings and brackets of the outermost object.
static void take_outer(struct model_field *f, char c)
{
    if (f->state == MF_REST && c == ',') {
        f->state = MF_KEY;
        return;
    }
    if ((f->state == MF_REST || f->state == MF_KEY) && c == '}') {
        model_field_end(f, f->has);
        return;
    }
    // Whatever is no more than a control or a space stands for white space: others are stricter.
    if (f->state == MF_REST || (unsigned char)c <= ' ')
        return;
    if (f->state == MF_START && c == '{')
        f->state = MF_KEY;
    else if (f->state == MF_START && strchr("\xef\xbb\xbf", c))
        return; // a byte order mark
    else if (f->state == MF_KEY && c == '"')
        begin_text(f, MF_KEY_TEXT, false);
    else if (f->state == MF_COLON && c == ':')
        f->state = MF_VALUE;
    else
        model_field_end(f, false); // this is no JSON
}

static void take_value(struct model_field *f, char c)
{
    if ((unsigned char)c <= ' ')
        return;
    if (f->match)
        forget(f);
    if (c == '"') {
        begin_text(f, MF_VALUE_TEXT, !f->match);
    } else if (c == '{' || c == '[') {
        f->depth = 1;
        f->state = MF_NESTED;
    } else {
        f->state = MF_REST;
        take_outer(f, c); // `{"a":}`, which is none of ours to refuse
    }
}

static const char *take_nested(struct model_field *f, const char *p, const char *end)
{
    while ((p = find_special(p, end)) < end) {
        char c = *p++;
        if (c == '"') {
            begin_text(f, MF_NESTED_TEXT, true);
            return p;
        }
        if (c == '{' || c == '[')
            f->depth++;
        else if ((c == '}' || c == ']') && --f->depth == 0) {
            f->state = MF_REST;
            return p;
        }
    }
    return p;
}

void model_field_feed(struct model_field *f, const char *p, size_t n)
{
    const char *end = p + n;
    if (f->state >= MF_DATA) {
        model_form_feed(f, p, end);
        return;
    }
    while (p < end && !f->done) {
        switch (f->state) {
        case MF_START:
        case MF_KEY:
        case MF_COLON:
        case MF_REST:
            take_outer(f, *p++);
            break;
        case MF_VALUE:
            take_value(f, *p++);
            break;
        case MF_NESTED:
            p = take_nested(f, p, end);
            break;
        case MF_KEY_TEXT:
        case MF_VALUE_TEXT:
        case MF_NESTED_TEXT:
            p = f->skip ? skip_text(f, p, end) : take_text(f, p, end);
            break;
        case MF_DATA:
        case MF_BOUNDARY:
        case MF_HEADERS:
            BUG("a form in JSON");
        }
    }
}

/* ---- strings ---- */

static void begin_text(struct model_field *f, enum model_field_state state, bool skip)
{
    f->state = state;
    f->skip = skip;
    f->odd = false;
    f->escape = 0;
    f->high = 0;
    f->at = 0;
    if (state == MF_KEY_TEXT)
        f->match = true;
}

static void end_text(struct model_field *f)
{
    if (f->state == MF_NESTED_TEXT) {
        f->state = MF_NESTED;
    } else if (f->state == MF_KEY_TEXT) {
        f->match = f->match && f->at == 5;
        f->state = MF_COLON;
    } else {
        f->has = f->has || f->match;
        f->state = MF_REST;
    }
}

static void put(struct model_field *f, unsigned c)
{
    if (f->state == MF_VALUE_TEXT) {
        model_field_put(f, (char)c);
        f->skip = f->too_long;
        return;
    }
    if (f->at < 5 && (char)c == "model"[f->at])
        f->at++;
    else
        f->match = false;
    f->skip = !f->match;
}

static void put_code(struct model_field *f, uint32_t code)
{
    if (code < 0x80) {
        put(f, code);
        return;
    }
    if (code >= 0x10000)
        put(f, 0xf0 | code >> 18);
    if (code >= 0x800)
        put(f, code >= 0x10000 ? 0x80 | (code >> 12 & 63) : 0xe0 | code >> 12);
    put(f, code >= 0x800 ? 0x80 | (code >> 6 & 63) : 0xc0 | code >> 6);
    put(f, 0x80 | (code & 63));
}

// Half a pair alone is no character.
static void put_half(struct model_field *f)
{
    if (!f->high)
        return;
    f->high = 0;
    put_code(f, 0xfffd);
}

static void put_unit(struct model_field *f, uint16_t unit)
{
    bool low = unit >= 0xdc00 && unit < 0xe000;
    if (f->high && low) {
        uint32_t high = f->high & 0x3ff;
        f->high = 0;
        put_code(f, 0x10000 + (high << 10) + (unit & 0x3ff));
        return;
    }
    put_half(f);
    if (unit >= 0xd800 && unit < 0xdc00)
        f->high = unit;
    else
        put_code(f, low ? 0xfffd : unit);
}

static bool take_escaped(struct model_field *f, char c)
{
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    if (f->escape == 1) {
        const char *at = c ? strchr(from, c) : NULL;
        f->escape = c == 'u' ? 2 : 0;
        f->unit = 0;
        if (at)
            put_unit(f, (uint16_t)to[at - from]);
        return at || c == 'u';
    }
    unsigned digit = (unsigned)c - '0';
    if (digit > 9)
        digit = ((unsigned)c | 0x20) - 'a' < 6 ? ((unsigned)c | 0x20) - 'a' + 10 : 16;
    if (digit > 15)
        return false;
    f->unit = (uint16_t)((unsigned)f->unit << 4 | digit);
    f->escape = f->escape == 5 ? 0 : f->escape + 1;
    if (!f->escape)
        put_unit(f, f->unit);
    return true;
}

static const char *take_text(struct model_field *f, const char *p, const char *end)
{
    while (p < end && (!f->skip || f->escape)) {
        char c = *p++;
        if (f->escape) {
            if (!take_escaped(f, c)) {
                model_field_end(f, false);
                return p;
            }
        } else if (c == '\\') {
            f->escape = 1;
        } else {
            put_half(f);
            if (c == '"') {
                end_text(f);
                return p;
            }
            put(f, (unsigned char)c);
        }
    }
    return p;
}

static const char *skip_text(struct model_field *f, const char *p, const char *end)
{
    while (p < end) {
        const char *quote = memchr(p, '"', (size_t)(end - p));
        const char *stop = quote ? quote : end, *run = stop;
        while (run > p && run[-1] == '\\')
            run--;
        bool odd = ((stop - run) & 1) != (run == p && f->odd);
        f->odd = !quote && odd;
        p = quote ? quote + 1 : end;
        if (quote && !odd) {
            end_text(f);
            return p;
        }
    }
    return p;
}

// The next of "{}[] from p on, eight bytes at a time; `end` without one.
static const char *find_special(const char *p, const char *end)
{
    const uint64_t ones = 0x0101010101010101u, tops = 0x8080808080808080u;
    for (; end - p >= 8; p += 8) {
        uint64_t w;
        memcpy(&w, p, 8);
        // Brackets differ in three bits alone; with them set all are 0x7f. A byte of zeros becomes
        // the only one whose top bit is set by the subtraction and was not before.
        uint64_t quote = w ^ (ones * '"'), bracket = (w | (ones * 0x26)) ^ (ones * 0x7f);
        if ((((quote - ones) & ~quote) | ((bracket - ones) & ~bracket)) & tops)
            break;
    }
    while (p < end && *p != '"' && ((unsigned char)*p | 0x26) != 0x7f)
        p++;
    return p;
}
