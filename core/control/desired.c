// SPDX-License-Identifier: Apache-2.0
#include "control/desired.h"

#include "abi/plugin.h"
#include "base/buf.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/mem.h"
#include "base/str.h"
#include "conf/diff.h"
#include "control/deploy.h"
#include "control/doc.h"
#include "control/gpus.h"
#include "control/member.h"
#include "control/probe.h"
#include "control/record.h"
#include "control/statefile.h"
#include "control/store.h"
#include "control/swap.h"
#include "control/texts.h"
#include "obs/log.h"

#include <cjson/cJSON.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int read_orders(struct control *c, struct bytes orders, struct err *err);
static int take(struct control *c, struct doc *doc, struct err *err);
static void apply(struct control *c, struct doc *doc);
static int first_text(struct control *c, struct err *err);
static int recall(struct control *c, struct err *err);
static void serve_as(struct control *c, struct doc *doc);
static void recall_version(struct control *c);
static void find_gpus(struct control *c);

/* ---- a text is accepted ---- */

static int read_text(const struct deploy_text *t, struct doc **ret, struct err *err)
{
    if (t->json) {
        cJSON *j = cJSON_ParseWithLength(t->text, t->n);
        bool object = cJSON_IsObject(j);
        cJSON_Delete(j);
        if (!object)
            return err_set(err, SV_E_INVALID, "the body is not a JSON object");
    }
    return doc_from_text(t->path, t->text, t->n, ret, err);
}

static int can_change(const struct control *c, struct err *err)
{
    if (!c->store)
        return err_set(err, SV_E_UNAVAILABLE, "nothing can be changed: %s", c->store_why);
    if (!c->listed)
        return err_set(err, SV_E_UNAVAILABLE,
                       "control has just started and does not know yet what runs; try again");
    return 0;
}

int desired_put(struct control *c, const struct deploy_text *t, struct err *err)
{
    struct doc *doc = NULL;
    int rc = can_change(c, err);
    if (rc == 0)
        rc = read_text(t, &doc, err);
    if (rc == 0) {
        CHECK(doc);
        rc = take(c, doc, err);
        doc_unref(doc);
    }
    return rc;
}

// Durable, then acted upon.
static int take(struct control *c, struct doc *doc, struct err *err)
{
    int rc = record_put(c, doc, err);
    if (rc < 0)
        return rc;
    doc_warn(doc, false);
    if (strcmp(doc->conf.http.host, c->server->conf.http.host) != 0 ||
        doc->conf.http.num_ingress != c->server->conf.http.num_ingress)
        LOGW("http_options hold from the start of a server on: host and num_ingress of this text "
             "count when it is started again");
    apply(c, doc);
    return 0;
}

static void apply(struct control *c, struct doc *doc)
{
    list_for_each_safe (n, &c->deploys) {
        struct deploy *d = CONTAINER_OF(n, struct deploy, node);
        if (!doc_app(doc, d->name) && !d->deleting) {
            LOGI("application %s is deleted", d->name);
            deploy_delete(d);
        }
    }
    for (uint32_t i = 0; i < doc->conf.n_apps; i++) {
        const char *name = doc->conf.apps[i].name;
        struct deploy *d = deploy_find(c, name);
        if (!d)
            d = deploy_create(c, name);
        if (d->order == 0 || d->deleting)
            d->order = record_order(c->seq, i);
        d->seq = c->seq;
        struct version *v = version_create(d, doc);
        if (!deploy_keep(d, v)) {
            d->rolled_back = false;
            *d->failed = '\0';
            deploy_offer(d, version_ref(v));
        }
        version_unref(v);
    }
    control_changed(c);
}

int desired_delete(struct control *c, const char *app, struct err *err)
{
    if (can_change(c, err) < 0)
        return SV_E_UNAVAILABLE;
    struct deploy *d = app ? deploy_find(c, app) : NULL;
    if (app && (!d || d->deleting)) {
        struct buf known = {0};
        list_for_each (n, &c->deploys) {
            const struct deploy *other = CONTAINER_OF(n, struct deploy, node);
            if (!other->deleting)
                buf_printf(&known, "%s'%s'", buf_len(&known) ? ", " : "", other->name);
        }
        int rc =
            err_set(err, SV_E_NOT_FOUND, "there is no application '%s'; there %s %.700s", app,
                    buf_len(&known) ? "are" : "is", buf_len(&known) ? buf_cstr(&known) : "none");
        buf_finish(&known);
        return rc;
    }
    int rc = record_delete(c, app, err);
    list_for_each_safe (n, &c->deploys) {
        struct deploy *each = CONTAINER_OF(n, struct deploy, node);
        if (rc == 0 && (!app || each == d))
            deploy_delete(each);
    }
    return rc;
}

