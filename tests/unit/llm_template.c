// SPDX-License-Identifier: Apache-2.0
#include "base/buf.h"
#include "base/err.h"
#include "base/mem.h"
#include "common/json.h"
#include "llm/template.h"

#include <abi/plugin.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { JSON_MAX_BYTES = 4 << 20 };
#ifdef __SANITIZE_ADDRESS__ // by clang its frames have several times the size
enum { STACK_BYTES = 8 << 20 };
#else
enum { STACK_BYTES = 2 << 20 };
#endif

static yyjson_doc *parse(const char *text, size_t n)
{
    yyjson_doc *doc = NULL;
    struct err err = {0};
    if (json_parse(text, n, JSON_MAX_BYTES, &doc, &err) < 0)
        fail_msg("%s", err.msg);
    return doc;
}

static yyjson_doc *parse_file(const char *path)
{
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    char *text = xcalloc(1, JSON_MAX_BYTES);
    size_t n = fread(text, 1, JSON_MAX_BYTES, f);
    fclose(f);
    yyjson_doc *doc = parse(text, n);
    xfree(text);
    return doc;
}

// 0 and the text, or the error's code and message.
static int render(const char *source, size_t n, const struct template_input *in, struct buf *out,
                  struct spans *spans, struct err *err)
{
    struct template *t = NULL;
    int rc = template_compile(source, n, &t, err);
    if (rc == 0)
        rc = template_render(t, in, out, spans, err);
    template_destroy(t);
    return rc;
}

/* jinja2's word: tests/data/llm/make_templates.py */

static size_t check_table(yyjson_val *table, const struct template_input *in)
{
    size_t wrong = 0;
    yyjson_arr_iter it;
    yyjson_arr_iter_init(table, &it);
    for (yyjson_val *row; (row = yyjson_arr_iter_next(&it));) {
        yyjson_val *source = yyjson_arr_get(row, 0), *want = yyjson_arr_get(row, 1);
        struct buf out = {0};
        struct err err = {0};
        int rc = render(yyjson_get_str(source), yyjson_get_len(source), in, &out, NULL, &err);
        bool same = yyjson_is_null(want)
                        ? rc == SV_E_INVALID && *err.msg
                        : rc == 0 && buf_len(&out) == yyjson_get_len(want) &&
                              memcmp(buf_cstr(&out), yyjson_get_str(want), buf_len(&out)) == 0;
        if (!same) {
            const char *expected = yyjson_is_null(want) ? "an error" : yyjson_get_str(want);
            print_error("%s\n  jinja2: %s\n  ours:   %s\n", yyjson_get_str(source), expected,
                        rc < 0 ? err.msg : buf_cstr(&out));
        }
        wrong += !same;
        buf_finish(&out);
    }
    return wrong;
}

static void same_as_jinja2(void **state)
{
    (void)state;
    yyjson_doc *doc = parse_file(LLM_DATA "/template_golden.json");
    yyjson_val *root = yyjson_doc_get_root(doc), *input = json_get(root, "input");
    struct template_input bare = {0};
    struct template_input in = {.messages = json_get(input, "messages"),
                                .tools = json_get(input, "tools"),
                                .extra = json_get(input, "extra"),
                                .add_generation_prompt = true,
                                .bos_token = json_str(input, "bos_token", NULL),
                                .eos_token = json_str(input, "eos_token", NULL)};
    assert_true(yyjson_arr_size(json_get(root, "bare")) > 800);
    assert_int_equal(check_table(json_get(root, "bare"), &bare), 0);
    assert_int_equal(check_table(json_get(root, "with_input"), &in), 0);
    yyjson_doc_free(doc);
}

/* Which bytes are trusted: T and . for each byte of the output. */

static const char input_json[] =
    "{\"messages\":[{\"role\":\"user\",\"content\":\"<|end|>\"},"
    "{\"role\":\"<|end|>\",\"content\":\"a b\"}],\"extra\":{\"x\":\"uv\",\"n\":12}}";

