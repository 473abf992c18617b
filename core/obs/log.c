// SPDX-License-Identifier: Apache-2.0
#include "obs/log.h"

#include "base/buf.h"
#include "base/clock.h"
#include "base/str.h"
#include "wire/page.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum {
    LOG_NAME_MAX = 128,        // bytes of role or name
    LOG_ACCESS_MAX = 64 << 10, // bytes of access lines that wait for the end of the turn
    LOG_FIELD_MAX = 160,       // bytes of a text in an access line
    LOG_PATH_MAX = 1024,       // bytes of its path and of its notes
    LOG_CHUNK = PIPE_BUF,      // bytes: a pipe that polls writable takes so much without waiting
};
_Static_assert((int)LOG_LINE_MAX <= (int)LOG_CHUNK, "a line is one write");

static struct {
    int fd;
    bool json;
    bool file; // a regular file never makes us wait
    enum log_level level;
    char role[LOG_NAME_MAX], name[LOG_NAME_MAX];
    _Atomic(struct page *) page;
    atomic_uint dropped;  // lines since the last one that was written
    pthread_mutex_t lock; // guards access
    struct buf access;
} g = {.fd = STDERR_FILENO, .level = LOG_INFO, .lock = PTHREAD_MUTEX_INITIALIZER};

static const char *const level_text[] = {"DEBUG", "INFO ", "WARN ", "ERROR"};
static const char *const level_json[] = {"debug", "info", "warn", "error"};

// A line in the making. What does not fit below `max` is cut; `max` leaves room for the end.
struct line {
    char text[LOG_LINE_MAX];
    size_t n, max;
    bool cut;
};

static void put(struct line *l, const char *s, size_t n)
{
    if (l->cut || n > l->max - l->n) {
        l->cut = true;
        return;
    }
    memcpy(l->text + l->n, s, n);
    l->n += n;
}

static void puts_(struct line *l, const char *s)
{
    put(l, s, strlen(s));
}

__attribute__((format(printf, 2, 3))) static void putf(struct line *l, const char *fmt, ...)
{
    char text[512];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    put(l, text, n < 0 ? 0 : (size_t)n < sizeof text ? (size_t)n : sizeof text - 1);
}

// One character of a foreign text, made harmless; *used bytes of s. Returns its length in out.
static size_t escape(const char *s, size_t left, bool json, char out[8], size_t *used)
{
    unsigned char c = (unsigned char)*s;
    size_t len = str_utf8_len(s, left);
    bool control = c < 0x20 || c == 0x7f || (c == 0xc2 && len == 2 && (unsigned char)s[1] < 0xa0);
    *used = len ? len : 1;
    if (c == '\n' || c == '\t' || c == '\r')
        return (size_t)snprintf(out, 8, "\\%c", c == '\n' ? 'n' : c == '\t' ? 't' : 'r');
    if (json && (c == '"' || c == '\\'))
        return (size_t)snprintf(out, 8, "\\%c", c);
    if (json && control)
        return (size_t)snprintf(out, 8, "\\u%04x", len == 2 ? (unsigned char)s[1] : c);
    if (json && !len)
        return (size_t)snprintf(out, 8, "\\ufffd");
    if (control || !len)
        return (size_t)snprintf(out, 8, "\\x%02x", len == 2 ? (unsigned char)s[1] : c);
    memcpy(out, s, len);
    return len;
}

// At most `max` bytes of the escaped form of s; "..." where it was cut.
static void put_escaped(struct line *l, const char *s, size_t max, bool json)
{
    size_t before = l->n;
    for (size_t left = strlen(s), used; left; s += used, left -= used) {
        char one[8];
        size_t n = escape(s, left, json, one, &used);
        if (l->n - before + n > max) {
            puts_(l, "...");
            return;
        }
        put(l, one, n);
    }
}

static void put_key(struct line *l, const char *key, const char *value, size_t max)
{
    putf(l, ",\"%s\":\"", key);
    put_escaped(l, value ? value : "", max, true);
    puts_(l, "\"");
}

static void put_time(struct line *l)
{
    static _Thread_local time_t last; // most lines share their second
    static _Thread_local char second[32];
    uint64_t now = clock_wall_ns();
    time_t s = (time_t)(now / NS_PER_S);
    if (s != last || !second[0]) {
        struct tm tm;
        gmtime_r(&s, &tm);
        strftime(second, sizeof second, "%Y-%m-%dT%H:%M:%S", &tm);
        last = s;
    }
    putf(l, "%s.%03uZ", second, (unsigned)(now % NS_PER_S / NS_PER_MS));
}

static const char end_text[] = "...\n", end_json[] = "...\"}\n";

static void begin(struct line *l, enum log_level level, const char *req)
{
    l->n = 0;
    l->cut = false;
    l->max = LOG_LINE_MAX - (g.json ? sizeof end_json : sizeof end_text);
    if (!g.json) {
        put_time(l);
        putf(l, " %s ", level_text[level]);
        putf(l, "%s%s%s[%d] ", g.role, *g.role ? " " : "", *g.name ? g.name : "salver",
             (int)getpid());
        if (req) {
            puts_(l, "req=");
            put_escaped(l, req, LOG_FIELD_MAX, false);
            puts_(l, " ");
        }
        return;
    }
    puts_(l, "{\"ts\":\"");
    put_time(l);
    putf(l, "\",\"level\":\"%s\"", level_json[level]);
    put_key(l, "role", g.role, LOG_NAME_MAX);
    put_key(l, "name", g.name, LOG_NAME_MAX);
    putf(l, ",\"pid\":%d", (int)getpid());
    if (req)
        put_key(l, "request_id", req, LOG_FIELD_MAX);
}

