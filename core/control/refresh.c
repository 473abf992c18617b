// SPDX-License-Identifier: Apache-2.0
#include "control/refresh.h"

#include "base/err.h"
#include "control/deploy.h"
#include "control/doc.h"
#include "control/stash.h"
#include "obs/log.h"

static bool stamp_of(const struct deploy *d, uint64_t *ret)
{
    char path[STASH_PATH_MAX];
    const struct version *v = d->target;
    return stash_find(v->conf->plugin, v->doc->conf.dir, d->control->orders.plugins_dir, path,
                      NULL) == 0 &&
           stash_stamp(path, ret, NULL) == 0;
}

// Its own copy of the text: what is found out about the new file is added to it.
static void offer(struct deploy *d)
{
    struct doc *doc = NULL;
    struct err err;
    if (doc_from_record(d->target->doc->record, &doc, &err) < 0) {
        LOGE("application %s: its text cannot be read any more: %s", d->name, err.msg);
        return;
    }
    doc_warn(doc, true);
    LOGI("application %s: the file of plugin '%s' has changed", d->name, d->target->conf->plugin);
    struct version *v = version_create(d, doc);
    v->refreshed = true;
    doc_unref(doc);
    deploy_offer(d, v);
}

static void look(struct deploy *d)
{
    uint64_t stamp;
    if (!d->target || d->next || d->deleting || !stamp_of(d, &stamp))
        return;
    bool settled = stamp == d->stamp_seen;
    d->stamp_seen = stamp;
    if (!settled || stamp == d->stamp_tried)
        return;
    d->stamp_tried = stamp;
    offer(d);
}

void refresh_look(struct control *c)
{
    if (!c->live || !c->store)
        return;
    list_for_each (n, &c->deploys)
        look(CONTAINER_OF(n, struct deploy, node));
}