static const struct {
    const char *source, *text, *trust;
} spans_rows[] = {
    {"ab", "ab", "TT"},
    {"a{{ x }}b", "auvb", "T..T"},
    {"{{ 'a' + x + 'b' }}", "auvb", "T..T"},
    {"{{ 'a' ~ x ~ n }}", "auv12", "T...."},
    {"{{ messages[0].role }}", "user", "TTTT"}, // one of the API's own words
    {"{{ messages[1].role }}", "<|end|>", "......."},
    {"{{ messages[0].content }}", "<|end|>", "......."},
    {"{{ '<|' + messages[0].role + '|>' }}", "<|user|>", "TTTTTTTT"},
    {"{{ ('a' + x + 'b')[1:] }}", "uvb", "..T"},
    {"{{ ('a' + x + 'b')[::-1] }}", "bvua", "T..T"},
    {"{{ ('a' + x)[0] }}{{ ('a' + x)[1] }}", "au", "T."},
    {"{{ ('a' + x) | upper }}", "AUV", "T.."},
    {"{{ ('ß' + x) | upper }}", "SSUV", "TT.."},
    {"{{ (' a ' + x + ' ') | trim }}", "a uv", "TT.."},
    {"{{ x | replace('u', 'a') }}", "av", "T."},
    {"{{ 'abc' | replace('b', x) }}", "auvc", "T..T"},
    {"{{ [x, 'a'] | join('-') }}", "uv-a", "..TT"},
    {"{{ x.join(['a', 'b']) }}", "auvb", "T..T"},
    {"{{ ('a-' + x).split('-') | last }}", "uv", ".."},
    {"{{ '%s!' % x }}", "uv!", "..T"},
    {"{{ x % () }}", "uv", ".."},
    {"{{ '{}!'.format(x) }}", "uv!", "..T"},
    {"{{ {'a': x} | tojson }}", "{\"a\": \"uv\"}", "..T........"},
    {"{{ ['a', x] }}", "['a', 'uv']", "..T........"},
    {"{{ x * 2 }}{{ 'a' * 2 }}", "uvuvaa", "....TT"},
    {"{{ x | default('d') }}{{ y | default('d') }}", "uvd", "..T"},
    {"{% set s %}a{{ x }}{% endset %}{{ s }}", "auv", "T.."},
    {"{% macro m(v) %}<{{ v }}>{% endmacro %}{{ m(x) }}", "<uv>", "T..T"},
    {"{% filter upper %}a{{ x }}{% endfilter %}", "AUV", "T.."},
    {"{% for c in 'a' + x %}{{ c }}{% endfor %}", "auv", "T.."},
    {"{{ 'a' if x else 'b' }}{{ 1 }}{{ true }}", "a1True", "T....."},
    {"{{ bos_token }}{{ x }}", "<s>uv", "TTT.."},
    {"{{ ('a' + x) | indent(1, true) }}", " auv", ".T.."},
    {"{{ {x: 'v'} | dictsort }}", "[('uv', 'v')]", ".........T..."},
    {"{{ 'a' | center(3, ) }}", " a ", ".T."},
    {"{{ ('a' + x) | list | join }}", "auv", "T.."},
    {"{{ (x + 'a').partition('v')[2] }}", "a", "T"},
    {"{{ 'é' + x }}", "éuv", "TT.."},
};

static void trust(void **state)
{
    (void)state;
    yyjson_doc *doc = parse(input_json, sizeof input_json - 1);
    yyjson_val *root = yyjson_doc_get_root(doc);
    struct template_input in = {.messages = json_get(root, "messages"),
                                .extra = json_get(root, "extra"),
                                .bos_token = "<s>"};
    for (size_t i = 0; i < sizeof spans_rows / sizeof *spans_rows; i++) {
        struct buf out = {0};
        struct spans spans = {0};
        struct err err = {0};
        char map[64] = {0};
        buf_puts(&out, "before"); // spans count from the beginning of out
        if (render(spans_rows[i].source, strlen(spans_rows[i].source), &in, &out, &spans, &err) < 0)
            fail_msg("%s: %s", spans_rows[i].source, err.msg);
        assert_string_equal(buf_cstr(&out) + 6, spans_rows[i].text);
        memset(map, '.', buf_len(&out) - 6);
        for (size_t k = 0; k < spans.n; k++) {
            assert_true(spans.v[k].begin < spans.v[k].end && spans.v[k].begin >= 6);
            assert_true(!k || spans.v[k].begin > spans.v[k - 1].end);
            memset(map + spans.v[k].begin - 6, 'T', spans.v[k].end - spans.v[k].begin);
        }
        assert_string_equal(map, spans_rows[i].trust);
        buf_finish(&out);
        spans_finish(&spans);
    }
    yyjson_doc_free(doc);
}