/* ---- what a text would change ---- */

static void add_change(cJSON *all, const struct conf_change *ch)
{
    cJSON *one = cJSON_CreateObject();
    cJSON_AddStringToObject(one, "field", ch->name);
    cJSON_AddStringToObject(one, "class", conf_diff_word(ch->class));
    cJSON_AddItemToArray(all, one);
}

static cJSON *compare(const struct version *v, const struct conf_app *app)
{
    enum { CHANGES_MAX = 256 };
    struct conf_change *changes = xcalloc(CHANGES_MAX, sizeof *changes);
    cJSON *j = cJSON_CreateObject();
    char *options = cJSON_PrintUnformatted(cJSON_GetObjectItemCaseSensitive(v->probed, "options"));
    uint32_t n = conf_diff(v->app, v->conf, app, &app->deployments[app->active], options, changes,
                           CHANGES_MAX);
    cJSON_free(options);
    cJSON_AddStringToObject(j, "action", n == 0 ? "none" : "update");
    cJSON *all = cJSON_AddArrayToObject(j, "changes");
    for (uint32_t i = 0; i < n && i < CHANGES_MAX; i++)
        add_change(all, &changes[i]);
    xfree(changes);
    return j;
}

int desired_dry_run(struct control *c, const struct deploy_text *t, struct buf *ret_json,
                    struct err *err)
{
    struct doc *doc = NULL;
    int rc = read_text(t, &doc, err);
    if (rc < 0)
        return rc;
    CHECK(doc);
    cJSON *j = cJSON_CreateObject(), *apps = cJSON_AddObjectToObject(j, "applications");
    for (uint32_t i = 0; i < doc->conf.n_apps; i++) {
        const struct conf_app *app = &doc->conf.apps[i];
        const struct deploy *d = deploy_find(c, app->name);
        const struct version *v = d && !d->deleting ? deploy_version(d) : NULL;
        if (v)
            cJSON_AddItemToObject(apps, app->name, compare(v, app));
        else
            cJSON_AddStringToObject(cJSON_AddObjectToObject(apps, app->name), "action", "add");
    }
    list_for_each (n, &c->deploys) {
        const struct deploy *d = CONTAINER_OF(n, struct deploy, node);
        if (!d->deleting && !doc_app(doc, d->name))
            cJSON_AddStringToObject(cJSON_AddObjectToObject(apps, d->name), "action", "remove");
    }
    char *text = cJSON_PrintUnformatted(j);
    buf_puts(ret_json, text);
    cJSON_free(text);
    cJSON_Delete(j);
    doc_unref(doc);
    return 0;
}

void desired_config(struct control *c, struct cJSON *into)
{
    list_for_each (n, &c->deploys) {
        const struct deploy *d = CONTAINER_OF(n, struct deploy, node);
        const struct version *v = d->next ? d->next : deploy_version(d); // one that failed too
        if (v && !d->deleting)
            cJSON_AddItemToObject(into, d->name, record_config(v->doc, d->name));
    }
}

/* ---- the start ---- */

int desired_load(struct control *c, struct bytes orders, struct err *err)
{
    static const char nothing[] = "applications: []\n";
    int rc = read_orders(c, orders, err);
    if (rc == 0)
        rc = doc_from_text("", nothing, sizeof nothing - 1, &c->server, err);
    if (rc < 0)
        return rc;
    if (store_open(c->state_dir, &c->store, err) < 0) {
        snprintf(c->store_why, sizeof c->store_why, "%s", err->msg);
        LOGE("%s; what runs goes on, nothing else is done", c->store_why);
        return 0;
    }
    recall_version(c);
    return recall(c, err);
}

static char *text_of(const cJSON *j, const char *key)
{
    return xstrdup(cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(j, key)));
}

