// SPDX-License-Identifier: Apache-2.0
#include "llm/template.h"

#include "abi/plugin.h"
#include "base/buf.h"
#include "base/err.h"
#include "base/mem.h"
#include "base/str.h"
#include "llm/jinja_dict.h"
#include "llm/jinja_exec.h"
#include "llm/jinja_global.h"
#include "llm/jinja_lexer.h"
#include "llm/jinja_parser.h"
#include "llm/jinja_scope.h"
#include "llm/jinja_string.h"

#include <stdio.h>

struct template
{
    struct arena arena; // of the tree
    const struct node *root;
};

#define CONTINUE_TAG "CONTINUE_FINAL_MESSAGE_TAG " // transformers' own

void spans_finish(struct spans *s)
{
    xfree(s->v);
    *s = (struct spans){0};
}

static const struct node *compile(struct jinja *j, const char *source, size_t n)
{
    struct jtokens tokens;
    if (setjmp(j->way_out))
        return NULL;
    jlexer_run(j, source, n, &tokens);
    struct node *root = jparser_run(j, &tokens);
    jscope_run(j, root);
    return root;
}

int template_compile(const char *source, size_t n, struct template **ret, struct err *err)
{
    struct err local = {0};
    if (n > TEMPLATE_SOURCE_MAX)
        return err_set(err, SV_E_INVALID, "the chat template has %zu bytes; at most %d", n,
                       TEMPLATE_SOURCE_MAX);
    if (!str_valid_utf8(source, n))
        return err_set(err, SV_E_INVALID, "the chat template is not valid UTF-8");
    struct jinja *j = xcalloc(1, sizeof *j);
    j->err = err ? err : &local;
    j->steps_max = TEMPLATE_STEPS_MAX;
    arena_init(&j->arena, TEMPLATE_MEMORY_MAX);
    const struct node *root = compile(j, source, n);
    if (root) {
        *ret = xcalloc(1, sizeof **ret);
        (*ret)->arena = j->arena;
        (*ret)->root = root;
    } else {
        arena_finish(&j->arena);
    }
    xfree(j);
    return root ? 0 : SV_E_INVALID;
}

void template_destroy(struct template *t)
{
    if (!t)
        return;
    arena_finish(&t->arena);
    xfree(t);
}

/* The input as values. */

static struct jv from_json(struct jinja *j, yyjson_val *v);

static struct jv from_array(struct jinja *j, yyjson_val *v)
{
    struct jv list = jv_list(j, yyjson_arr_size(v));
    yyjson_arr_iter it;
    yyjson_arr_iter_init(v, &it);
    for (yyjson_val *one; (one = yyjson_arr_iter_next(&it));)
        jv_push(j, list, from_json(j, one));
    return list;
}

static struct jv from_object(struct jinja *j, yyjson_val *v)
{
    struct jdict *d = jdict_new(j, yyjson_obj_size(v));
    yyjson_obj_iter it;
    yyjson_obj_iter_init(v, &it);
    for (yyjson_val *key; (key = yyjson_obj_iter_next(&it));)
        jdict_set(j, d, from_json(j, key), from_json(j, yyjson_obj_iter_get_val(key)));
    return jv_dict(d);
}

static struct jv from_big(struct jinja *j, uint64_t u)
{
    char text[32];
    snprintf(text, sizeof text, "%llu", (unsigned long long)u);
    struct jbuild b = jbuild_new(j, 0);
    jbuild_puts(&b, text);
    struct jv v = jbuild_end(&b);
    v.kind = JV_BIG;
    return v;
}

static struct jv from_json(struct jinja *j, yyjson_val *v)
{
    struct jv r = jv_none();
    jinja_step(j, 1);
    jinja_enter(j);
    if (yyjson_is_str(v))
        r = jstr_new(j, yyjson_get_str(v), yyjson_get_len(v), false);
    else if (yyjson_is_bool(v))
        r = jv_bool(yyjson_get_bool(v));
    else if (yyjson_is_sint(v))
        r = jv_int(yyjson_get_sint(v));
    else if (yyjson_is_uint(v))
        r = yyjson_get_uint(v) > INT64_MAX ? from_big(j, yyjson_get_uint(v))
                                           : jv_int((int64_t)yyjson_get_uint(v));
    else if (yyjson_is_real(v))
        r = jv_float(yyjson_get_real(v));
    else if (yyjson_is_arr(v))
        r = from_array(j, v);
    else if (yyjson_is_obj(v))
        r = from_object(j, v);
    jinja_leave(j);
    return r;
}

// A role of the API's own words is as good as the template's: '<|' + role + '|>' must work.
static void trust_role(struct jinja *j, struct jv message)
{
    static const char *const roles[] = {"system",   "user",      "assistant", "tool",
                                        "function", "developer", "ipython"};
    if (message.kind != JV_DICT)
        return;
    struct jv role = jdict_get_name(j, message.d, "role");
    for (size_t i = 0; role.kind == JV_STRING && i < sizeof roles / sizeof *roles; i++)
        if (jstr_is(role.s, roles[i]))
            jdict_set_name(j, message.d, "role", jstr_new(j, roles[i], role.s->n, true));
}

static void set(struct jinja *j, const char *name, struct jv v)
{
    jdict_set_name(j, j->context, name, v);
}