/* Messages name the line and what is wrong. */

static const struct {
    const char *source, *message;
} error_rows[] = {
    {"a\nb\n{{ x.y }}", "line 3: 'x' is undefined"},
    {"{{ {}.a.b }}", "line 1: 'dict object' has no attribute 'a'"},
    {"{{ [][1].b }}", "line 1: list object has no element 1"},
    {"\n\n{% if %}", "line 3: expected an expression, got %}"},
    {"\n{% for x in [1] %}", "line 2: the template ends where 'endfor' is missing"},
    {"{{ 1|nope }}", "line 1: No filter named 'nope'."},
    {"\n{{ 'a' + 1 }}", "line 2: can only concatenate str (not \"int\") to str"},
    {"{{ raise_exception('Only user\nand assistant!') }}", "Only user\nand assistant!"},
    {"{{ 2 ** 64 }}", "line 1: the result of a calculation is beyond 64 bits"},
    {"{% include 'x' %}", "line 1: the tag 'include' is not for chat templates"},
    {"{{ [].append(1) }}", "line 1: access to a method that changes its object is unsafe"},
    {"{% macro m() %}\n{{ 1/0 }}{% endmacro %}\n\n{{ m() }}", "line 2: division by zero"},
    {"{{ range(100001) }}", "line 1: Range too big."},
    {"\n'{{ 'abc }}", "line 2: a string that begins with ' has no end"},
    {"{{ '\\ud800' }}", "line 1: a string has an escape that is no character"},
};

static void errors(void **state)
{
    (void)state;
    struct template_input in = {0};
    for (size_t i = 0; i < sizeof error_rows / sizeof *error_rows; i++) {
        struct buf out = {0};
        struct err err = {0};
        struct spans spans = {0};
        buf_puts(&out, "kept");
        int rc =
            render(error_rows[i].source, strlen(error_rows[i].source), &in, &out, &spans, &err);
        assert_int_equal(rc, SV_E_INVALID);
        assert_int_equal(err.code, SV_E_INVALID);
        if (strncmp(err.msg, error_rows[i].message, strlen(error_rows[i].message)) != 0)
            fail_msg("%s: %s", error_rows[i].source, err.msg);
        assert_string_equal(buf_cstr(&out), "kept"); // what was written before the error is gone
        assert_int_equal(spans.n, 0);
        buf_finish(&out);
        spans_finish(&spans);
    }
}

static void refused_sources(void **state)
{
    (void)state;
    struct template *t = NULL;
    struct err err = {0};
    char *big = xcalloc(1, TEMPLATE_SOURCE_MAX + 1);
    memset(big, 'x', TEMPLATE_SOURCE_MAX + 1);
    assert_int_equal(template_compile(big, TEMPLATE_SOURCE_MAX + 1, &t, &err), SV_E_INVALID);
    assert_non_null(strstr(err.msg, "1048577 bytes; at most 1048576"));
    assert_int_equal(template_compile(big, TEMPLATE_SOURCE_MAX, &t, &err), 0);
    template_destroy(t);
    xfree(big);
    assert_int_equal(template_compile("a\xff", 2, &t, &err), SV_E_INVALID);
    assert_non_null(strstr(err.msg, "UTF-8"));
    assert_int_equal(template_compile("{{", 2, &t, NULL), SV_E_INVALID); // no err: still refused
}

/* Bounds: each is reached, says so, and nothing else happens. */

