// SPDX-License-Identifier: Apache-2.0
#include "worker/form.h"

#include "base/check.h"
#include "base/param.h"
#include "worker/engine.h"
#include "worker/request.h"

#include <strings.h>

enum { BOUNDARY_MAX = 70, TYPE_UNKNOWN = -415 }; // RFC 2046 section 5.1.1

static int broken(struct form *f, int code, const char *why)
{
    f->why = why;
    f->n = 0;
    return f->code = code;
}

static sv_part *add_part(struct form *f)
{
    sv_part *p = &f->parts[f->n++];
    *p = (sv_part){.size = sizeof *p, .name = "", .content_type = "", .data = ""};
    return p;
}

/* ---- application/x-www-form-urlencoded (URL standard, section 5) ---- */

static char *decode(struct arena *a, struct bytes text, size_t *ret_n)
{
    char *out = arena_alloc(a, text.n + 1);
    int n = out ? sv_decode(text.p, text.n, out, text.n + 1) : -1;
    *ret_n = n < 0 ? 0 : (size_t)n;
    return n < 0 ? NULL : out;
}

static int add_pair(struct form *f, struct arena *a, struct bytes pair)
{
    const char *eq = memchr(pair.p, '=', pair.n);
    size_t name_n = eq ? (size_t)(eq - pair.p) : pair.n;
    struct bytes name = {pair.p, name_n};
    struct bytes value = {eq ? eq + 1 : "", eq ? pair.n - name_n - 1 : 0};
    size_t n;
    if (f->n == SV_FORM_PARTS)
        return broken(f, SV_E_TOO_LARGE, "the form has more than 256 fields");
    sv_part *p = add_part(f);
    p->name = decode(a, name, &n);
    p->data = decode(a, value, &p->len);
    if (!p->name || !p->data)
        return broken(f, SV_E_TOO_LARGE, "the form is too large");
    if (memchr(p->name, '\0', n))
        return broken(f, SV_E_INVALID, "a field's name has a NUL in it");
    return 0;
}

static int parse_pairs(struct form *f, struct arena *a, struct bytes body)
{
    while (body.n) {
        const char *amp = memchr(body.p, '&', body.n);
        struct bytes pair = {body.p, amp ? (size_t)(amp - body.p) : body.n};
        size_t used = pair.n + (amp ? 1 : 0);
        body.p += used;
        body.n -= used;
        if (pair.n && add_pair(f, a, pair) < 0)
            return f->code;
    }
    return f->code = (int)f->n;
}

/* ---- multipart/form-data (RFC 7578, RFC 2046 section 5.1) ---- */

// A parameter of a header, on the arena; NULL: absent.
static const char *parameter(struct arena *a, struct bytes header, const char *name)
{
    ptrdiff_t n = param_find(header.p, header.n, name, NULL, 0);
    char *out = n < 0 ? NULL : arena_alloc(a, (size_t)n + 1);
    if (out) {
        param_find(header.p, header.n, name, out, (size_t)n);
        out[n] = '\0';
    }
    return out;
}

static struct bytes trim(struct bytes v)
{
    while (v.n && (*v.p == ' ' || *v.p == '\t')) {
        v.p++;
        v.n--;
    }
    while (v.n && (v.p[v.n - 1] == ' ' || v.p[v.n - 1] == '\t'))
        v.n--;
    return v;
}

static bool is_name(struct bytes line, size_t n, const char *name)
{
    return n == strlen(name) && strncasecmp(line.p, name, n) == 0;
}

static int read_header(struct form *f, struct arena *a, sv_part *p, struct bytes line)
{
    const char *colon = memchr(line.p, ':', line.n);
    if (!colon || colon == line.p || *line.p == ' ' || *line.p == '\t')
        return broken(f, SV_E_INVALID, "a part has a header line without a name");
    size_t n = (size_t)(colon - line.p);
    struct bytes value = trim((struct bytes){colon + 1, line.n - n - 1});
    if (is_name(line, n, "content-disposition")) {
        const char *name = parameter(a, value, "name");
        p->name = name ? name : "";
        p->file_name = parameter(a, value, "filename");
    } else if (is_name(line, n, "content-type")) {
        const char *type = arena_strndup(a, value.p, value.n);
        p->content_type = type ? type : "";
    }
    return 0;
}

// The header lines of a part, each with its CRLF.
static int read_headers(struct form *f, struct arena *a, sv_part *p, struct bytes lines)
{
    if (memchr(lines.p, '\0', lines.n))
        return broken(f, SV_E_INVALID, "a part has a NUL in its header");
    while (lines.n) {
        const char *eol = memmem(lines.p, lines.n, "\r\n", 2);
        CHECK(eol);
        struct bytes line = {lines.p, (size_t)(eol - lines.p)};
        lines.p += line.n + 2;
        lines.n -= line.n + 2;
        if (memchr(line.p, '\n', line.n) || memchr(line.p, '\r', line.n))
            return broken(f, SV_E_INVALID, "a part's header lines must end in CRLF");
        if (read_header(f, a, p, line) < 0)
            return f->code;
    }
    return 0;
}

// What stands after "--boundary": the length up to the next line, 0 = this is no delimiter.
// *ret_last: it was "--boundary--".
static size_t delimiter_rest(struct bytes at, bool *ret_last)
{
    size_t i = 0;
    *ret_last = at.n >= 2 && at.p[0] == '-' && at.p[1] == '-';
    if (*ret_last)
        return 2;
    while (i < at.n && (at.p[i] == ' ' || at.p[i] == '\t'))
        i++;
    return i + 2 <= at.n && at.p[i] == '\r' && at.p[i + 1] == '\n' ? i + 2 : 0;
}

