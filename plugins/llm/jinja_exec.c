// SPDX-License-Identifier: Apache-2.0
#include "llm/jinja_exec.h"

#include "base/buf.h"
#include "base/check.h"
#include "base/mem.h"
#include "llm/jinja_call.h"
#include "llm/jinja_iter.h"
#include "llm/jinja_loop.h"
#include "llm/jinja_repr.h"
#include "llm/template.h"

static void push_span(struct spans *s, size_t begin, size_t end)
{
    if (s->n && s->v[s->n - 1].end == begin) {
        s->v[s->n - 1].end = end;
        return;
    }
    if (s->n == s->cap) {
        s->cap = s->cap ? s->cap * 2 : 16;
        s->v = xrealloc(s->v, s->cap * sizeof *s->v); // at most one for two bytes of output
    }
    s->v[s->n++] = (struct span){begin, end};
}

static void put_out(struct jinja *j, struct jsink *sink, const struct jstr *s)
{
    size_t len = buf_len(sink->out) - sink->begin;
    if (s->n > TEMPLATE_OUTPUT_MAX - len)
        jinja_fail(j, "the template writes more than %d MiB", TEMPLATE_OUTPUT_MAX >> 20);
    jinja_step_bytes(j, s->n);
    for (size_t at = 0; at < s->n && sink->spans;) {
        bool trusted;
        size_t end = jstr_run(s, at, &trusted), base = sink->begin + len;
        if (trusted)
            push_span(sink->spans, base + at, base + end);
        at = end;
    }
    buf_put(sink->out, s->p, s->n);
}

void jexec_put(struct jinja *j, struct jsink *sink, struct jv v)
{
    if (!sink->out)
        jrepr_put_str(&sink->build, v);
    else
        put_out(j, sink, jrepr_str(j, v));
}

static struct jsink text_sink(struct jinja *j)
{
    return (struct jsink){.build = jbuild_new(j, 0)};
}

static enum jexec_end run_inner(struct jinja *j, struct jframe *f, const struct node *n,
                                struct jsink *sink)
{
    struct jframe *inner = jframe_new(j, n->scope, f);
    jframe_begin(j, n->scope, inner);
    return jexec(j, inner, &n->body, sink);
}

static enum jexec_end run_block(struct jinja *j, const struct node *n, struct jsink *sink)
{
    struct jframe *outer = j->toplevel;
    j->toplevel = j->frame;
    enum jexec_end end = run_inner(j, NULL, n, sink);
    j->toplevel = outer;
    return end;
}

static enum jexec_end run_set_block(struct jinja *j, struct jframe *f, const struct node *n)
{
    struct jsink sink = text_sink(j);
    struct jframe *inner = jframe_new(j, n->scope, f);
    jframe_begin(j, n->scope, inner);
    enum jexec_end end = jexec(j, inner, &n->body, &sink);
    if (end != JEXEC_NORMAL)
        return end;
    struct jv text = jbuild_end(&sink.build);
    if (n->b) {
        struct jstr *outer = j->block_text;
        j->block_text = text.s;
        text = jeval(j, inner, n->b);
        j->block_text = outer;
    }
    j->line = n->line;
    jeval_assign(j, f, n->a, text);
    return JEXEC_NORMAL;
}

// What a filter or call block gives must be a string: jinja2 joins it with the rest.
static void put_joined(struct jinja *j, struct jsink *sink, struct jv v)
{
    if (v.kind != JV_STRING)
        jinja_fail(j, "expected str instance, %s found", jv_type(v));
    jexec_put(j, sink, v);
}

static enum jexec_end run_filter_block(struct jinja *j, struct jframe *f, const struct node *n,
                                       struct jsink *sink)
{
    struct jsink inner_sink = text_sink(j);
    struct jframe *inner = jframe_new(j, n->scope, f);
    jframe_begin(j, n->scope, inner);
    enum jexec_end end = jexec(j, inner, &n->body, &inner_sink);
    if (end != JEXEC_NORMAL)
        return end;
    struct jstr *outer = j->block_text;
    j->block_text = jbuild_end(&inner_sink.build).s;
    put_joined(j, sink, jeval(j, inner, n->b));
    j->block_text = outer;
    return JEXEC_NORMAL;
}

static enum jexec_end run_with(struct jinja *j, struct jframe *f, const struct node *n,
                               struct jsink *sink)
{
    struct jframe *inner = jframe_new(j, n->scope, f);
    jframe_begin(j, n->scope, inner);
    for (size_t i = 0; i < n->items.n; i += 2)
        jeval_assign(j, inner, n->items.v[i], jeval(j, f, n->items.v[i + 1]));
    return jexec(j, inner, &n->body, sink);
}

static enum jexec_end run_if(struct jinja *j, struct jframe *f, const struct node *n,
                             struct jsink *sink)
{
    if (jv_truth(j, jeval(j, f, n->a)))
        return jexec(j, f, &n->body, sink);
    for (size_t i = 0; i < n->items.n; i++)
        if (jv_truth(j, jeval(j, f, n->items.v[i]->a)))
            return jexec(j, f, &n->items.v[i]->body, sink);
    return jexec(j, f, &n->orelse, sink);
}

struct filtered { // the items of a loop with an `if`
    const struct node *n;
    struct jframe *frame;
};

