// SPDX-License-Identifier: Apache-2.0
#include "control/copies.h"

#include "control/deploy.h"
#include "control/stash.h"
#include "obs/log.h"

#include <string.h>

static const char *hash_of(const char *dir)
{
    const char *slash = strrchr(dir, '/');
    return slash ? slash + 1 : dir;
}

static bool is_of(const struct version *v, const char *sha256)
{
    return v && strcmp(hash_of(v->stash.dir), sha256) == 0;
}

static bool keeps(void *ctx, const char *sha256)
{
    struct control *c = ctx;
    list_for_each (n, &c->deploys) {
        const struct deploy *d = CONTAINER_OF(n, struct deploy, node);
        if (is_of(d->next, sha256) || is_of(d->target, sha256) || is_of(d->good, sha256) ||
            is_of(d->previous, sha256) || is_of(d->refused, sha256))
            return true;
        for (uint32_t i = 0; i < d->n_replicas; i++)
            if (strcmp(d->replicas[i]->copy, sha256) == 0)
                return true;
    }
    return false;
}

void copies_look(struct control *c)
{
    if (!c->copies_due || !c->live || !c->store || c->n_probes > 0)
        return;
    uint32_t gone = stash_sweep(c->state_dir, keeps, c);
    c->copies_due = gone == STASH_SWEEP_MAX;
    if (gone > 0)
        LOGI("%u cop%s of plugins that nobody uses any more %s gone", gone, gone == 1 ? "y" : "ies",
             gone == 1 ? "is" : "are");
}
