// SPDX-License-Identifier: Apache-2.0
#include "control/refresh.h"

#include "base/err.h"
#include "control/deploy.h"
#include "control/doc.h"
#include "control/stash.h"
#include "obs/log.h"

#include <string.h>

static bool stamp_of(const struct deploy *d, uint64_t *ret)
{
    char path[STASH_PATH_MAX];
    const struct version *v = d->target;
    return stash_find(v->conf->plugin, v->doc->conf.dir, d->control->orders.plugins_dir, path,
                      NULL) == 0 &&
           stash_stamp(path, ret, NULL) == 0;
}

// A copy of the text for all that have it: what is found out about the new file is added to it.
static struct doc *copy_of(const struct doc *doc, struct doc **kept)
{
    struct err err;
    if (*kept && strcmp((*kept)->sha, doc->sha) == 0)
        return *kept;
    doc_unref(*kept);
    *kept = NULL;
    if (doc_from_record(doc->record, kept, &err) < 0)
        LOGE("a text cannot be read any more: %s", err.msg);
    else
        doc_warn(*kept, true);
    return *kept;
}

static void offer(struct deploy *d, struct doc *doc)
{
    LOGI("application %s: the file of plugin '%s' has changed", d->name, d->target->conf->plugin);
    struct version *v = version_create(d, doc);
    v->refreshed = true;
    deploy_offer(d, v);
}

static void look(struct deploy *d, struct doc **kept)
{
    uint64_t stamp;
    if (!d->target || d->next || d->deleting || !stamp_of(d, &stamp))
        return;
    bool settled = stamp == d->stamp_seen;
    d->stamp_seen = stamp;
    if (!settled || stamp == d->stamp_tried)
        return;
    d->stamp_tried = stamp;
    struct doc *doc = copy_of(d->target->doc, kept);
    if (doc)
        offer(d, doc);
}

void refresh_look(struct control *c)
{
    struct doc *kept = NULL; // copies of the last text
    if (!c->live || !c->store)
        return;
    list_for_each (n, &c->deploys)
        look(CONTAINER_OF(n, struct deploy, node), &kept);
    doc_unref(kept);
}
