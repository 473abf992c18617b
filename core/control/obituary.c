// SPDX-License-Identifier: Apache-2.0
#include "control/obituary.h"

#include "obs/log.h"

#include <cjson/cJSON.h>

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static void read_doing(struct obituary *o, const struct page *p);
static void read_lines(struct obituary *o, const struct page *p, struct bytes output);
static void add_line(struct obituary *o, const char *p, size_t n);
static size_t put_cause(const struct obituary *o, char *out, size_t cap);

void obituary_read(struct obituary *o, const struct page *p, const struct wire_died *d,
                   const char *killed_why)
{
    *o = (struct obituary){.pid = atomic_load(&p->pid),
                           .generation = d->generation,
                           .status = d->status,
                           .signal = d->signal,
                           .address = p->last.address};
    snprintf(o->name, sizeof o->name, "%s", d->name);
    page_str(p->plugin, sizeof p->plugin, o->plugin, sizeof o->plugin);
    uint32_t seen = atomic_load(&p->last.signal);
    if (seen && seen < 128)
        o->signal = seen;
    page_str(p->last.why, sizeof p->last.why, o->why, sizeof o->why);
    if (!*o->why) // else it was leaving by itself, too slowly for us
        snprintf(o->why, sizeof o->why, "%s", killed_why);
    page_str(p->last.backtrace, sizeof p->last.backtrace, o->backtrace, sizeof o->backtrace);
    o->n_given = page_request_ids(p, PR_GIVEN, o->given, OBITUARY_IDS);
    read_doing(o, p);
    read_lines(o, p, d->output);
}

static void set_doing(struct obituary *o, uint32_t doing)
{
    if (doing != PD_IDLE && doing < PD_COUNT)
        snprintf(o->doing, sizeof o->doing, "%s", page_doing_names[doing]);
}

// Of the thread that fell; else of the first one that was in the plugin.
static void read_doing(struct obituary *o, const struct page *p)
{
    set_doing(o, p->last.doing);
    uint32_t n = atomic_load(&p->n_threads);
    for (uint32_t i = 0; !*o->doing && i < n && i < PAGE_THREADS; i++)
        set_doing(o, atomic_load(&p->threads[i].doing));
}

static void read_lines(struct obituary *o, const struct page *p, struct bytes output)
{
    char line[PAGE_LOG_LINE];
    for (uint32_t i = 0; page_log_line(p, i, line); i++)
        add_line(o, line, strlen(line));
    while (output.n) {
        const char *end = memchr(output.p, '\n', output.n);
        size_t n = end ? (size_t)(end - output.p) : output.n;
        add_line(o, output.p, n);
        n += end != NULL;
        output.p += n;
        output.n -= n;
    }
}

// The newest PAGE_LOG_LINES are kept.
static void add_line(struct obituary *o, const char *p, size_t n)
{
    if (o->n_lines == PAGE_LOG_LINES) {
        memmove(o->lines[0], o->lines[1], sizeof o->lines - sizeof o->lines[0]);
        o->n_lines--;
    }
    snprintf(o->lines[o->n_lines++], PAGE_LOG_LINE, "%.*s",
             (int)(n < PAGE_LOG_LINE ? n : PAGE_LOG_LINE - 1), p);
}

static size_t clamp(int n, size_t cap)
{
    return n < 0 ? 0 : (size_t)n < cap ? (size_t)n : cap - 1;
}

static size_t put_cause(const struct obituary *o, char *out, size_t cap)
{
    if (!o->signal && o->status == WIRE_STATUS_UNKNOWN)
        return clamp(snprintf(out, cap, "ended unseen, while no supervisor was its parent"), cap);
    if (!o->signal)
        return clamp(snprintf(out, cap, "ended with status %d", o->status), cap);
    const char *name = sigabbrev_np((int)o->signal);
    size_t n = clamp(snprintf(out, cap, "signal %u (SIG%s)", o->signal, name ? name : "?"), cap);
    if (o->signal == 11 || o->signal == 7) // SIGSEGV, SIGBUS
        n += clamp(snprintf(out + n, cap - n, " at 0x%" PRIx64, o->address), cap - n);
    return n;
}

void obituary_sentence(const struct obituary *o, char out[OBITUARY_SENTENCE])
{
    const size_t cap = OBITUARY_SENTENCE;
    size_t n = put_cause(o, out, cap);
    if (*o->doing)
        n += clamp(snprintf(out + n, cap - n, " in %s()", o->doing), cap - n);
    if (*o->plugin)
        n += clamp(snprintf(out + n, cap - n, ", plugin %s", o->plugin), cap - n);
    if (*o->why)
        n += clamp(snprintf(out + n, cap - n, ": %s", o->why), cap - n);
    if (o->n_given)
        snprintf(out + n, cap - n, "; %u request%s aboard", o->n_given,
                 o->n_given == 1 ? " was" : "s were");
}

void obituary_log(const struct obituary *o)
{
    char sentence[OBITUARY_SENTENCE];
    obituary_sentence(o, sentence);
    LOGE("%s (pid %" PRIu64 ", generation %u) died: %s", o->name, o->pid, o->generation, sentence);
    for (uint32_t i = 0; i < o->n_given && i < OBITUARY_IDS_LOG; i++)
        LOGE("%s aboard: request %016" PRIx64, o->name, o->given[i]);
    if (o->n_given > OBITUARY_IDS_LOG)
        LOGE("%s aboard: %u more", o->name, o->n_given - OBITUARY_IDS_LOG);
    for (const char *p = o->backtrace; *p;) {
        size_t n = strcspn(p, "\n");
        LOGE("%s backtrace: %.*s", o->name, (int)n, p);
        p += n + (p[n] == '\n');
    }
    for (uint32_t i = 0; i < o->n_lines; i++)
        LOGE("%s last line %u of %u: %s", o->name, i + 1, o->n_lines, o->lines[i]);
}

struct cJSON *obituary_json(const struct obituary *o)
{
    char text[OBITUARY_SENTENCE];
    obituary_sentence(o, text);
    cJSON *j = cJSON_CreateObject();
    cJSON_AddStringToObject(j, "text", text);
    cJSON_AddNumberToObject(j, "pid", (double)o->pid);
    cJSON_AddNumberToObject(j, "generation", o->generation);
    cJSON_AddNumberToObject(j, "signal", o->signal);
    cJSON_AddNumberToObject(j, "exit_status", o->status);
    cJSON_AddStringToObject(j, "plugin", o->plugin);
    cJSON_AddStringToObject(j, "callback", o->doing);
    cJSON_AddStringToObject(j, "why", o->why);
    cJSON_AddStringToObject(j, "backtrace", o->backtrace);
    cJSON_AddNumberToObject(j, "requests_aboard", o->n_given);
    cJSON *ids = cJSON_AddArrayToObject(j, "request_ids");
    for (uint32_t i = 0; i < o->n_given && i < OBITUARY_IDS; i++) {
        char id[24];
        snprintf(id, sizeof id, "%016" PRIx64, o->given[i]);
        cJSON_AddItemToArray(ids, cJSON_CreateString(id));
    }
    cJSON *lines = cJSON_AddArrayToObject(j, "log");
    for (uint32_t i = 0; i < o->n_lines; i++)
        cJSON_AddItemToArray(lines, cJSON_CreateString(o->lines[i]));
    return j;
}