static const struct {
    const char *source, *message;
} bound_rows[] = {
    {"{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
     "line 1: the template takes more than 10000000 steps"},
    {"{% set ns = namespace(s='x') %}{% for i in range(40) %}{% set ns.s = ns.s ~ ns.s %}{% endfor "
     "%}",
     "more than 256 MiB of memory"},
    {"{% set ns = namespace(l=[1]) %}{% for i in range(40) %}{% set ns.l = ns.l + ns.l %}{% endfor "
     "%}",
     "steps"},
    {"{% set s = 'x' * 10000000 %}{% for i in range(8) %}{{ s }}{% endfor %}",
     "the template writes more than 64 MiB"},
    {"{{ 'x' * 1000000000000 }}", "is too long"},
    {"{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "nested too deep"},
    {"{% macro m(x) %}{{ m([x]) }}{% endmacro %}{{ m(1) }}", "nested too deep"},
    {"{% set ns = namespace(l=[]) %}{% for i in range(9999) %}{% set ns.l = [ns.l] %}{% endfor %}"
     "{{ ns.l }}",
     "nested too deep"},
    {"{% set ns = namespace(l=[]) %}{% for i in range(9999) %}{% set ns.l = [ns.l] %}{% endfor %}"
     "{{ ns.l | tojson }}",
     "nested too deep"},
    {"{% set ns = namespace(l=[], m=[]) %}{% for i in range(9999) %}{% set ns.l = [ns.l] %}"
     "{% set ns.m = [ns.m] %}{% endfor %}{{ ns.l == ns.m }}",
     "nested too deep"},
    {"{% set ns = namespace(l=[], m=[]) %}{% for i in range(9999) %}{% set ns.l = [ns.l] %}"
     "{% set ns.m = [ns.m] %}{% endfor %}{{ ns.l < ns.m }}",
     "nested too deep"},
    {"{% set ns = namespace(l=[1]) %}{% for i in range(9999) %}{% set ns.l = ns.l|map('string') %}"
     "{% endfor %}{{ ns.l|list }}",
     "nested too deep"},
    {"{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}", "nested too deep"},
    {"{% set s = 'x' * 9000000 %}{% set t = 'x' * 9000000 %}{% for i in range(99999) %}"
     "{% if s != t or 'y' in s %}{% endif %}{% endfor %}",
     "steps"},
    {"{{ '%*d' % (1000000, 1) }}", "a width or precision of more than 100000"},
    {"{{ '{:1000000}'.format(1) }}", "a width or precision of more than 100000"},
    {"{{ 'a'.center(99999999) }}", "a width of more than"},
    {"{{ {} | tojson(indent=99999) }}", "more than 1000"},
    {"{{ strftime_now('%Y' * 1000) }}", "at most 256 bytes"},
};

static void bounds(void **state)
{
    (void)state;
    struct template_input in = {0};
    for (size_t i = 0; i < sizeof bound_rows / sizeof *bound_rows; i++) {
        struct buf out = {0};
        struct err err = {0};
        int rc = render(bound_rows[i].source, strlen(bound_rows[i].source), &in, &out, NULL, &err);
        if (rc != SV_E_INVALID || !strstr(err.msg, bound_rows[i].message))
            fail_msg("%s: %d %s", bound_rows[i].source, rc, err.msg);
        buf_finish(&out);
    }
}

// `n` times `open`, then `middle`, then `n` times `close`.
static struct buf nested(const char *open, const char *middle, const char *close, int n)
{
    struct buf b = {0};
    for (int i = 0; i < n; i++)
        buf_puts(&b, open);
    buf_puts(&b, middle);
    for (int i = 0; i < n; i++)
        buf_puts(&b, close);
    return b;
}

static const struct {
    const char *head, *open, *middle, *close, *tail;
} nest_rows[] = {
    {"{{ ", "(", "1", ")", " }}"},
    {"{{ ", "[", "1", "]", " }}"},
    {"{{ ", "{1:", "1", "}", " }}"},
    {"{{ ", "-", "1", "", " }}"},
    {"{{ ", "not ", "1", "", " }}"},
    {"{{ ", "1 if 1 else ", "1", "", " }}"},
    {"{{ ", "f(", "1", ")", " }}"},
    {"{{ x", "[x", "", "]", " }}"},
    {"{{ ", "1|default(", "1", ")", " }}"},
    {"{{ ", "1 is eq(", "1", ")", " }}"},
    {"", "{% if 1 %}", "1", "{% endif %}", ""},
    {"", "{% for x in y %}", "1", "{% endfor %}", ""},
    {"", "{% macro m() %}", "1", "{% endmacro %}", ""},
    {"", "{% set x %}", "1", "{% endset %}", ""},
    {"", "{% filter upper %}", "1", "{% endfilter %}", ""},
    {"{% set ", "(", "a", ",)", " = 1 %}"},
};

static int compile_nested(size_t row, int n, struct err *err)
{
    struct buf b = {0},
               inner = nested(nest_rows[row].open, nest_rows[row].middle, nest_rows[row].close, n);
    struct template *t = NULL;
    buf_puts(&b, nest_rows[row].head);
    buf_put(&b, buf_head(&inner), buf_len(&inner));
    buf_puts(&b, nest_rows[row].tail);
    int rc = template_compile(buf_cstr(&b), buf_len(&b), &t, err);
    template_destroy(t);
    buf_finish(&b);
    buf_finish(&inner);
    return rc;
}

static void nesting(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof nest_rows / sizeof *nest_rows; i++) {
        struct err err = {0};
        if (compile_nested(i, 50, &err) < 0)
            fail_msg("row %zu: %s", i, err.msg);
        assert_int_equal(compile_nested(i, 20000, &err), SV_E_INVALID);
        if (!strstr(err.msg, "in each other") && !strstr(err.msg, "brackets"))
            fail_msg("row %zu: %s", i, err.msg);
    }
}

