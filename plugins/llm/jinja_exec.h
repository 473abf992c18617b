// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * jinja_exec - runs statements. What they write goes to a sink: the rendering's output, or a
 * string that a macro, a set block or a filter block is about to make.
 */
#include "llm/jinja_eval.h"
#include "llm/jinja_string.h"

struct buf;
struct spans;

struct jsink {
    struct buf *out;     // NULL: to build
    struct spans *spans; // trusted parts of out; NULL: nobody asks
    size_t begin;        // length of out before the rendering
    struct jbuild build;
};

enum jexec_end { JEXEC_NORMAL, JEXEC_BREAK, JEXEC_CONTINUE };

enum jexec_end jexec(struct jinja *j, struct jframe *f, const struct node_list *body,
                     struct jsink *sink);
void jexec_put(struct jinja *j, struct jsink *sink, struct jv v); // str(v)
// The loop over `items`, as text: of recursive loops. depth counts from 0.
struct jv jexec_loop_text(struct jinja *j, struct jframe *f, const struct node *n, struct jv items,
                          int64_t depth);