static bool next_filtered(struct jinja *j, struct jiter *it, struct jv *ret)
{
    const struct filtered *w = it->more;
    while (jiter_next(j, it->from, ret)) {
        jeval_assign(j, w->frame, w->n->a, *ret);
        if (jv_truth(j, jeval(j, w->frame, w->n->c)))
            return true;
    }
    return false;
}

static struct jv filter_items(struct jinja *j, struct jframe *f, const struct node *n,
                              struct jv items)
{
    struct filtered *w = jinja_alloc(j, sizeof *w);
    w->n = n;
    w->frame = jframe_new(j, n->test_scope, f);
    jframe_begin(j, n->test_scope, w->frame);
    return jiter_value(jiter_new(j, jiter_open(j, items), w, next_filtered));
}

static enum jexec_end run_else(struct jinja *j, struct jframe *f, const struct node *n,
                               struct jsink *sink)
{
    struct jframe *inner = jframe_new(j, n->else_scope, f);
    jframe_begin(j, n->else_scope, inner);
    return jexec(j, inner, &n->orelse, sink);
}

static enum jexec_end run_loop(struct jinja *j, struct jframe *f, const struct node *n,
                               struct jv items, int64_t depth, struct jsink *sink)
{
    if (n->c)
        items = filter_items(j, f, n, items);
    struct jloop *loop = jloop_new(j, items, n, f, depth);
    struct jframe *inner = jframe_new(j, n->scope, f);
    bool ran = false; // a body to its end: a break or continue keeps `else` alive, as in jinja2
    struct jv one;
    for (;;) {
        j->line = n->line;
        if (!jloop_next(j, loop, &one))
            break;
        jframe_begin(j, n->scope, inner);
        jeval_assign(j, inner, n->a, one);
        if (n->loop_used)
            *jframe_at(inner, n->loop_place) = (struct jv){.kind = JV_LOOP, .loop = loop};
        enum jexec_end end = jexec(j, inner, &n->body, sink);
        if (end == JEXEC_BREAK)
            break;
        ran |= end == JEXEC_NORMAL;
    }
    return ran ? JEXEC_NORMAL : run_else(j, f, n, sink);
}

struct jv jexec_loop_text(struct jinja *j, struct jframe *f, const struct node *n, struct jv items,
                          int64_t depth)
{
    struct jsink sink = text_sink(j);
    run_loop(j, f, n, items, depth, &sink);
    return jbuild_end(&sink.build);
}

static enum jexec_end run_for(struct jinja *j, struct jframe *f, const struct node *n,
                              struct jsink *sink)
{
    struct jv items = jeval(j, f, n->b);
    j->line = n->line;
    if (!n->recursive)
        return run_loop(j, f, n, items, 0, sink);
    jexec_put(j, sink, jexec_loop_text(j, f, n, items, 0));
    return JEXEC_NORMAL;
}

static void run_call_block(struct jinja *j, struct jframe *f, const struct node *n,
                           struct jsink *sink)
{
    struct jv caller = jcall_new_macro(j, n, f);
    struct jv callee = jeval(j, f, n->a->a);
    struct jargs args = jcall_args(j, f, n->a->call);
    j->line = n->line;
    jcall_keyword(j, &args, "caller", caller);
    put_joined(j, sink, jcall_value(j, callee, &args));
}

static void run_output(struct jinja *j, struct jframe *f, const struct node *n, struct jsink *sink)
{
    for (size_t i = 0; i < n->items.n; i++) {
        struct jv v = jeval(j, f, n->items.v[i]);
        jexec_put(j, sink, v);
    }
}

static enum jexec_end run(struct jinja *j, struct jframe *f, const struct node *n,
                          struct jsink *sink)
{
    switch (n->kind) {
    case NODE_OUTPUT:
        run_output(j, f, n, sink);
        return JEXEC_NORMAL;
    case NODE_SET:
        jeval_assign(j, f, n->a, jeval(j, f, n->b));
        return JEXEC_NORMAL;
    case NODE_SET_BLOCK:
        return run_set_block(j, f, n);
    case NODE_IF:
        return run_if(j, f, n, sink);
    case NODE_FOR:
        return run_for(j, f, n, sink);
    case NODE_MACRO:
        *jframe_at(f, n->place) = jcall_new_macro(j, n, f);
        return JEXEC_NORMAL;
    case NODE_CALL_BLOCK:
        run_call_block(j, f, n, sink);
        return JEXEC_NORMAL;
    case NODE_FILTER_BLOCK:
        return run_filter_block(j, f, n, sink);
    case NODE_WITH:
        return run_with(j, f, n, sink);
    case NODE_GENERATION:
        return run_inner(j, f, n, sink);
    case NODE_BLOCK:
        return run_block(j, n, sink);
    case NODE_BREAK:
        return JEXEC_BREAK;
    case NODE_CONTINUE:
        return JEXEC_CONTINUE;
    default:
        BUG("a node of kind %d as a statement", (int)n->kind);
    }
}

enum jexec_end jexec(struct jinja *j, struct jframe *f, const struct node_list *body,
                     struct jsink *sink)
{
    enum jexec_end end = JEXEC_NORMAL;
    jinja_enter(j);
    for (size_t i = 0; i < body->n && end == JEXEC_NORMAL; i++) {
        jinja_step(j, 1);
        j->line = body->v[i]->line;
        end = run(j, f, body->v[i], sink);
    }
    jinja_leave(j);
    return end;
}
