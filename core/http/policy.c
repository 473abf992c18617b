// SPDX-License-Identifier: Apache-2.0
#include "http/policy.h"

#include "base/check.h"
#include "base/err.h"
#include "http/http.h"

#include <string.h>
#include <strings.h>

enum {
    LENGTH_DIGITS = 18,   // of a content-length: 10^18 - 1 fits an int64_t
    REQUEST_ID_MAX = 128, // bytes
    WS_KEY_CHARS = 24     // 16 bytes in base64
};

// What the headers say, gathered in one pass.
struct facts {
    const char *host, *length, *coding, *connection, *upgrade, *expect, *ws_key, *ws_version;
    unsigned hosts, lengths, codings, ws_keys;
    bool close, keep_alive, upgrades;
};

bool policy_token(const char *s, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)s[i];
        bool alnum = (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
        if (!alnum && (c == 0 || !strchr("!#$%&'*+-.^_`|~", c)))
            return false;
    }
    return n > 0;
}

bool policy_value(const char *s)
{
    for (; *s; s++)
        if (((unsigned char)*s < 0x20 && *s != '\t') || *s == 0x7f)
            return false;
    return true;
}

bool policy_has_token(const char *list, const char *token)
{
    size_t n = strlen(token);
    while (*list) {
        list += strspn(list, ", \t");
        size_t len = strcspn(list, ", \t");
        if (len == n && strncasecmp(list, token, n) == 0)
            return true;
        list += len;
    }
    return false;
}

static int check_version(struct http_msg *m, unsigned major, unsigned minor, struct err *err)
{
    if (major != 1 || minor > 1)
        return err_set(err, -505, "HTTP/%u.%u is not spoken here; use HTTP/1.1", major, minor);
    m->http10 = minor == 0;
    return 0;
}

static int check_method(struct http_msg *m, struct err *err)
{
    static const char *const allowed[] = {"GET",   "HEAD",   "POST",   "PUT",
                                          "PATCH", "DELETE", "OPTIONS"};
    for (size_t i = 0; i < ARRAY_LEN(allowed); i++)
        if (strcmp(m->method, allowed[i]) == 0)
            return 0;
    return err_set(err, -405, "method %s is not allowed", m->method);
}

static void gather_one(struct http_msg *m, struct facts *f, const char *name, const char *value)
{
    switch (name[0]) {
    case 'h':
        if (strcmp(name, "host") == 0)
            f->host = value, f->hosts++;
        break;
    case 'c':
        if (strcmp(name, "content-length") == 0)
            f->length = value, f->lengths++;
        else if (strcmp(name, "content-type") == 0 && !*m->content_type)
            m->content_type = value;
        else if (strcmp(name, "connection") == 0) {
            f->close |= policy_has_token(value, "close");
            f->keep_alive |= policy_has_token(value, "keep-alive");
            f->upgrades |= policy_has_token(value, "upgrade");
        }
        break;
    case 't':
        if (strcmp(name, "transfer-encoding") == 0)
            f->coding = value, f->codings++;
        break;
    case 'e':
        if (strcmp(name, "expect") == 0)
            f->expect = value;
        break;
    case 'u':
        if (strcmp(name, "upgrade") == 0)
            f->upgrade = value;
        break;
    case 's':
        if (strcmp(name, "sec-websocket-key") == 0)
            f->ws_key = value, f->ws_keys++;
        else if (strcmp(name, "sec-websocket-version") == 0)
            f->ws_version = value;
        break;
    }
}

// Taken only when it is safe in logs and headers; else the server makes its own.
static const char *usable_id(const char *s)
{
    size_t n = strlen(s);
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)s[i] <= 0x20 || (unsigned char)s[i] >= 0x7f)
            return NULL;
    return n >= 1 && n <= REQUEST_ID_MAX ? s : NULL;
}

