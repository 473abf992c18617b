// SPDX-License-Identifier: Apache-2.0
/*
 * named - the plugin that offers sv.models/1 and, when told to, breaks its rules.
 *
 * `models: A,B`: model A, also called B; without, the deployment's name. `lie`: see get(); "most"
 * is none: as many as may be, with long names. A request is held for ?ms= and answered with what
 * waits in the plugin: nothing.
 */
#include "models.h"

#include <signal.h>
#include <stdlib.h>
#include <time.h>

enum { NAMES_MAX = 1024 };

typedef struct {
    const sv_host *host;
    const char *lie;
    char names[NAMES_MAX]; // each ended by NUL
    uint32_t n;
    sv_metric *waiting;
} named;

static int create(const sv_host *h, const sv_cfg *cfg, void **self)
{
    named *p = calloc(1, sizeof *p);
    if (!p)
        return SV_E_NOMEM;
    p->host = h;
    p->lie = h->cfg_str(cfg, "lie", "");
    const char *names = h->cfg_str(cfg, "models", "");
    snprintf(p->names, sizeof p->names, "%s", *names ? names : h->deployment);
    p->n = 1;
    for (char *c = strchr(p->names, ','); c; c = strchr(c + 1, ',')) {
        *c = 0;
        p->n++;
    }
    p->waiting = h->metric(h, SV_GAUGE, "named:waiting{model_name=\"first\"}",
                           "Waits in the plugin.", NULL, 0);
    h->record(p->waiting, 0);
    *self = p;
    return SV_OK;
}

static void destroy(void *self)
{
    free(self);
}

static uint32_t count(void *self)
{
    const named *p = self;
    if (!strcmp(p->lie, "most"))
        return SV_MODELS_COUNT;
    return strcmp(p->lie, "many") ? p->n : SV_MODELS_COUNT + 1;
}

static int get(void *self, uint32_t i, sv_model *ret)
{
    static char huge[SV_MODEL_NAME + 2];
    const named *p = self;
    const char *name = p->names;
    for (uint32_t k = 0; k < i && k < p->n; k++)
        name += strlen(name) + 1;
    *ret =
        (sv_model){.size = ret->size, .max_model_len = 4096, .id = name, .root = "/models/named"};
    ret->alias_of = i ? p->names : NULL;
    if (!strcmp(p->lie, "most")) {
        snprintf(huge, sizeof huge, "%.200s-%0100u", p->names, (unsigned)i);
        ret->id = i ? huge : p->names;
    } else if (!strcmp(p->lie, "huge"))
        ret->id = memset(huge, 'h', sizeof huge - 1);
    else if (!strcmp(p->lie, "empty"))
        ret->id = "";
    else if (!strcmp(p->lie, "null"))
        ret->id = NULL;
    else if (!strcmp(p->lie, "utf8"))
        ret->root = "/models/\xff";
    else if (!strcmp(p->lie, "control"))
        ret->id = "a\nb";
    else if (!strcmp(p->lie, "segv"))
        raise(SIGSEGV);
    else if (!strcmp(p->lie, "fail"))
        return p->host->fail(p->host, SV_E_NOT_FOUND, "there is no such model");
    return SV_OK;
}

static const void *extension(const char *id)
{
    static const sv_models models = {
        .size = sizeof models, .count = count, .get = get, .queue_gauge = "named:waiting"};
    return strcmp(id, SV_MODELS) == 0 ? &models : NULL;
}

static int run(void *self, sv_req **reqs, uint32_t n)
{
    char text[16];
    (void)self;
    for (uint32_t i = 0; i < n; i++) {
        long ms = sv_query(reqs[i], "ms", text, sizeof text) > 0 ? strtol(text, NULL, 10) : 0;
        struct timespec t = {ms / 1000, ms % 1000 * 1000000};
        nanosleep(&t, NULL);
        sv_reply(reqs[i], "text/plain", "named", 5);
    }
    return SV_OK;
}

static const sv_option options[] = {
    {SV_STR, 0, "models", "", 0, 0, "Names, the first is the id."},
    {SV_STR, 0, "lie", "", 0, 0, "Which rule of models.h to break."},
};
SV_PLUGIN(.name = "named", .version = "1.0", .about = "For tests: names models.",
          SV_OPTIONS(options), .create = create, .run = run, .destroy = destroy,
          .extension = extension);