static void finish(struct line *l, bool in_json_text)
{
    const char *end = g.json && in_json_text ? end_json : g.json ? "...}\n" : end_text;
    end += l->cut ? 0 : 3;
    memcpy(l->text + l->n, end, strlen(end));
    l->n += strlen(end);
}

static bool write_now(const char *p, size_t n)
{
    struct pollfd room = {.fd = g.fd, .events = POLLOUT};
    if (!g.file && poll(&room, 1, 0) <= 0)
        return false;
    ssize_t sent;
    do
        sent = write(g.fd, p, n);
    while (sent < 0 && errno == EINTR);
    return sent >= 0;
}

static unsigned count_lines(const char *p, size_t n)
{
    unsigned lines = 0;
    for (size_t i = 0; i < n; i++)
        lines += p[i] == '\n';
    return lines;
}

static void tell_dropped(void)
{
    unsigned n = atomic_exchange(&g.dropped, 0);
    if (n == 0)
        return;
    struct line l;
    begin(&l, LOG_WARN, NULL);
    puts_(&l, g.json ? ",\"msg\":\"" : "");
    putf(&l, "%u log lines were dropped: whoever reads the log does not keep up", n);
    finish(&l, true);
    if (!write_now(l.text, l.n))
        atomic_fetch_add(&g.dropped, n);
}

// Whole lines, at most LOG_CHUNK bytes.
static void write_lines(const char *p, size_t n)
{
    tell_dropped();
    if (!write_now(p, n))
        atomic_fetch_add(&g.dropped, count_lines(p, n));
}

void log_init(const struct log_conf *c)
{
    struct stat st;
    g.fd = c->fd;
    g.json = c->json;
    g.level = c->level;
    g.file = fstat(c->fd, &st) == 0 && S_ISREG(st.st_mode);
    snprintf(g.role, sizeof g.role, "%s", c->role ? c->role : "");
    snprintf(g.name, sizeof g.name, "%s", c->name ? c->name : "");
}

void log_set_page(struct page *p)
{
    atomic_store(&g.page, p);
}

bool log_on(enum log_level level)
{
    return level >= g.level;
}

static void to_page(enum log_level level, const char *req, const char *msg)
{
    struct page *page = atomic_load(&g.page);
    if (!page)
        return;
    struct line l = {.n = 0, .max = PAGE_LOG_LINE - 1, .cut = false};
    put_time(&l);
    putf(&l, " %s ", level_text[level]);
    if (req)
        putf(&l, "req=%.64s ", req);
    put_escaped(&l, msg, l.max - l.n - 3, false);
    page_log(page, l.text, l.n);
}

void log_line(enum log_level level, const char *req, const char *fmt, ...)
{
    if (!log_on(level))
        return;
    char msg[LOG_LINE_MAX];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(msg, sizeof msg, fmt, ap);
    va_end(ap);
    struct line l;
    begin(&l, level, req);
    puts_(&l, g.json ? ",\"msg\":\"" : "");
    put_escaped(&l, msg, LOG_LINE_MAX, g.json);
    finish(&l, true);
    write_lines(l.text, l.n);
    to_page(level, req, msg);
}

static void put_access_text(struct line *l, const struct log_access *a)
{
    const struct {
        const char *key, *value;
    } texts[] = {{"client", a->client},   {"method", a->method},   {"path", a->path},
                 {"route", a->route},     {"app", a->app},         {"deployment", a->deployment},
                 {"replica", a->replica}, {"outcome", a->outcome}, {"notes", a->notes}};
    puts_(l, g.json ? ",\"msg\":\"access\"" : "access");
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        size_t max = i == 2 || i == 8 ? LOG_PATH_MAX : LOG_FIELD_MAX;
        if (g.json) {
            put_key(l, texts[i].key, texts[i].value, max);
        } else if (texts[i].value && *texts[i].value) {
            putf(l, " %s=", texts[i].key);
            put_escaped(l, texts[i].value, max, false);
        }
    }
}

static void put_access_numbers(struct line *l, const struct log_access *a)
{
    const struct {
        const char *key;
        uint64_t value;
    } numbers[] = {{"status", (uint64_t)a->status},
                   {"bytes_in", a->bytes_in},
                   {"bytes_out", a->bytes_out},
                   {"queue_us", a->queue_ns / NS_PER_US},
                   {"first_byte_us", a->first_byte_ns / NS_PER_US},
                   {"total_us", a->total_ns / NS_PER_US}};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        putf(l, g.json ? ",\"%s\":%llu" : " %s=%llu", numbers[i].key,
             (unsigned long long)numbers[i].value);
}

void log_access(const struct log_access *a)
{
    if (!log_on(LOG_INFO))
        return;
    struct line l;
    begin(&l, LOG_INFO, a->request_id);
    put_access_text(&l, a);
    put_access_numbers(&l, a);
    finish(&l, false);
    pthread_mutex_lock(&g.lock);
    buf_put(&g.access, l.text, l.n);
    bool full = buf_len(&g.access) > LOG_ACCESS_MAX;
    pthread_mutex_unlock(&g.lock);
    if (full)
        log_access_flush();
}

// Up to the last line end within LOG_CHUNK; a line is never longer than that.
static size_t chunk_of(const char *p, size_t n)
{
    if (g.file || n <= LOG_CHUNK)
        return n;
    const char *end = memrchr(p, '\n', LOG_CHUNK);
    return end ? (size_t)(end + 1 - p) : LOG_CHUNK;
}

void log_access_flush(void)
{
    pthread_mutex_lock(&g.lock);
    while (buf_len(&g.access)) {
        size_t n = chunk_of(buf_head(&g.access), buf_len(&g.access));
        write_lines(buf_head(&g.access), n);
        buf_consume(&g.access, n);
    }
    pthread_mutex_unlock(&g.lock);
}
