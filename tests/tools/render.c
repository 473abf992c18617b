// SPDX-License-Identifier: Apache-2.0
/*
 * render - chat templates behind a pipe, for the tests that compare them with jinja2.
 *
 * Asked on stdin, answered on stdout, one JSON object a line:
 *   {"template", "messages", "tools", "documents", "extra", "add_generation_prompt",
 *    "continue_final_message", "bos_token", "eos_token", "now"}, all but the first may be absent
 *   -> {"out": text, "spans": [[begin, end], ...]} or {"error": text, "compiled": bool}
 */
#include "base/buf.h"
#include "base/err.h"
#include "common/json.h"
#include "llm/template.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LINE_MAX_BYTES = 256 << 20 };

static void answer_error(const struct err *err, bool compiled)
{
    struct buf b = {0};
    buf_puts(&b, "{\"error\":");
    buf_put_json(&b, err->msg, strlen(err->msg));
    buf_printf(&b, ",\"compiled\":%s}\n", compiled ? "true" : "false");
    fwrite(buf_head(&b), 1, buf_len(&b), stdout);
    buf_finish(&b);
}

static void answer(const struct buf *out, const struct spans *spans)
{
    struct buf b = {0};
    buf_puts(&b, "{\"out\":");
    buf_put_json(&b, buf_head(out), buf_len(out));
    buf_puts(&b, ",\"spans\":[");
    for (size_t i = 0; i < spans->n; i++)
        buf_printf(&b, "%s[%zu,%zu]", i ? "," : "", spans->v[i].begin, spans->v[i].end);
    buf_puts(&b, "]}\n");
    fwrite(buf_head(&b), 1, buf_len(&b), stdout);
    buf_finish(&b);
}

static void render(const struct template *t, yyjson_val *q)
{
    struct template_input in = {
        .messages = json_get(q, "messages"),
        .tools = json_get(q, "tools"),
        .documents = json_get(q, "documents"),
        .extra = json_get(q, "extra"),
        .add_generation_prompt = json_bool(q, "add_generation_prompt", false),
        .continue_final_message = json_bool(q, "continue_final_message", false),
        .bos_token = json_str(q, "bos_token", NULL),
        .eos_token = json_str(q, "eos_token", NULL),
        .now = json_int(q, "now", 0)};
    struct buf out = {0};
    struct spans spans = {0};
    struct err err = {0};
    if (template_render(t, &in, &out, &spans, &err) < 0)
        answer_error(&err, true);
    else
        answer(&out, &spans);
    buf_finish(&out);
    spans_finish(&spans);
}

int main(void)
{
    char *line = NULL;
    size_t cap = 0;
    ssize_t n;
    while ((n = getline(&line, &cap, stdin)) > 0) {
        yyjson_doc *doc = NULL;
        struct template *t = NULL;
        struct err err = {0};
        if (json_parse(line, (size_t)n, LINE_MAX_BYTES, &doc, &err) < 0) {
            fprintf(stderr, "render: %s\n", err.msg);
            return 2;
        }
        yyjson_val *q = yyjson_doc_get_root(doc), *source = json_get(q, "template");
        if (template_compile(yyjson_get_str(source), yyjson_get_len(source), &t, &err) < 0)
            answer_error(&err, false);
        else
            render(t, q);
        fflush(stdout);
        template_destroy(t);
        yyjson_doc_free(doc);
    }
    free(line);
    return 0;
}