// Finds the delimiter from `at` on: where it starts (with its CRLF), where what follows starts.
static bool find_delimiter(struct bytes at, struct bytes mark, const char **ret_start,
                           struct bytes *ret_rest, bool *ret_last)
{
    const char *end = at.p + at.n;
    for (const char *p = at.p; (p = memmem(p, (size_t)(end - p), mark.p, mark.n)); p++) {
        struct bytes rest = {p + mark.n, (size_t)(end - p) - mark.n};
        size_t n = delimiter_rest(rest, ret_last);
        if (n == 0)
            continue;
        *ret_start = p;
        *ret_rest = (struct bytes){rest.p + n, rest.n - n};
        return true;
    }
    return false;
}

static int read_part(struct form *f, struct arena *a, struct bytes part)
{
    if (f->n == SV_FORM_PARTS)
        return broken(f, SV_E_TOO_LARGE, "the form has more than 256 parts");
    sv_part *p = add_part(f);
    size_t head = 0, look = part.n < SV_FORM_HEADER + 2 ? part.n : SV_FORM_HEADER + 2;
    if (part.n < 2 || memcmp(part.p, "\r\n", 2) != 0) {
        const char *blank = memmem(part.p, look, "\r\n\r\n", 4);
        if (!blank && part.n > SV_FORM_HEADER)
            return broken(f, SV_E_TOO_LARGE, "a part's header has more than 4096 bytes");
        if (!blank)
            return broken(f, SV_E_INVALID, "a part's header does not end");
        head = (size_t)(blank - part.p) + 2;
        if (read_headers(f, a, p, (struct bytes){part.p, head}) < 0)
            return f->code;
    }
    p->data = part.p + head + 2;
    p->len = part.n - head - 2;
    return 0;
}

static int parse_parts(struct form *f, struct arena *a, const char *content_type, struct bytes body)
{
    const char *boundary =
        parameter(a, (struct bytes){content_type, strlen(content_type)}, "boundary");
    size_t n = boundary ? strlen(boundary) : 0;
    if (n == 0 || n > BOUNDARY_MAX)
        return broken(f, SV_E_INVALID, "the content type has no boundary of 1 to 70 bytes");
    char text[BOUNDARY_MAX + 5];
    snprintf(text, sizeof text, "\r\n--%s", boundary);
    struct bytes mark = {text, n + 4}, rest;
    const char *start;
    bool last = false;
    // The first delimiter may stand at the very beginning, without its CRLF.
    struct bytes first = {text + 2, n + 2};
    bool at_once = body.n >= first.n && memcmp(body.p, first.p, first.n) == 0;
    if (!find_delimiter(body, at_once ? first : mark, &start, &rest, &last))
        return broken(f, SV_E_INVALID, "the body has no boundary");
    while (!last) {
        // A part without header and data: its delimiter's CRLF is the blank line's.
        struct bytes from = {rest.p - 2, rest.n + 2}, next;
        if (!find_delimiter(from, mark, &start, &next, &last))
            return broken(f, SV_E_INVALID, "the body ends without its last boundary");
        if (start < rest.p)
            return broken(f, SV_E_INVALID, "a part has no header");
        if (read_part(f, a, (struct bytes){rest.p, (size_t)(start - rest.p)}) < 0)
            return f->code;
        rest = next;
    }
    return f->code = (int)f->n;
}

static bool is_type(const char *content_type, const char *want)
{
    size_t n = strlen(want);
    return strncasecmp(content_type, want, n) == 0 && strchr("; \t", content_type[n]);
}

int form_parse(struct form *f, struct arena *a, const char *content_type, struct bytes body)
{
    *f = (struct form){.why = ""};
    f->parts = arena_alloc(a, SV_FORM_PARTS * sizeof *f->parts);
    if (!f->parts)
        return broken(f, SV_E_TOO_LARGE, "the form is too large");
    if (is_type(content_type, "multipart/form-data"))
        return parse_parts(f, a, content_type, body);
    if (is_type(content_type, "application/x-www-form-urlencoded"))
        return parse_pairs(f, a, body);
    return broken(f, TYPE_UNKNOWN,
                  "wanted multipart/form-data or application/x-www-form-urlencoded");
}

/* ---- the extension ---- */

static int on_parse(sv_req *pub, const char **why)
{
    struct request *r = request_of(pub);
    struct form *f = r->form;
    engine_sign(r->engine);
    if (!f) {
        f = arena_alloc(&r->arena, sizeof *f);
        if (pub->flags & (SV_REQ_STREAM_IN | SV_REQ_WEBSOCKET)) {
            *f = (struct form){0};
            broken(f, TYPE_UNKNOWN, "a body that streams in is not collected");
        } else {
            form_parse(f, &r->arena, pub->content_type, (struct bytes){pub->body, pub->body_len});
        }
        r->form = f;
    }
    if (why)
        *why = f->why;
    return f->code;
}

static const sv_part *on_part(const sv_req *pub, uint32_t i)
{
    const struct form *f = request_of(pub)->form;
    return f && i < f->n ? &f->parts[i] : NULL;
}

static const sv_part *on_find(const sv_req *pub, const char *name)
{
    const struct form *f = request_of(pub)->form;
    for (uint32_t i = 0; f && name && i < f->n; i++)
        if (strcmp(f->parts[i].name, name) == 0)
            return &f->parts[i];
    return NULL;
}

const sv_form *form_extension(void)
{
    static const sv_form functions = {
        .size = sizeof functions, .parse = on_parse, .part = on_part, .find = on_find};
    return &functions;
}
