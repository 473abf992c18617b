// SPDX-License-Identifier: Apache-2.0
/*
 * A chat template of any bytes is rendered or refused, within its bounds. The input is a template,
 * then a NUL, then JSON for messages and the rest (without one: a conversation of ours). What comes
 * out is valid UTF-8, the spans are ascending and within it, and rendering again gives the same.
 */
#include "base/buf.h"
#include "base/check.h"
#include "base/err.h"
#include "base/str.h"
#include "common/json.h"
#include "llm/template.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char conversation[] =
    "{\"messages\":[{\"role\":\"system\",\"content\":\" s \"},"
    "{\"role\":\"user\",\"content\":\"h\\u00e9 <|x|>\\n\"},"
    "{\"role\":\"assistant\",\"content\":null,\"tool_calls\":[{\"id\":\"1\",\"function\":"
    "{\"name\":\"f\",\"arguments\":{\"a\":[1,2.5,null,true,{\"b\":\"c\"}]}}}]},"
    "{\"role\":\"tool\",\"content\":[{\"type\":\"text\",\"text\":\"t\"}]}],"
    "\"tools\":[{\"function\":{\"name\":\"f\",\"parameters\":{\"type\":\"object\"}}}],"
    "\"extra\":{\"x\":\"uv\",\"n\":3,\"f\":0.5,\"big\":18446744073709551615}}";

static void check(const struct buf *out, const struct spans *spans)
{
    CHECK(str_valid_utf8(buf_head(out), buf_len(out)));
    for (size_t i = 0; i < spans->n; i++) {
        CHECK(spans->v[i].begin < spans->v[i].end && spans->v[i].end <= buf_len(out));
        CHECK(!i || spans->v[i].begin > spans->v[i - 1].end);
    }
}

static void render(const struct template *t, yyjson_val *q, struct buf *out, bool go_on)
{
    struct template_input in = {.messages = json_get(q, "messages"),
                                .tools = json_get(q, "tools"),
                                .documents = json_get(q, "documents"),
                                .extra = json_get(q, "extra"),
                                .add_generation_prompt = !go_on,
                                .continue_final_message = go_on,
                                .bos_token = "<s>",
                                .now = 1790000000};
    struct spans spans = {0};
    struct err err = {0};
    if (template_render(t, &in, out, &spans, &err) < 0)
        CHECK(*err.msg && buf_len(out) == 0 && spans.n == 0);
    else
        check(out, &spans);
    spans_finish(&spans);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *text = (const char *)data;
    const char *nul = size ? memchr(text, 0, size) : NULL;
    size_t n = nul ? (size_t)(nul - text) : size;
    struct template *t = NULL;
    struct err err = {0};
    if (template_compile(text, n, &t, &err) < 0) {
        CHECK(*err.msg);
        return 0;
    }
    yyjson_doc *doc = NULL;
    const char *json = nul ? nul + 1 : conversation;
    size_t n_json = nul ? size - n - 1 : sizeof conversation - 1;
    if (json_parse(json, n_json, 1 << 20, &doc, NULL) == 0) {
        struct buf first = {0}, second = {0}, third = {0};
        render(t, yyjson_doc_get_root(doc), &first, false);
        render(t, yyjson_doc_get_root(doc), &second, false);
        CHECK(buf_len(&first) == buf_len(&second) &&
              (!buf_len(&first) || memcmp(first.data, second.data, buf_len(&first)) == 0));
        render(t, yyjson_doc_get_root(doc), &third, true);
        buf_finish(&first);
        buf_finish(&second);
        buf_finish(&third);
    }
    yyjson_doc_free(doc);
    template_destroy(t);
    return 0;
}