static int read_orders(struct control *c, struct bytes orders, struct err *err)
{
    cJSON *j = cJSON_ParseWithLength(orders.p, orders.n);
    if (!cJSON_IsObject(j)) {
        cJSON_Delete(j);
        return err_set(err, SV_E_INVALID, "the orders are not a JSON object");
    }
    c->orders.text = j;
    c->orders.file = text_of(j, "file");
    c->orders.host = text_of(j, "host");
    c->orders.plugins_dir = text_of(j, "plugins");
    c->orders.plugin = text_of(j, "plugin");
    c->orders.options = cJSON_GetObjectItemCaseSensitive(j, "options");
    return 0;
}

// What the store says; in a server's first control the text of its command line comes on top.
static int recall(struct control *c, struct err *err)
{
    bool first = c->generation == 0 && (c->orders.file || c->orders.plugin);
    int rc = record_recall(c, err);
    if (rc < 0) {
        snprintf(c->store_why, sizeof c->store_why, "%s", err->msg);
        LOGE("%s; what runs goes on, nothing else is done", c->store_why);
        store_close(c->store);
        c->store = NULL;
        return 0;
    }
    return first ? first_text(c, err) : 0;
}

static int first_text(struct control *c, struct err *err)
{
    struct buf text = {0};
    struct doc *doc = NULL;
    int rc = 0;
    if (c->orders.plugin)
        rc = doc_from_flags(c->orders.plugin, c->orders.options, &doc, err);
    else if ((rc = statefile_read_path(c->orders.file, &text, err)) == 0)
        rc = doc_from_text(c->orders.file, buf_cstr(&text), buf_len(&text), &doc, err);
    buf_finish(&text);
    if (rc < 0)
        return rc;
    serve_as(c, doc);
    rc = record_put(c, doc, err);
    if (rc == 0) {
        doc_warn(doc, false);
        c->first = doc_ref(doc); // acted upon when it is known what runs
    }
    doc_unref(doc);
    return rc;
}

static void serve_as(struct control *c, struct doc *doc)
{
    doc_unref(c->server);
    c->server = doc_ref(doc);
}

static void set_address(struct control *c)
{
    int64_t port;
    const char *bound = getenv("SALVER_PORT"); // by the supervisor
    const struct conf_http *http = &c->server->conf.http;
    snprintf(c->host, sizeof c->host, "%s", c->orders.host ? c->orders.host : http->host);
    c->port = http->port;
    if (bound && str_to_i64(bound, &port, NULL) == 0 && port > 0 && port <= UINT16_MAX)
        c->port = (uint32_t)port;
}

static void start_ingresses(struct control *c)
{
    for (uint32_t i = 0; i < c->server->conf.http.num_ingress; i++) {
        char name[CONTROL_NAME_MAX];
        snprintf(name, sizeof name, "ingress/%u", i);
        char *orders = texts_ingress(c, i);
        control_say_spec(c, name, ROLE_INGRESS, i, orders);
        xfree(orders);
    }
}

// An earlier control of this life has inspected it: the same version again, whatever the file is
// now.
static bool restore(struct deploy *d, const cJSON *probes, struct version *v)
{
    const cJSON *known = cJSON_GetObjectItemCaseSensitive(probes, d->name);
    const char *sha = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(known, "doc"));
    const cJSON *probed = cJSON_GetObjectItemCaseSensitive(known, "probed");
    if (!sha || strcmp(sha, v->doc->sha) != 0 || !probe_restore(v, probed))
        return false;
    deploy_restore(d, v);
    return true;
}

static void resume(struct control *c)
{
    struct buf text = {0};
    cJSON *probes = NULL;
    if (statefile_read(c->state_dir, "probes.json", &text, NULL) == 0)
        probes = cJSON_Parse(buf_cstr(&text));
    list_for_each (n, &c->deploys) {
        struct deploy *d = CONTAINER_OF(n, struct deploy, node);
        struct version *v = d->next; // what the store's text asks for
        d->next = NULL;
        if (d->rolled_back && d->good)
            deploy_restore(d, version_ref(d->good));
        if (!v || d->rolled_back)
            version_unref(v);
        else if (!restore(d, probes, v))
            deploy_offer(d, v);
    }
    cJSON_Delete(probes);
    buf_finish(&text);
    control_changed(c);
}