static int gather(struct http_msg *m, struct facts *f, struct err *err)
{
    for (uint32_t i = 0; i < m->n_headers; i++) {
        const struct http_header *h = &m->headers[i];
        if (!policy_token(h->name, strlen(h->name)))
            return err_set(err, -400, "header %u has a name that is no token", i + 1);
        if (!policy_value(h->value))
            return err_set(err, -400, "header '%s' has a control character in its value", h->name);
        if (strcmp(h->name, "content-encoding") == 0 && *h->value &&
            strcasecmp(h->value, "identity") != 0)
            return err_set(err, -415,
                           "content-encoding '%.40s' is not taken; send the body as it is",
                           h->value);
        if (strcmp(h->name, "x-request-id") == 0 && !m->request_id)
            m->request_id = usable_id(h->value);
        gather_one(m, f, h->name, h->value);
    }
    return 0;
}

static bool host_char(unsigned char c)
{
    bool alnum = (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
    return alnum || (c && strchr("-._~!$&'()*+;=%", c));
}

static bool host_valid(const char *s)
{
    if (*s == '[') {
        size_t n = strspn(s + 1, "0123456789abcdefABCDEF:.");
        if (n == 0 || s[1 + n] != ']')
            return false;
        s += n + 2;
    } else {
        const char *start = s;
        while (host_char((unsigned char)*s))
            s++;
        if (s == start)
            return false;
    }
    if (*s == ':')
        s += 1 + strspn(s + 1, "0123456789");
    return *s == '\0';
}

static int check_host(struct http_msg *m, const struct facts *f, struct err *err)
{
    m->host = f->hosts ? f->host : "";
    if (f->hosts > 1)
        return err_set(err, -400, "%u Host headers; exactly one is needed", f->hosts);
    if (f->hosts == 0 && !m->http10)
        return err_set(err, -400, "no Host header; HTTP/1.1 needs exactly one");
    if (f->hosts == 1 && !host_valid(f->host))
        return err_set(err, -400, "the Host header is not a host with an optional port");
    return 0;
}

static int parse_length(const char *s, int64_t *ret, struct err *err)
{
    size_t n = strspn(s, "0123456789");
    if (n == 0 || s[n] || n > LENGTH_DIGITS)
        return err_set(err, -400, "content-length is not a plain number of at most %d digits",
                       LENGTH_DIGITS);
    int64_t v = 0;
    for (size_t i = 0; i < n; i++)
        v = v * 10 + (s[i] - '0');
    *ret = v;
    return 0;
}

static int check_framing(struct http_msg *m, const struct facts *f, bool *ret_chunked,
                         struct err *err)
{
    *ret_chunked = false;
    m->content_length = 0;
    if (f->codings && f->lengths)
        return err_set(err, -400, "both transfer-encoding and content-length; send one of them");
    if (f->lengths > 1)
        return err_set(err, -400, "%u content-length headers; send one", f->lengths);
    if (f->lengths)
        return parse_length(f->length, &m->content_length, err);
    if (!f->codings)
        return 0;
    if (m->http10)
        return err_set(err, -400, "transfer-encoding in an HTTP/1.0 request");
    if (f->codings > 1 || strcasecmp(f->coding, "chunked") != 0)
        return err_set(err, -400, "the only transfer-encoding that is taken is 'chunked', once");
    *ret_chunked = true;
    m->content_length = -1;
    return 0;
}

static int check_expect(struct http_msg *m, const struct facts *f, struct err *err)
{
    if (!f->expect || m->http10) // RFC 9110 section 10.1.1: ignored in 1.0
        return 0;
    if (strcasecmp(f->expect, "100-continue") != 0)
        return err_set(err, -417, "only 'Expect: 100-continue' is understood");
    m->expects_continue = m->content_length != 0;
    return 0;
}

static bool ws_key_valid(const char *s)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    return strlen(s) == WS_KEY_CHARS && strspn(s, digits) == WS_KEY_CHARS - 2 &&
           strcmp(s + WS_KEY_CHARS - 2, "==") == 0;
}

// RFC 6455 section 4.2.1. Another protocol to upgrade to is ignored, as RFC 9110 lets us.
static int check_websocket(struct http_msg *m, const struct facts *f, struct err *err)
{
    if (!f->upgrades || !f->upgrade || !policy_has_token(f->upgrade, "websocket") || m->http10)
        return 0;
    if (strcmp(m->method, "GET") != 0)
        return err_set(err, -405, "a websocket starts with GET, not %s", m->method);
    if (!f->ws_version || strcmp(f->ws_version, "13") != 0)
        return err_set(err, -426, "only websocket version 13 is spoken here");
    if (f->ws_keys != 1 || !ws_key_valid(f->ws_key))
        return err_set(err, -400, "a websocket needs one sec-websocket-key of 16 bytes in base64");
    if (m->content_length != 0)
        return err_set(err, -400, "a websocket's opening request has no body");
    m->websocket = true;
    return 0;
}