// Chains are no nesting for the writer, but are for the tree: long ones are refused, not a crash.
static void chains(void **state)
{
    (void)state;
    static const char *const links[] = {"+'a'", "~'a'", " or 0", "|trim", ".a", " if 1 else 1"};
    for (size_t i = 0; i < sizeof links / sizeof *links; i++) {
        struct template_input in = {0};
        struct buf b = nested(links[i], "", "", 100000), source = {0}, out = {0};
        struct err err = {0};
        buf_puts(&source, "{{ 'a'");
        buf_put(&source, buf_head(&b), buf_len(&b));
        buf_puts(&source, " }}");
        int rc = render(buf_cstr(&source), buf_len(&source), &in, &out, NULL, &err);
        assert_true(rc == 0 || *err.msg);
        buf_finish(&b);
        buf_finish(&source);
        buf_finish(&out);
    }
}

/* All of it once more on a small stack: what is allowed to nest must fit. */

static void *on_small_stack(void *arg)
{
    nesting(arg);
    bounds(arg);
    chains(arg);
    return NULL;
}

static void small_stack(void **state)
{
    (void)state;
    pthread_t thread;
    pthread_attr_t attr;
    pthread_attr_init(&attr);
    assert_int_equal(pthread_attr_setstacksize(&attr, STACK_BYTES), 0);
    assert_int_equal(pthread_create(&thread, &attr, on_small_stack, NULL), 0);
    pthread_join(thread, NULL);
    pthread_attr_destroy(&attr);
}

/* The input. */

static void deep_input(void **state)
{
    (void)state;
    struct buf b = nested("[", "1", "]", JSON_DEPTH);
    yyjson_doc *doc = parse(buf_cstr(&b), buf_len(&b));
    struct template_input in = {.messages = yyjson_doc_get_root(doc)};
    struct buf out = {0};
    struct err err = {0};
    static const char source[] = "{{ messages | tojson }}";
    assert_int_equal(render(source, sizeof source - 1, &in, &out, NULL, &err), 0);
    assert_int_equal(buf_len(&out), buf_len(&b));
    yyjson_doc_free(doc);
    buf_clear(&out);
    buf_finish(&b);

    b = nested("[", "1", "]", 100000); // from whoever does not ask json.h
    doc = yyjson_read(buf_cstr(&b), buf_len(&b), 0);
    assert_non_null(doc);
    in.messages = yyjson_doc_get_root(doc);
    assert_int_equal(render(source, sizeof source - 1, &in, &out, NULL, &err), SV_E_INVALID);
    assert_non_null(strstr(err.msg, "nested too deep"));
    yyjson_doc_free(doc);
    buf_finish(&b);
    buf_finish(&out);
}

