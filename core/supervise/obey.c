// SPDX-License-Identifier: Apache-2.0
#include "supervise/obey.h"

#include "base/err.h"
#include "obs/log.h"
#include "supervise/mesh.h"
#include "supervise/upgrade.h"

#include <signal.h>
#include <string.h>

typedef int obey_fn(struct supervisor *s, const struct wire_frame *f, struct err *err);

static obey_fn on_spec, on_retire, on_kill, on_list, on_buried, on_replace, on_upgrade;

static obey_fn *const table[] = {
    [WIRE_spec] = on_spec,       [WIRE_retire] = on_retire, [WIRE_kill] = on_kill,
    [WIRE_list] = on_list,       [WIRE_buried] = on_buried, [WIRE_replace] = on_replace,
    [WIRE_upgrade] = on_upgrade,
};

void obey_frame(struct child *c, struct wire_frame *f)
{
    struct supervisor *s = c->ctx;
    struct err err;
    if (s->control != c || s->phase != SP_RUN)
        return;
    if (f->head.kind >= ARRAY_LEN(table) || !table[f->head.kind])
        return; // a newer control may know more
    if (table[f->head.kind](s, f, &err) < 0)
        LOGE("%s from control: %s", wire_kind_name(f->head.kind), err.msg);
}

void obey_say_child(struct supervisor *s, const struct child *c)
{
    wire_put_child(&s->control->link.out, 0, 0,
                   &(struct wire_child){.name = c->name,
                                        .child_id = c->id,
                                        .role = c->role,
                                        .place = c->place,
                                        .pid = (uint64_t)c->pid,
                                        .generation = c->generation,
                                        .started_ns = c->started_ns});
    link_kick(&s->control->link);
}

static int on_spec(struct supervisor *s, const struct wire_frame *f, struct err *err)
{
    struct wire_spec m;
    int rc = wire_get_spec(f, &m, err);
    if (rc < 0)
        return rc;
    if (m.role != ROLE_INGRESS && m.role != ROLE_WORKER)
        return err_set(err, -400, "'%s' has role %u; only ingresses and workers are started",
                       m.name, m.role);
    if (m.role == ROLE_INGRESS && m.place >= s->listeners.n)
        return err_set(err, -400, "'%s' has place %u, but there are %u listeners", m.name, m.place,
                       s->listeners.n);
    return keep_spec(s, m.name, m.role, m.place, m.restart != 0, m.orders, err);
}

static int on_retire(struct supervisor *s, const struct wire_frame *f, struct err *err)
{
    struct wire_retire m;
    int rc = wire_get_retire(f, &m, err);
    if (rc == 0)
        keep_retire(s, m.name, m.child_id);
    return rc;
}

static int on_kill(struct supervisor *s, const struct wire_frame *f, struct err *err)
{
    struct wire_kill m;
    int rc = wire_get_kill(f, &m, err);
    if (rc < 0)
        return rc;
    struct child *c = keep_find(s, m.child_id);
    if (!c || c->ended)
        return 0; // it was faster
    if (m.signal == 0 || m.signal >= NSIG)
        return err_set(err, -400, "signal %u", m.signal);
    LOGW("killing %s (pid %d) with signal %u: %s", c->name, (int)c->pid, m.signal, m.why);
    child_kill(c, (int)m.signal);
    return 0;
}

static void say_spec(struct supervisor *s, const struct spec *spec)
{
    wire_put_spec(&s->control->link.out, 0, 0,
                  &(struct wire_spec){.name = spec->name,
                                      .role = spec->role,
                                      .place = spec->place,
                                      .restart = spec->restart,
                                      .orders = keep_orders(spec)});
}

static int on_list(struct supervisor *s, const struct wire_frame *f, struct err *err)
{
    struct wire_list m;
    int rc = wire_get_list(f, &m, err);
    if (rc < 0)
        return rc;
    uint32_t count = 0;
    s->control_listed = true;
    list_for_each (n, &s->specs) {
        const struct spec *spec = CONTAINER_OF(n, struct spec, node);
        if (spec->role != ROLE_CONTROL)
            say_spec(s, spec);
    }
    list_for_each (n, &s->children) {
        const struct child *c = CONTAINER_OF(n, struct child, node);
        if (c == s->control || c->ended)
            continue;
        obey_say_child(s, c);
        count++;
    }
    list_for_each (n, &s->graves)
        mesh_say_died(s, CONTAINER_OF(n, struct grave, node));
    wire_put_listed(&s->control->link.out, 0, 0, &(struct wire_listed){.count = count});
    link_kick(&s->control->link);
    return 0;
}

static int on_buried(struct supervisor *s, const struct wire_frame *f, struct err *err)
{
    struct wire_buried m;
    int rc = wire_get_buried(f, &m, err);
    if (rc == 0)
        keep_bury(s, m.child_id);
    return rc;
}

static int on_replace(struct supervisor *s, const struct wire_frame *f, struct err *err)
{
    struct wire_replace m;
    int rc = wire_get_replace(f, &m, err);
    if (rc == 0)
        keep_replace(s, m.name);
    return rc;
}

static int on_upgrade(struct supervisor *s, const struct wire_frame *f, struct err *err)
{
    struct wire_upgrade m;
    struct err why;
    int rc = wire_get_upgrade(f, &m, err);
    if (rc == 0 && upgrade_begin(s, m.path, &why) < 0)
        upgrade_answer(s, why.code, why.msg);
    return rc;
}