static int hex(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c = (char)(c | 0x20);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

// Decodes once; 0 or -400.
static int decode_path(const char *raw, char *out, struct err *err)
{
    for (; *raw; raw++) {
        if (*raw != '%') {
            *out++ = *raw;
            continue;
        }
        int hi = hex(raw[1]), lo = hi < 0 ? -1 : hex(raw[2]);
        if (lo < 0)
            return err_set(err, -400, "the path has a %% that two hex digits don't follow");
        if (hi == 0 && lo == 0)
            return err_set(err, -400, "the path holds %%00");
        *out++ = (char)(hi << 4 | lo);
        raw += 2;
    }
    *out = '\0';
    return 0;
}

static bool has_dot_segment(const char *path)
{
    while (*path) {
        path += strspn(path, "/");
        size_t n = strcspn(path, "/");
        if ((n == 1 && path[0] == '.') || (n == 2 && path[0] == '.' && path[1] == '.'))
            return true;
        path += n;
    }
    return false;
}

// Where origin-form starts in an absolute-form target, or NULL with err set.
static const char *after_authority(const struct http_msg *m, struct err *err)
{
    const char *s = m->target;
    if (strncasecmp(s, "http://", 7) == 0)
        s += 7;
    else if (strncasecmp(s, "https://", 8) == 0)
        s += 8;
    else
        return err_set(err, -400, "the target is neither a path nor a http URL"), NULL;
    size_t n = strcspn(s, "/?");
    if (n != strlen(m->host) || strncasecmp(s, m->host, n) != 0)
        return err_set(err, -400, "the target's host differs from the Host header"), NULL;
    return s + n;
}

static int check_target(struct http_msg *m, char *room, struct err *err)
{
    for (const char *s = m->target; *s; s++) {
        if ((unsigned char)*s <= 0x20 || (unsigned char)*s >= 0x7f)
            return err_set(err, -400, "the target holds a byte that must be percent-encoded");
        if (*s == '#')
            return err_set(err, -400, "the target holds a fragment ('#')");
    }
    m->query = "";
    if (strcmp(m->target, "*") == 0) {
        if (strcmp(m->method, "OPTIONS") != 0)
            return err_set(err, -400, "the target '*' is for OPTIONS alone");
        m->path = m->raw_path = m->target;
        return 0;
    }
    const char *s = *m->target == '/' ? m->target : after_authority(m, err);
    if (!s)
        return -400;
    size_t n = strcspn(s, "?");
    if (s[n])
        m->query = s + n + 1;
    char *raw = room, *path = room + strlen(m->target) + 2;
    memcpy(raw, n ? s : "/", n ? n : 1);
    raw[n ? n : 1] = '\0';
    if (decode_path(raw, path, err) < 0)
        return -400;
    if (has_dot_segment(path))
        return err_set(err, -400, "the path holds a '.' or '..' segment; send it resolved");
    m->raw_path = raw;
    m->path = path;
    return 0;
}

int policy_check(struct http_msg *m, unsigned major, unsigned minor, char *room, bool *ret_chunked,
                 struct err *err)
{
    struct facts f = {0};
    m->content_type = "";
    m->request_id = NULL;
    m->head_only = strcmp(m->method, "HEAD") == 0;
    int rc = check_version(m, major, minor, err);
    if (rc == 0)
        rc = gather(m, &f, err);
    if (rc == 0)
        rc = check_framing(m, &f, ret_chunked, err);
    if (rc == 0)
        rc = check_host(m, &f, err);
    if (rc == 0)
        rc = check_method(m, err);
    if (rc == 0)
        rc = check_target(m, room, err);
    if (rc == 0)
        rc = check_expect(m, &f, err);
    if (rc == 0)
        rc = check_websocket(m, &f, err);
    m->keep_alive = rc == 0 && !f.close && (!m->http10 || f.keep_alive);
    return rc;
}
