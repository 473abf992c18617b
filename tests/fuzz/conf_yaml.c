// SPDX-License-Identifier: Apache-2.0
// A configuration of any bytes is loaded or refused; what is loaded dumps to a file that loads to
// the same dump, passes a plugin's options or not, and makes JSON that parses.
#include "base/buf.h"
#include "base/check.h"
#include "base/err.h"
#include "conf/app.h"
#include "conf/diff.h"

#include <cjson/cJSON.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool dump(const char *p, size_t n, struct buf *out)
{
    struct conf_file f = {0};
    struct err err = {0};
    bool ok = conf_load_bytes("fuzz.yaml", p, n, &f, &err) == 0;

    CHECK(ok == (f.report->n_errors == 0));
    CHECK(ok || *err.msg);
    conf_print(&f, out);
    if (ok) {
        buf_clear(out);
        conf_dump(&f, out);
    }
    conf_finish(&f);
    return ok;
}

static void check_warmups(const struct conf_deployment *d)
{
    struct buf json = {0};
    conf_warmups_json(d, &json);
    cJSON *tree = cJSON_Parse(buf_cstr(&json));
    CHECK(cJSON_IsArray(tree) && cJSON_GetArraySize(tree) == (int)d->n_warmups);
    CHECK(buf_len(&json) < CONF_FILE_MAX * 4);
    cJSON_Delete(tree);
    buf_finish(&json);
}

static void check_each(const char *p, size_t n)
{
    static const char options[] =
        "[{\"type\":0,\"name\":\"a\"},{\"type\":1,\"name\":\"b.c\",\"max\":9},"
        "{\"type\":6,\"name\":\"p\"},{\"type\":7,\"name\":\"b.j\"},"
        "{\"type\":5,\"name\":\"t\",\"fallback\":\"1s\"}]";
    struct conf_file f = {0};

    if (conf_load_bytes("fuzz.yaml", p, n, &f, NULL) == 0) {
        for (uint32_t i = 0; i < f.n_apps; i++) {
            const struct conf_deployment *d = &f.apps[i].deployments[f.apps[i].active];
            const char *json = NULL;
            CHECK(d->name && d->plugin && cJSON_IsObject(d->config));
            check_warmups(d);
            CHECK(conf_diff(&f.apps[i], d, &f.apps[i], d, options, NULL, 0) == 0);
            if (conf_check_options(&f, d, options, &json, NULL) < 0)
                continue;
            cJSON *tree = cJSON_Parse(json);
            CHECK(tree);
            cJSON_Delete(tree);
        }
    }
    conf_finish(&f);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct buf first = {0}, second = {0};
    const char *text = (const char *)data;

    if (dump(text, size, &first)) {
        if (!dump(buf_cstr(&first), buf_len(&first), &second))
            BUG("the dump does not load: %s\n%s", buf_cstr(&second), buf_cstr(&first));
        if (strcmp(buf_cstr(&first), buf_cstr(&second)) != 0)
            BUG("the dump is another one:\n%s---\n%s", buf_cstr(&first), buf_cstr(&second));
        check_each(text, size);
    }
    buf_finish(&first);
    buf_finish(&second);
    return 0;
}
