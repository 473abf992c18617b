// SPDX-License-Identifier: Apache-2.0
/*
 * The part `model` of multipart/form-data (RFC 7578, RFC 2046 section 5.1). What is a boundary, a
 * header, a name is decided as worker/form.c does, which parses the whole body for plugins.
 */
#include "serve/model_field.h"

#include "base/check.h"
#include "base/param.h"

#include <string.h>
#include <strings.h>

static void take_header(struct model_field *f, char c);
static void read_line(struct model_field *f);

static bool is_space(char c)
{
    return c == ' ' || c == '\t';
}

bool model_form_init(struct model_field *f, const char *content_type)
{
    static const char form[] = "multipart/form-data";
    size_t n = sizeof form - 1;
    if (strncasecmp(content_type, form, n) != 0 || !strchr("; \t", content_type[n]))
        return false;
    memcpy(f->mark, "\r\n--", 4);
    ptrdiff_t got = param_find(content_type, strlen(content_type), "boundary", f->mark + 4,
                               MODEL_FORM_BOUNDARY);
    bool good = got > 0 && got <= MODEL_FORM_BOUNDARY;
    if (!good)
        model_field_end(f, false);
    f->mark_n = good ? (uint32_t)got + 4 : 4;
    f->at = 2; // the first one may stand at the very beginning, without its CRLF
    f->state = MF_DATA;
    return true;
}

static void put_value(struct model_field *f, const char *p, size_t n)
{
    for (size_t i = 0; f->match && i < n && !f->too_long; i++)
        model_field_put(f, p[i]);
}

// CR stands nowhere in the mark but at its beginning, so that what was matched never begins later.
static const char *take_data(struct model_field *f, const char *p, const char *end)
{
    while (p < end) {
        if (f->at == 0) {
            const char *cr = memchr(p, '\r', (size_t)(end - p));
            put_value(f, p, (size_t)((cr ? cr : end) - p));
            if (!cr)
                return end;
            p = cr + 1;
            f->at = 1;
        } else if (*p == f->mark[f->at]) {
            p++;
            if (++f->at == f->mark_n) {
                f->state = MF_BOUNDARY;
                f->behind = 0;
                return p;
            }
        } else {
            put_value(f, f->mark, f->at);
            f->at = 0;
        }
    }
    return p;
}

// Behind the boundary: two dashes end the form, a line's end begins a part. Else it was none.
static void take_behind(struct model_field *f, char c)
{
    bool last = f->behind == '-' && c == '-', line = f->behind == '\r' && c == '\n';
    if (last || line) {
        if (f->match || last) {
            model_field_end(f, f->match);
            return;
        }
        f->state = MF_HEADERS;
        f->n = f->headers = 0;
        f->too_long = f->cr = false;
    } else if (!f->behind && (c == '-' || c == '\r')) {
        // A dash counts right behind the boundary alone.
        f->behind = (uint8_t)c;
    } else if (!f->behind && is_space(c)) {
        f->behind = ' ';
    } else if (f->behind == ' ' && (is_space(c) || c == '\r')) {
        f->behind = (uint8_t)(c == '\r' ? c : ' ');
    } else {
        // A name with a boundary in it is nobody's.
        f->too_long = f->match;
        f->state = MF_DATA;
        f->at = c == '\r';
    }
}

void model_form_feed(struct model_field *f, const char *p, const char *end)
{
    while (p < end && !f->done) {
        if (f->state == MF_DATA)
            p = take_data(f, p, end);
        else if (f->state == MF_BOUNDARY)
            take_behind(f, *p++);
        else
            take_header(f, *p++);
    }
}

static void take_header(struct model_field *f, char c)
{
    if (++f->headers > MODEL_FORM_HEADERS || (c == '\n') != f->cr || c == '\0') {
        model_field_end(f, false); // too long, or a line that ends in half a CRLF
        return;
    }
    f->cr = c == '\r';
    if (c != '\r' && c != '\n')
        model_field_put(f, c);
    if (c != '\n')
        return;
    if (f->n > 0) {
        read_line(f);
    } else {
        f->state = MF_DATA;
        f->at = 0;
    }
    f->n = 0;
    f->too_long = false;
}

// Of a line that is longer than text the beginning counts.
static void read_line(struct model_field *f)
{
    static const char name[] = "content-disposition";
    const char *colon = memchr(f->text, ':', f->n);
    char value[8];
    if (!colon || colon == f->text || is_space(f->text[0])) {
        model_field_end(f, false);
        return;
    }
    if ((size_t)(colon - f->text) != sizeof name - 1 ||
        strncasecmp(f->text, name, sizeof name - 1) != 0)
        return;
    const char *text = colon + 1;
    ptrdiff_t n = param_find(text, (size_t)(f->text + f->n - text), "name", value, sizeof value);
    f->match = n == 5 && memcmp(value, "model", 5) == 0;
}