void desired_start(struct control *c)
{
    set_address(c);
    if (!c->store)
        return;
    start_ingresses(c);
    find_gpus(c);
    if (c->first) {
        apply(c, c->first);
        doc_unref(c->first);
        c->first = NULL;
    } else {
        resume(c);
    }
}

// Versions go on where the control before this one stopped.
static void recall_version(struct control *c)
{
    struct buf text = {0};
    if (statefile_read(c->state_dir, "snapshot.json", &text, NULL) == 0) {
        cJSON *j = cJSON_Parse(buf_cstr(&text));
        const cJSON *version = cJSON_GetObjectItemCaseSensitive(j, "version");
        if (cJSON_IsNumber(version) && version->valuedouble > 0)
            c->snapshot_version = (uint64_t)version->valuedouble;
        cJSON_Delete(j);
    }
    buf_finish(&text);
}

/* ---- notes for later controls ---- */

void desired_note_good(struct deploy *d)
{
    struct err err;
    if (record_note_good(d, &err) < 0)
        LOGW("%s; a later control will not know which version of %s was good", err.msg, d->name);
}

void desired_note_failed(struct deploy *d)
{
    struct err err;
    if (d->control->store && record_note_failed(d, &err) < 0)
        LOGW("%s; a later control will try the failed version of %s again", err.msg, d->name);
}

static void write_note(struct control *c, const char *name, cJSON *own_json, const char *else_what)
{
    struct err err;
    char *text = cJSON_Print(own_json);
    cJSON_Delete(own_json);
    if (statefile_write(c->state_dir, name, text, strlen(text), &err) < 0)
        LOGW("%s; %s", err.msg, else_what);
    cJSON_free(text);
}

void desired_note_probes(struct control *c)
{
    c->probes_due = true;
    control_changed(c);
}

void desired_write_probes(struct control *c)
{
    if (!c->probes_due)
        return;
    c->probes_due = false;
    cJSON *all = cJSON_CreateObject();
    list_for_each (n, &c->deploys) {
        const struct deploy *d = CONTAINER_OF(n, struct deploy, node);
        if (!d->target || d->deleting)
            continue;
        cJSON *one = cJSON_AddObjectToObject(all, d->name);
        cJSON_AddStringToObject(one, "doc", d->target->doc->sha);
        cJSON_AddItemReferenceToObject(one, "probed", d->target->probed);
    }
    write_note(c, "probes.json", all, "a replaced control will inspect the plugins again");
}

void desired_note_gpus(struct control *c)
{
    if (c->gpus.n > 0 || *c->gpus.why) // else counted in no time
        write_note(c, "gpus.json", gpus_json(&c->gpus),
                   "a replaced control will not know which replica has which GPU");
}

/* ---- GPUs ---- */

struct counting {
    uv_work_t work;
    struct control *control;
    struct gpus gpus;
};

static void count_gpus(uv_work_t *w)
{
    gpus_count(&CONTAINER_OF(w, struct counting, work)->gpus);
}

static void on_counted(uv_work_t *w, int status)
{
    struct counting *n = CONTAINER_OF(w, struct counting, work);
    struct control *c = n->control;
    CHECK(status == 0);
    c->gpus = n->gpus;
    c->gpus_counted = true;
    xfree(n);
    if (*c->gpus.why)
        LOGW("no GPU is used: %s", c->gpus.why);
    for (uint32_t i = 0; i < c->gpus.n; i++)
        LOGI("GPU %u: %s, %.1f GiB, %s", i, c->gpus.gpu[i].name,
             (double)c->gpus.gpu[i].bytes / (1 << 30), c->gpus.gpu[i].uuid);
    desired_note_gpus(c);
    probe_counted(c);
}

// From the control before this one, or anew.
static void find_gpus(struct control *c)
{
    struct buf text = {0};
    cJSON *j = NULL;
    if (statefile_read(c->state_dir, "gpus.json", &text, NULL) == 0)
        j = cJSON_Parse(buf_cstr(&text));
    c->gpus_counted = gpus_from_json(j, &c->gpus);
    cJSON_Delete(j);
    buf_finish(&text);
    if (c->gpus_counted)
        return;
    struct counting *n = xcalloc(1, sizeof *n);
    n->control = c;
    CHECK(uv_queue_work(&c->loop, &n->work, count_gpus, on_counted) == 0);
}