static const struct {
    const char *input, *source, *want; // want NULL: refused
} input_rows[] = {
    {"{\"messages\":[{\"a\":1,\"a\":2}]}", "{{ messages }}", "[{'a': 2}]"},
    {"{\"messages\":[18446744073709551615]}", "{{ messages[0] }}", "18446744073709551615"},
    {"{\"messages\":[18446744073709551615]}", "{{ messages[0] is integer }}", "True"},
    {"{\"messages\":[18446744073709551615]}", "{{ messages[0] + 1 }}", NULL},
    {"{\"messages\":[-9223372036854775808]}", "{{ messages[0] }}", "-9223372036854775808"},
    {"{\"messages\":[-9223372036854775808]}", "{{ -messages[0] }}", NULL},
    {"{\"messages\":[-9223372036854775808]}", "{{ messages[0] // -1 }}", NULL},
    {"{\"messages\":[-9223372036854775808]}", "{{ messages[0] % -1 }}", "0"},
    {"{\"messages\":[-9223372036854775808]}", "{{ '%d %x' % (messages[0], messages[0]) }}",
     "-9223372036854775808 -8000000000000000"},
    {"{\"messages\":[-9223372036854775808]}", "{{ messages[0] | abs }}", NULL},
    {"{\"messages\":[1e400]}", "{{ messages[0] }}", NULL}, // no JSON
    {"{\"messages\":[1.0,1e16,0.1]}", "{{ messages }}", "[1.0, 1e+16, 0.1]"},
    {"{\"messages\":[\"a\\u0000b\"]}", "{{ messages[0]|length }}{{ messages }}", "3['a\\x00b']"},
    {"{\"messages\":{}}", "", NULL},
    {"{\"messages\":[],\"extra\":{\"tools\":1,\"bos_token\":\"B\",\"messages\":[5]}}",
     "{{ tools }}{{ bos_token }}{{ messages }}", "1B[5]"},
    {"{\"messages\":[]}", "{{ tools }}{{ documents }}{{ bos_token }}{{ messages }}", "NoneNone[]"},
};

static void inputs(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof input_rows / sizeof *input_rows; i++) {
        yyjson_doc *doc = NULL;
        struct buf out = {0};
        struct err err = {0};
        int rc = json_parse(input_rows[i].input, strlen(input_rows[i].input), JSON_MAX_BYTES, &doc,
                            &err);
        struct template_input in = {0};
        if (rc == 0) {
            in.messages = json_get(yyjson_doc_get_root(doc), "messages");
            in.extra = json_get(yyjson_doc_get_root(doc), "extra");
            rc = render(input_rows[i].source, strlen(input_rows[i].source), &in, &out, NULL, &err);
        }
        if (!input_rows[i].want)
            assert_int_equal(rc, SV_E_INVALID);
        else if (rc < 0 || strcmp(buf_cstr(&out), input_rows[i].want) != 0)
            fail_msg("%s: %s", input_rows[i].source, rc < 0 ? err.msg : buf_cstr(&out));
        buf_finish(&out);
        yyjson_doc_free(doc);
    }
}

/* continue_final_message: the text ends where the last message does. */

static const char chatml[] =
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}</>\n{% endfor %}";
static const char stripping[] = "{% for m in messages %}<{{ m.content | trim }}>{% endfor %}";
static const char parts[] =
    "{% for m in messages %}{% for p in m.content %}[{{ p.text }}]{% endfor %}{% endfor %}";

static const struct {
    const char *source, *messages, *want; // want NULL: refused
} continue_rows[] = {
    {chatml,
     "[{\"role\":\"user\",\"content\":\"hi\"},{\"role\":\"assistant\",\"content\":\"Sure, \"}]",
     "<user>hi</>\n<assistant>Sure, "},
    {stripping, "[{\"content\":\"a\"},{\"content\":\"b  \"}]", "<a><b"},
    {parts, "[{\"content\":[{\"text\":\"a\"},{\"text\":\"b\"},{\"image\":1}]}]", "[a][b"},
    {chatml, "[]", NULL},
    {chatml, "[{\"role\":\"user\"}]", NULL},
    {"nothing of it", "[{\"content\":\"b\"}]", NULL},
    {chatml, "[{\"role\":\"a\",\"content\":\"\"}]", "<a>"},
};

static void continued(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof continue_rows / sizeof *continue_rows; i++) {
        yyjson_doc *doc = parse(continue_rows[i].messages, strlen(continue_rows[i].messages));
        struct template_input in = {.messages = yyjson_doc_get_root(doc),
                                    .continue_final_message = true};
        struct buf out = {0};
        struct spans spans = {0};
        struct err err = {0};
        int rc = render(continue_rows[i].source, strlen(continue_rows[i].source), &in, &out, &spans,
                        &err);
        if (!continue_rows[i].want)
            assert_int_equal(rc, SV_E_INVALID);
        else if (rc < 0 || strcmp(buf_cstr(&out), continue_rows[i].want) != 0)
            fail_msg("row %zu: %s", i, rc < 0 ? err.msg : buf_cstr(&out));
        for (size_t k = 0; k < spans.n; k++)
            assert_true(spans.v[k].end <= buf_len(&out));
        buf_finish(&out);
        spans_finish(&spans);
        yyjson_doc_free(doc);
    }
}

