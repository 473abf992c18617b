// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * log - lines for people or machines, one write(2) a line (or a turn's lines), to the log fd.
 *
 * Text    2026-11-23T01:02:03.456Z INFO  worker echo/echo/0[123] req=4f0c... message
 * JSON    {"ts":...,"level":...,"role":...,"name":...,"pid":...,"request_id":...,"msg":...}
 * Bounds  LOG_LINE_MAX bytes a line; longer is cut with "...". Control characters are escaped.
 * Never blocks: when the fd is full, lines are dropped and the next one that fits says how many.
 * Thread  any. In a worker every line also goes into the page (log_set_page).
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct page;

enum log_level { LOG_DEBUG = 0, LOG_INFO = 1, LOG_WARN = 2, LOG_ERROR = 3 };
enum { LOG_LINE_MAX = 4096 };

struct log_conf {
    int fd;
    bool json;
    enum log_level level;
    const char *role, *name; // copied
};
void log_init(const struct log_conf *c);
// Format and level from the environment, SALVER_LOG=json|text:debug|info|warning|error, as the
// supervisor hands them down. What is missing or unknown there leaves *c as it is.
void log_conf_from_env(struct log_conf *c);
void log_set_page(struct page *p);
bool log_on(enum log_level level);

// `req` is the request id as text, or NULL.
__attribute__((format(printf, 3, 4))) void log_line(enum log_level level, const char *req,
                                                    const char *fmt, ...);
#define LOGD(...) (log_on(LOG_DEBUG) ? log_line(LOG_DEBUG, NULL, __VA_ARGS__) : (void)0)
#define LOGI(...) log_line(LOG_INFO, NULL, __VA_ARGS__)
#define LOGW(...) log_line(LOG_WARN, NULL, __VA_ARGS__)
#define LOGE(...) log_line(LOG_ERROR, NULL, __VA_ARGS__)

// One finished request. Buffered; log_access_flush writes them (once a turn).
struct log_access {
    const char *request_id, *client, *method, *path, *route, *app, *deployment, *replica;
    const char *outcome; // "ok", "client_gone", "replica_lost", ...
    int status;
    uint64_t bytes_in, bytes_out, queue_ns, first_byte_ns, total_ns;
    const char *notes; // "tokens=12 model=x" from host->note, or ""
};
void log_access(const struct log_access *a);
void log_access_flush(void);
