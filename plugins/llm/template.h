// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * template - a model's chat template: the part of Jinja2 that such templates use, interpreted.
 *
 * Reference  Python's jinja2 as `transformers` sets it up (ImmutableSandboxedEnvironment,
 *            trim_blocks, lstrip_blocks, loopcontrols, tojson without HTML escapes, strftime_now,
 *            raise_exception, {% generation %}): output is identical.
 * Not        include, import, extends, autoescape; urlize, xmlattr, striptags, wordwrap, pprint,
 *            random; integers beyond 64 bits don't calculate. All are errors, none is silence.
 * Trust      text of the template itself is trusted, strings that came from the input are not, nor
 *            is what we compute (digits, JSON's brackets); the spans say which bytes of the
 *            output are which, for tokenizer_encode. Two exceptions: bos_token and eos_token, and
 *            a message's role where it is one of the API's own words, so that '<|' + role + '|>'
 *            is a token.
 * Bounds     TEMPLATE_* below, and JINJA_LEVELS_MAX of what runs in each other (some 1 MiB of
 *            stack); beyond: SV_E_INVALID with the line and the limit.
 * Errors     SV_E_INVALID: "line 12: 'messages' is undefined"; raise_exception's text as it is.
 *            out and spans are then as before.
 * Owner      template_destroy. Input is borrowed for the call.
 * Thread     immutable once compiled: any thread, at the same time.
 */
#include "llm/tokenizer.h"

#include <yyjson.h>

struct err;
struct template;

enum {
    TEMPLATE_SOURCE_MAX = 1 << 20,         // bytes
    TEMPLATE_NESTING_MAX = 128,            // expressions, blocks, macros in each other
    TEMPLATE_STEPS_MAX = 10 * 1000 * 1000, // operations of one rendering
    TEMPLATE_OUTPUT_MAX = 64 << 20,        // bytes
    TEMPLATE_MEMORY_MAX = 256 << 20        // bytes of values of one rendering
};

struct template_input {
    yyjson_val *messages;  // array
    yyjson_val *tools;     // array or NULL
    yyjson_val *documents; // array or NULL
    yyjson_val *extra;     // object: chat_template_kwargs, each a variable and stronger than the
                           // others; or NULL
    bool add_generation_prompt;
    bool continue_final_message; // the text ends where the last message's does, as transformers do
                                 // it
    const char *bos_token, *eos_token; // variables of that name; NULL: ""
    int64_t now; // seconds since 1970, for strftime_now (local time, as Python's datetime.now())
};

struct spans {      // trusted parts of the output, ascending and disjoint; `= {0}` is empty
    struct span *v; // owned
    size_t n, cap;
};
void spans_finish(struct spans *s);

int template_compile(const char *source, size_t n, struct template **ret, struct err *err);
void template_destroy(struct template *t);
// Appends to out; spans (may be NULL) count from the beginning of out.
int template_render(const struct template *t, const struct template_input *in, struct buf *out,
                    struct spans *trusted, struct err *err);
