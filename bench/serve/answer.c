// SPDX-License-Identifier: Apache-2.0
#include "serve/answer.h"

#include <yyjson.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int bad(struct answer *a, const char *what, const char *text, size_t n)
{
    if (!*a->error)
        snprintf(a->error, sizeof a->error, "%s%s%.*s", what, n ? ": " : "",
                 (int)(n > 160 ? 160 : n), text);
    return -1;
}

static int on_json(struct answer *a, const char *p, size_t n)
{
    yyjson_doc *doc = yyjson_read(p, n, 0);
    yyjson_val *root = yyjson_doc_get_root(doc), *usage = yyjson_obj_get(root, "usage");
    int rc = 0;
    if (!doc || yyjson_obj_get(root, "error"))
        rc = bad(a, doc ? "an error in the stream" : "an event that is no JSON", p, n);
    else if (a->done)
        rc = bad(a, "an event after [DONE]", p, n);
    else if (yyjson_arr_size(yyjson_obj_get(root, "choices")) > 0) {
        a->events++;
        a->on_choices(a->user, a->now_ns);
    }
    if (rc == 0 && yyjson_is_obj(usage))
        a->usage = (uint32_t)yyjson_get_uint(yyjson_obj_get(usage, "completion_tokens"));
    yyjson_doc_free(doc);
    return rc;
}

static int on_line(struct answer *a)
{
    const char *p = a->line;
    size_t n = a->line_len;
    if (n > 0 && p[n - 1] == '\r')
        n--;
    if (n < 5 || memcmp(p, "data:", 5) != 0)
        return 0; // an empty line, a comment, another field
    p += 5;
    n -= 5;
    if (n > 0 && *p == ' ')
        p++, n--;
    if (n == 6 && memcmp(p, "[DONE]", 6) == 0) {
        a->done = true;
        return 0;
    }
    return on_json(a, p, n);
}

static int on_body(llhttp_t *parser, const char *p, size_t n)
{
    struct answer *a = parser->data;
    if (parser->status_code != 200)
        return bad(a, "an error", p, n);
    while (n > 0) {
        const char *end = memchr(p, '\n', n);
        size_t take = end ? (size_t)(end - p) : n;
        if (a->line_len + take > ANSWER_LINE_MAX)
            return bad(a, "a line too long", "", 0);
        memcpy(a->line + a->line_len, p, take);
        a->line_len += take;
        if (!end)
            return 0;
        if (on_line(a) < 0)
            return -1;
        a->line_len = 0;
        p += take + 1;
        n -= take + 1;
    }
    return 0;
}

static int on_whole(llhttp_t *parser)
{
    struct answer *a = parser->data;
    char status[32];
    int n = snprintf(status, sizeof status, "%d", parser->status_code);
    a->whole = true;
    a->keep_alive = llhttp_should_keep_alive(parser);
    if (parser->status_code != 200)
        return bad(a, "status", status, (size_t)n);
    if (a->events == 0)
        return bad(a, "no token", "", 0);
    if (a->usage == 0)
        return bad(a, "no usage", "", 0);
    return a->done ? HPE_PAUSED : bad(a, "no [DONE]", "", 0);
}

static const llhttp_settings_t *settings(void)
{
    static llhttp_settings_t s;
    if (!s.on_body) {
        llhttp_settings_init(&s);
        s.on_body = on_body;
        s.on_message_complete = on_whole;
    }
    return &s;
}

void answer_init(struct answer *a, void (*on_choices)(void *user, uint64_t now_ns), void *user)
{
    char *line = a->line ? a->line : malloc(ANSWER_LINE_MAX);
    *a = (struct answer){.line = line, .on_choices = on_choices, .user = user};
    if (!line) {
        fprintf(stderr, "answer: no memory\n");
        exit(1);
    }
    llhttp_init(&a->parser, HTTP_RESPONSE, settings());
    a->parser.data = a;
}

void answer_finish(struct answer *a)
{
    free(a->line);
    a->line = NULL;
}

void answer_feed(struct answer *a, const char *p, size_t n, uint64_t now_ns)
{
    if (*a->error)
        return;
    a->now_ns = now_ns;
    llhttp_errno_t e = llhttp_execute(&a->parser, p, n);
    if (e == HPE_PAUSED && llhttp_get_error_pos(&a->parser) != p + n)
        bad(a, "bytes after the end", "", 0);
    else if (e != HPE_OK && e != HPE_PAUSED && !*a->error)
        bad(a, "broken HTTP", llhttp_get_error_reason(&a->parser),
            strlen(llhttp_get_error_reason(&a->parser)));
}

bool answer_reusable(const struct answer *a)
{
    return a->whole && !*a->error && a->keep_alive;
}
