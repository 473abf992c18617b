// SPDX-License-Identifier: Apache-2.0
#include "llm/regex.h"

#include "abi/plugin.h"
#include "base/check.h"
#include "base/err.h"
#include "base/mem.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

enum { JIT_STACK_MIN = 32 << 10, JIT_STACK_MAX = 4 << 20, HEAP_KIB = 64 << 10 };

struct regex {
    pcre2_code *code; // owned
};

static int compile(struct regex *r, const struct buf *text, struct err *err)
{
    pcre2_compile_context *context = pcre2_compile_context_create(NULL);
    CHECK(context);
    pcre2_set_newline(context, PCRE2_NEWLINE_LF);
    int code;
    size_t at;
    r->code =
        pcre2_compile((PCRE2_SPTR)buf_head(text), buf_len(text),
                      PCRE2_UTF | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C | PCRE2_NO_AUTO_CAPTURE,
                      &code, &at, context);
    pcre2_compile_context_free(context);
    if (!r->code) {
        PCRE2_UCHAR what[256] = "";
        pcre2_get_error_message(code, what, sizeof what);
        return err_set(err, SV_E_INVALID, "%s, at byte %zu of its translation '%.*s'",
                       (const char *)what, at, (int)(buf_len(text) < 200 ? buf_len(text) : 200),
                       buf_head(text));
    }
    pcre2_jit_compile(r->code, PCRE2_JIT_COMPLETE); // without a JIT the interpreter serves
    return 0;
}

int regex_create(const char *pattern, size_t n, struct regex **ret, struct err *err)
{
    struct regex *r = xcalloc(1, sizeof *r);
    struct buf text = {0};
    int rc = regex_translate(pattern, n, &text, err);
    if (rc == 0)
        rc = compile(r, &text, err);
    buf_finish(&text);
    if (rc < 0) {
        regex_destroy(r);
        return err_ctx(err, "the pattern '%.*s'", (int)(n < 120 ? n : 120), pattern);
    }
    *ret = r;
    return 0;
}

void regex_destroy(struct regex *r)
{
    if (!r)
        return;
    pcre2_code_free(r->code);
    xfree(r);
}

static void state_init(struct regex_state *s)
{
    s->data = pcre2_match_data_create(1, NULL);
    pcre2_match_context *context = pcre2_match_context_create(NULL);
    pcre2_jit_stack *stack = pcre2_jit_stack_create(JIT_STACK_MIN, JIT_STACK_MAX, NULL);
    CHECK(s->data && context);
    pcre2_set_match_limit(context, REGEX_STEPS);
    pcre2_set_heap_limit(context, HEAP_KIB);
    if (stack) // absent without a JIT
        pcre2_jit_stack_assign(context, NULL, stack);
    s->context = context;
    s->stack = stack;
}

void regex_state_finish(struct regex_state *s)
{
    pcre2_match_data_free(s->data);
    pcre2_match_context_free(s->context);
    pcre2_jit_stack_free(s->stack);
    *s = (struct regex_state){0};
}

bool regex_find(const struct regex *r, struct regex_state *s, const char *text, size_t n,
                size_t from, size_t *begin, size_t *end)
{
    if (!s->data)
        state_init(s);
    int rc =
        pcre2_match(r->code, (PCRE2_SPTR)text, n, from, PCRE2_NO_UTF_CHECK, s->data, s->context);
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT) // the interpreter's memory is on the heap
        rc = pcre2_match(r->code, (PCRE2_SPTR)text, n, from, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT,
                         s->data, s->context);
    if (rc < 0)
        return false;
    const size_t *at = pcre2_get_ovector_pointer(s->data);
    *begin = at[0];
    *end = at[1];
    return *begin <= *end;
}
