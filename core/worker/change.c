// SPDX-License-Identifier: Apache-2.0
#include "worker/change.h"

#include "base/err.h"
#include "base/mem.h"
#include "conf/diff.h"
#include "obs/log.h"
#include "worker/cfg.h"
#include "worker/hub.h"
#include "worker/neighbour.h"

#include <cjson/cJSON.h>

enum { CHANGES_SHOWN = 64 }; // of `config`, looked at for one that is not live

struct change_orders {
    uint64_t revision;
    struct neighbour *from; // borrowed; NULL: gone
    struct orders orders;
    struct buf text; // as they came: a new supervisor is told what holds
};

static void answer(struct change_orders *o, int code, const char *text)
{
    if (code < 0)
        LOGW("orders %llu are refused with %d: %s; the old ones hold",
             (unsigned long long)o->revision, code, text);
    if (o->from) {
        wire_put_ordered(&o->from->link.out, 0, 0,
                         &(struct wire_ordered){
                             .revision = o->revision, .code = code < 0 ? code : 0, .text = text});
        o->from->dirty = true;
    }
}

static void drop(struct change_orders *own_o)
{
    buf_finish(&own_o->text);
    orders_finish(&own_o->orders);
    xfree(own_o);
}

static void refuse(struct change_orders *own_o, int code, const char *text)
{
    answer(own_o, code, text);
    drop(own_o);
}

static void hold(struct hub *h, struct change_orders *own_o)
{
    orders_take_over(&h->orders, &own_o->orders);
    hub_set_numbers(h);
    channel_set_orders(&h->up, (struct bytes){buf_head(&own_o->text), buf_len(&own_o->text)});
    h->up.timeout_s = h->orders.orphan_timeout_s;
    LOGI("orders %llu hold: %u slots", (unsigned long long)own_o->revision, h->slots.cap);
    answer(own_o, 0, "");
    drop(own_o);
}

/* ---- what changes ---- */

static uint32_t diff_config(const struct plugin *p, const char *old, const char *new,
                            struct conf_change *out, uint32_t max)
{
    cJSON *a = cJSON_Parse(old), *b = cJSON_Parse(new);
    struct diff_option *options = xcalloc(p->n_options + 1, sizeof *options);
    for (uint32_t i = 0; i < p->n_options; i++)
        options[i] = (struct diff_option){.name = p->options[i].name,
                                          .fallback = p->options[i].fallback,
                                          .live = p->options[i].flags & SV_LIVE};
    uint32_t n = conf_diff_config(a, b, options, p->n_options, out, max);
    xfree(options);
    cJSON_Delete(a);
    cJSON_Delete(b);
    return n;
}

// 0: nothing to tell the plugin; 1: reconfigure(); < 0: not in this worker.
static int look(struct hub *h, const struct orders *next, struct err *err)
{
    const struct plugin *p = &h->engine.plugin;
    struct conf_change changes[CHANGES_SHOWN];
    const char *fixed = orders_fixed(&h->orders, next);
    if (fixed)
        return err_set(err, SV_E_UNSUPPORTED, "'%s' changes only with a new worker", fixed);
    uint32_t n = diff_config(p, h->orders.config, next->config, changes, CHANGES_SHOWN);
    for (uint32_t i = 0; i < n && i < CHANGES_SHOWN; i++)
        if (changes[i].class != RELOAD_LIVE)
            return err_set(err, SV_E_UNSUPPORTED,
                           "'%s' changes only with a new worker: plugin '%s' does not call it live",
                           changes[i].name, p->d.name);
    if (n == 0)
        return 0;
    if (!p->d.reconfigure)
        return err_set(err, SV_E_UNSUPPORTED,
                       "'%s' changes only with a new worker: plugin '%s' has no reconfigure()",
                       changes[0].name, p->d.name);
    if (h->change.kept_bytes + strlen(next->config) > CHANGE_CONFIGS_MAX)
        return err_set(err, SV_E_UNSUPPORTED,
                       "'%s' changes only with a new worker: this one has been told %u configs, "
                       "which the plugin may hold on to, and has room for %d bytes of them",
                       changes[0].name, h->change.n_kept, CHANGE_CONFIGS_MAX);
    return 1;
}

static void begin(struct hub *h, struct change_orders *own_o)
{
    struct change *c = &h->change;
    struct err err = {0};
    int rc = look(h, &own_o->orders, &err);
    if (rc > 0)
        rc = cfg_create(own_o->orders.config, &h->engine.plugin, &c->cfg, &err) < 0 ? err.code : 1;
    if (rc < 0) {
        refuse(own_o, rc, err.msg);
    } else if (rc == 0) {
        hold(h, own_o);
    } else {
        c->now = own_o;
        hub_call(h, &(struct call){.kind = CALL_RECONFIGURE, .cfg = c->cfg});
    }
}

/* ---- when ---- */

static bool is_serving(const struct hub *h)
{
    return h->drain.phase == DRAIN_NONE && (h->state == WS_READY || h->state == WS_DEGRADED);
}

int change_take(struct hub *h, struct neighbour *from, const struct wire_frame *f, struct err *err)
{
    struct change *c = &h->change;
    struct wire_orders m;
    struct err why = {0};
    int rc = wire_get_orders(f, &m, err);
    if (rc < 0)
        return rc;
    struct change_orders *o = xcalloc(1, sizeof *o);
    o->revision = m.revision;
    o->from = from;
    buf_put(&o->text, m.json.p, m.json.n);
    if (orders_parse(&o->orders, m.json, &why) < 0) {
        refuse(o, SV_E_INVALID, why.msg);
        return 0;
    }
    if (h->drain.phase != DRAIN_NONE) {
        refuse(o, SV_E_UNAVAILABLE, "this worker is leaving");
        return 0;
    }
    if (c->next)
        refuse(c->next, SV_E_CANCELLED, "newer orders came before their turn");
    c->next = o;
    change_next(h);
    return 0;
}

void change_next(struct hub *h)
{
    struct change *c = &h->change;
    struct change_orders *o = c->next;
    if (!o || c->now || !is_serving(h))
        return;
    c->next = NULL;
    begin(h, o);
}

static void keep(struct change *c, const char *json)
{
    c->kept = xrealloc(c->kept, (c->n_kept + 1) * sizeof(struct sv_cfg *));
    c->kept[c->n_kept++] = c->cfg;
    c->kept_bytes += strlen(json);
    c->cfg = NULL;
}

void change_done(struct hub *h, int code, const char *text)
{
    struct change *c = &h->change;
    struct change_orders *o = c->now;
    c->now = NULL;
    if (code < 0) {
        struct err err = {0};
        cfg_destroy(c->cfg);
        c->cfg = NULL;
        err_set(&err, code, "reconfigure: %s", text);
        refuse(o, code, err.msg);
    } else {
        keep(c, o->orders.config);
        hold(h, o);
    }
    if (c->next && h->drain.phase != DRAIN_NONE) {
        refuse(c->next, SV_E_UNAVAILABLE, "this worker is leaving");
        c->next = NULL;
    }
    change_next(h);
}

void change_forget(struct hub *h, const struct neighbour *gone)
{
    struct change *c = &h->change;
    if (c->now && c->now->from == gone)
        c->now->from = NULL;
    if (c->next && c->next->from == gone)
        c->next->from = NULL;
}