static void dates(void **state)
{
    (void)state;
    static const struct {
        const char *source, *want;
    } cases[] = {{"{{ strftime_now('%d %b %Y') }}", "21 Sep 2026"},
                 {"{{ strftime_now('') }}|{{ strftime_now('%Z%z|%f|%%') }}", "||000000|%"},
                 {"{{ strftime_now('%H:%M:%S') }}", "14:13:20"}};
    setenv("TZ", "UTC", 1);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct template_input in = {.now = 1790000000};
        struct buf out = {0};
        assert_int_equal(render(cases[i].source, strlen(cases[i].source), &in, &out, NULL, NULL),
                         0);
        assert_string_equal(buf_cstr(&out), cases[i].want);
        buf_finish(&out);
    }
}

// A string that grows piece by piece takes memory for its length, not for the sum of all lengths.
static void growing(void **state)
{
    (void)state;
    static const char source[] =
        "{% set ns = namespace(s='', l=[], t='') %}{% for i in range(90000) %}"
        "{% set ns.s = ns.s ~ 'some text of a message; ' %}{% set ns.l = ns.l + [i] %}"
        "{% set ns.t = ns.t + (i|string) %}{% endfor %}"
        "{{ ns.s | length }} {{ ns.l | length }} {{ ns.l[-1] }} {{ ns.t | length }}";
    struct template_input in = {0};
    struct buf out = {0};
    struct err err = {0};
    if (render(source, sizeof source - 1, &in, &out, NULL, &err) < 0)
        fail_msg("%s", err.msg);
    assert_string_equal(buf_cstr(&out), "2160000 90000 89999 438890");
    buf_finish(&out);
}

/* Compiled templates are shared: nothing that a rendering does stays in them. */

static const char shared_source[] =
    "{{ 'a\\n' ~ x }}{{ 'b\\t' 'c' + x }}{% set s = '\\x41' ~ x %}{{ s }}{{ 'é'|length }}"
    "{% for c in 'ü\\n' %}{{ c }}{% endfor %}{{ 'ö\\n'|indent(x|length) }}{{ y.missing }}";

static void *render_shared(void *arg) // NULL: as it should be
{
    bool same = true;
    for (int i = 0; i < 50; i++) {
        yyjson_doc *doc = yyjson_read("{\"x\":\"12\",\"y\":{}}", 17, 0);
        struct template_input in = {.extra = yyjson_doc_get_root(doc)};
        struct buf out = {0};
        same &= template_render(arg, &in, &out, NULL, NULL) == 0 &&
                strcmp(buf_cstr(&out), "a\n12b\tc12A121ü\nö\n") == 0;
        buf_finish(&out);
        yyjson_doc_free(doc);
    }
    return same ? NULL : arg;
}

static void shared(void **state)
{
    (void)state;
    struct template *t = NULL;
    pthread_t threads[3];
    void *wrong[3];
    assert_int_equal(template_compile(shared_source, sizeof shared_source - 1, &t, NULL), 0);
    for (size_t i = 0; i < 3; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, render_shared, t), 0);
    for (size_t i = 0; i < 3; i++)
        pthread_join(threads[i], &wrong[i]);
    for (size_t i = 0; i < 3; i++)
        assert_null(wrong[i]);
    template_destroy(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(same_as_jinja2), cmocka_unit_test(trust),
        cmocka_unit_test(errors),         cmocka_unit_test(refused_sources),
        cmocka_unit_test(bounds),         cmocka_unit_test(nesting),
        cmocka_unit_test(chains),         cmocka_unit_test(small_stack),
        cmocka_unit_test(deep_input),     cmocka_unit_test(inputs),
        cmocka_unit_test(continued),      cmocka_unit_test(dates),
        cmocka_unit_test(growing),        cmocka_unit_test(shared),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