static void set_token(struct jinja *j, const char *name, const char *text)
{
    text = text ? text : "";
    set(j, name, jstr_new(j, text, strlen(text), true));
}

// Marks where the last message ends.
static void tag_last(struct jinja *j, struct jv messages)
{
    struct jv last = jv_none(), text = jv_none(), tag = jstr_of(j, CONTINUE_TAG);
    struct jdict *d = NULL;
    const char *field = "content";
    if (messages.l->n)
        last = messages.l->v[messages.l->n - 1];
    if (last.kind == JV_DICT) {
        d = last.d;
        text = jdict_get_name(j, d, field);
    }
    if (text.kind == JV_LIST) { // the last part that is text
        struct jv parts = text;
        field = "text";
        text = jv_none();
        for (size_t i = parts.l->n; i-- > 0 && text.kind != JV_STRING;) {
            if (parts.l->v[i].kind != JV_DICT)
                continue;
            d = parts.l->v[i].d;
            text = jdict_get_name(j, d, field);
        }
    }
    if (text.kind != JV_STRING)
        jinja_raise(j, "continue_final_message is set, but the last message has no text", 55);
    j->final_text = text.s;
    jdict_set_name(j, d, field, jstr_concat(j, text.s, tag.s));
}

static void fill_context(struct jinja *j, const struct template_input *in)
{
    j->context = jdict_new(j, 32);
    jglobal_add(j, j->context);
    struct jv messages = in->messages ? from_json(j, in->messages) : jv_list(j, 0);
    if (messages.kind != JV_LIST)
        jinja_raise(j, "messages must be an array", 25);
    for (size_t i = 0; i < messages.l->n; i++)
        trust_role(j, messages.l->v[i]);
    if (in->continue_final_message)
        tag_last(j, messages);
    set(j, "messages", messages);
    set(j, "tools", in->tools ? from_json(j, in->tools) : jv_none());
    set(j, "documents", in->documents ? from_json(j, in->documents) : jv_none());
    set(j, "add_generation_prompt", jv_bool(in->add_generation_prompt));
    set_token(j, "bos_token", in->bos_token);
    set_token(j, "eos_token", in->eos_token);
    struct jv extra = in->extra ? from_json(j, in->extra) : jv_none();
    for (size_t i = 0; extra.kind == JV_DICT && i < jdict_len(extra.d); i++)
        jdict_set(j, j->context, jdict_at(extra.d, i)->key, jdict_at(extra.d, i)->value);
}

static void cut_spans(struct spans *s, size_t end)
{
    while (s && s->n && s->v[s->n - 1].begin >= end)
        s->n--;
    if (s && s->n && s->v[s->n - 1].end > end)
        s->v[s->n - 1].end = end;
}

// Drops the tag and what follows it.
static void cut_at_tag(struct jinja *j, struct jsink *sink)
{
    const struct jstr *final = j->final_text;
    size_t n = buf_len(sink->out) - sink->begin;
    struct jstr out = {.p = n ? buf_head(sink->out) + sink->begin : "", .n = n};
    struct jstr tag = {.p = CONTINUE_TAG, .n = strlen(CONTINUE_TAG) - 1};
    size_t from = 0, to = final->n;
    jstr_strip(final, &from, &to);
    struct jstr text = {.p = final->p + from, .n = to - from};
    size_t at = out.n ? jstr_rfind(j, &out, out.n, &tag) : SIZE_MAX;
    if (at == SIZE_MAX || jstr_find(j, &out, 0, &text) == SIZE_MAX)
        jinja_raise(j,
                    "continue_final_message is set, but the chat template does not write the "
                    "last message as it is",
                    93);
    bool spaced = at + tag.n < out.n && out.p[at + tag.n] == ' ';
    if (!spaced) { // the template strips: so do we
        size_t begin = 0;
        out.n = at;
        jstr_strip(&out, &begin, &at);
        at = begin > at ? 0 : at;
    }
    size_t end = sink->begin + at;
    sink->out->end = sink->out->off + end;
    cut_spans(sink->spans, end);
}

static int render(struct jinja *j, const struct template_input *in, struct jsink *sink)
{
    if (setjmp(j->way_out))
        return -1;
    fill_context(j, in);
    j->frame = jframe_new(j, j->root->scope, NULL);
    jframe_begin(j, j->root->scope, j->frame);
    jexec(j, j->frame, &j->root->body, sink);
    if (in->continue_final_message)
        cut_at_tag(j, sink);
    return 0;
}

int template_render(const struct template *t, const struct template_input *in, struct buf *out,
                    struct spans *trusted, struct err *err)
{
    struct err local = {0};
    struct jsink sink = {.out = out, .spans = trusted, .begin = buf_len(out)};
    struct jinja *j = xcalloc(1, sizeof *j);
    size_t had = trusted ? trusted->n : 0;
    j->err = err ? err : &local;
    j->steps_max = TEMPLATE_STEPS_MAX;
    j->root = t->root;
    j->now = in->now;
    arena_init(&j->arena, TEMPLATE_MEMORY_MAX);
    int rc = render(j, in, &sink);
    if (rc < 0) {
        out->end = out->off + sink.begin;
        if (trusted)
            trusted->n = had;
    }
    arena_finish(&j->arena);
    xfree(j);
    return rc < 0 ? SV_E_INVALID : 0;
}
