// SPDX-License-Identifier: Apache-2.0
// The texts that the tables make: `salver config FILE`, `salver config --defaults`, docs/config.md.
#include "base/buf.h"
#include "base/check.h"
#include "base/err.h"
#include "conf/app.h"
#include "conf/tables.h"

#include <string.h>

void conf_dump(const struct conf_file *f, struct buf *out)
{
    field_dump(&conf_root_table, f, 0, out);
}

void conf_http_json(const struct conf_file *f, struct buf *out)
{
    field_json(&conf_http_table, &f->http, out);
}

static void put_text(const char *key, const char *text, struct buf *out)
{
    buf_printf(out, ",\"%s\":", key);
    buf_put_json(out, text, strlen(text));
}

static void put_warmup(const struct conf_warmup *w, struct buf *out)
{
    struct buf json = {0};

    if (w->json)
        yaml_json(w->json, &json);
    const char *type = w->json ? "application/json" : w->body ? "text/plain" : "";
    buf_printf(out, "{\"method\":\"%s\"", conf_warmup_methods[w->method]);
    put_text("path", w->path, out);
    put_text("content_type", w->content_type ? w->content_type : type, out);
    put_text("body", w->body ? w->body : buf_cstr(&json), out);
    buf_printf(out, ",\"expect_status\":%u}", w->expect_status);
    buf_finish(&json);
}

void conf_warmups_json(const struct conf_deployment *d, struct buf *out)
{
    buf_puts(out, "[");
    for (uint32_t i = 0; i < d->n_warmups; i++) {
        buf_puts(out, i ? "," : "");
        put_warmup(&d->warmups[i], out);
    }
    buf_puts(out, "]");
}

void conf_defaults(struct buf *out)
{
    static const char example[] = "applications: [{plugin: echo, deployments: [{name: echo}]}]";
    struct conf_file f = {0};
    struct err err = {0};

    if (conf_load_bytes("defaults", example, sizeof example - 1, &f, &err) < 0)
        BUG("the defaults do not load: %s", err.msg);
    buf_puts(out,
             "# Every key with its default. A key that is commented out has none: the plugin's\n"
             "# plan says, or what stands in its comment.\n");
    field_dump_defaults(&conf_root_table, &f, 0, out);
    conf_finish(&f);
}

void conf_doc(struct buf *out)
{
    buf_puts(
        out,
        "# Configuration\n\n"
        "Made by `salver doc config` from the tables in core/conf/tables.c; change those.\n\n"
        "A file is Ray Serve's `serveConfigV2` with `plugin:` in the place of `import_path:` "
        "and a `config:` block that the plugin's own options check. `salver check FILE` says "
        "what is wrong with one, `salver config FILE` shows what holds, `salver config "
        "--defaults` prints every key with its default.\n\n"
        "- Keys marked * are not Ray's.\n"
        "- A time is a number of seconds or has a unit: `250ms`, `10s`, `5m`, `1h`. A size is a "
        "number of bytes or has a unit: `512KiB`, `16MiB`, `1GiB`.\n"
        "- `${NAME}` anywhere in a value is replaced by the environment variable, "
        "`${NAME:-default}` has a default, `$${` is a literal `${`. Inside of `{ }` and `[ ]` "
        "YAML wants quotes around it.\n"
        "- Below `config:` a value that is `file:PATH` as a whole is replaced by the file's "
        "content, at most 64 KiB, without the newline at its end. PATH is relative to the YAML "
        "file. What came from a variable or a file there is shown as `***`.\n"
        "- An unknown key is an error; a key of Ray's that means nothing here is a warning.\n"
        "- YAML 1.2's types: `yes`, `no`, `on` and `off` are texts. Anchors, aliases and `<<` "
        "work.\n"
        "- What a change does to a running deployment: *at once*, no replica is touched; "
        "*live*, replicas are told and go on; *rolling*, replicas are replaced, some at a time; "
        "*restart*, it is read when the server starts.\n\n"
        "`salver serve --plugin NAME --KEY VALUE ...` serves one plugin without a file: each "
        "KEY is an option of the plugin, the deployment is called as the file in `--model` "
        "is, else as the plugin, and its prefix is `/`.\n\n");
    field_doc(&conf_root_table, out);
    while (buf_len(out) >= 2 && memcmp(out->data + out->end - 2, "\n\n", 2) == 0)
        out->end--;
}
