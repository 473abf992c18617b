// SPDX-License-Identifier: Apache-2.0
// YAML as a tree: one row is a text and its JSON, or the first line of the report.
#include "base/buf.h"
#include "base/err.h"
#include "conf/app.h"
#include "conf/resolve.h"
#include "conf/yaml.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static const struct {
    const char *text, *want;
} rows[] = {
    // kinds
    {"", "null"},
    {"# nothing", "null"},
    {"[~, null, Null, NULL, '', ]", "[null,null,null,null,\"\"]"},
    {"[true, True, FALSE, yes, no, on, off]", "[true,true,false,\"yes\",\"no\",\"on\",\"off\"]"},
    {"[0, -0, +7, 012, 0x1f, 0o17, 1_000, 0b1]", "[0,0,7,12,31,15,\"1_000\",\"0b1\"]"},
    {"[1.5, .5, 1., -2e3, 1e-2, ., e5, 1e, 1.2.3, -]",
     "[1.5,0.5,1,-2000,0.01,\".\",\"e5\",\"1e\",\"1.2.3\",\"-\"]"},
    {"[9223372036854775807, 9223372036854775808, -9223372036854775808]",
     "[9223372036854775807,9.223372036854776e+18,-9223372036854775808]"},
    {"[.inf, -.INF, .nan, 0xffffffffffffffffff]", "[null,null,null,null]"},
    {"['1', \"true\", 'null']", "[\"1\",\"true\",\"null\"]"},
    {"a: |\n  x\n  y\nb: >\n  x\n  y\n", "{\"a\":\"x\\ny\\n\",\"b\":\"x y\\n\"}"},
    {"2024-01-02", "\"2024-01-02\""},
    // tags
    {"[!!str 5, !!int '7', !!float 2, !!bool 'true', !!null '', ! x]",
     "[\"5\",7,2,true,null,\"x\"]"},
    {"!!map {a: !!seq [1]}", "{\"a\":[1]}"},
    {"!!int five", "t:1:1: tag '!!int' does not fit a text"},
    {"!!seq {a: 1}", "t:1:1: tag '!!seq' does not fit a mapping"},
    {"!!binary aGk=", "t:1:1: tag 'tag:yaml.org,2002:binary' means nothing here: remove it"},
    {"!!str [a]", "t:1:1: tag '!!str' does not fit a list"},
    // anchors and merges
    {"{a: &x [1, {b: c}], d: *x}", "{\"a\":[1,{\"b\":\"c\"}],\"d\":[1,{\"b\":\"c\"}]}"},
    {"{a: &x 1, b: &x 2, c: *x}", "{\"a\":1,\"b\":2,\"c\":2}"},
    {"{<<: {a: 1, b: 2}, b: 3}", "{\"b\":3,\"a\":1}"},
    {"{<<: [{a: 1}, {a: 2, b: 2}], c: 3}", "{\"c\":3,\"a\":1,\"b\":2}"},
    {"{'<<': 1}", "{\"<<\":1}"},
    {"{<<: [1]}", "t:1:7: '<<' takes a mapping or a list of them, not a whole number"},
    {"*x", "t:1:1: alias '*x' names no anchor: no '&x' stands above"},
    {"&x [*x]", "t:1:5: alias '*x' stands inside of what it names"},
    // keys
    {"{a: 1, a: 2}", "t:1:8: 'a' stands here twice; the first is at line 1, column 2"},
    {"{1: a, true: b}", "{\"1\":\"a\",\"true\":\"b\"}"},
    {"{[a]: b}", "t:1:2: a key must be a plain text, not a list, a mapping or an alias"},
    {"? {a: b}\n: c",
     "t:1:3: a key must be a plain text, not a list, a mapping or an alias (inside of { }, write "
     "${NAME} in quotes: \"${NAME}\")"},
    {"{aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
     "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa: 1}",
     "t:1:2: a key of 129 bytes; at most 128 are taken"},
    // what is no YAML
    {"a: \"\\q\"",
     "t:1:5: an unknown escape: in double quotes a backslash is written '\\\\'; single "
     "quotes take it as it is"},
    {"a: \"\\0\"", "t:1:4: a text must not hold a NUL character (\\0)"},
    {"a: %x", "t:1:4: a text cannot begin with '%': put it in quotes"},
    {"a: `x`", "t:1:4: a text cannot begin with '`': put it in quotes"},
    {"\x01", "t:1:1: not UTF-8 text, or a control character (control characters are not allowed)"},
    {"a\n\xff", "t:2:1: not UTF-8 text, or a control character (invalid leading UTF-8 octet)"},
    {"[a, b",
     "t:2:1: ',' or ']' was expected here, or a text needs quotes. The list begins at line "
     "1, column 1"},
    {"- a\nb: c",
     "t:2:1: '- ' was expected here: is this line indented like the other entries? The "
     "list begins at line 1, column 1"},
    {"a: b\n- c", "t:2:1: a key was expected here: is this line indented like its neighbours? The "
                  "mapping begins at line 1, column 1"},
    {"a: b\n...\nc: d", "t:3:1: not YAML: did not find expected <document start>"},
    {"a\n---\nb", "t:2:1: a second document begins here; a file holds one (remove the '---')"},
};

static void table(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct arena arena;
        struct report report;
        struct buf json = {0};
        arena_init(&arena, 0);
        report_init(&report, &arena);
        struct yaml_node *root = yaml_parse("t", rows[i].text, strlen(rows[i].text), &report);
        if (root)
            yaml_json(root, &json);
        assert_int_equal(!root, report.n_errors > 0);
        assert_string_equal(root ? buf_cstr(&json) : report.lines[0].text, rows[i].want);
        buf_finish(&json);
        arena_finish(&arena);
    }
}

// Bounds that need a text too long for a row.
static void bound(const char *text, const char *want)
{
    struct arena arena;
    struct report report;

    arena_init(&arena, 0);
    report_init(&report, &arena);
    struct yaml_node *root = yaml_parse("t", text, strlen(text), &report);
    assert_int_equal(!root, want != NULL);
    if (want && !strstr(report.lines[0].text, want))
        fail_msg("no '%s' in '%s'", want, report.lines[0].text);
    arena_finish(&arena);
}

static char *repeat(const char *before, const char *what, unsigned n, const char *after)
{
    struct buf out = {0};

    buf_puts(&out, before);
    for (unsigned i = 0; i < n; i++) {
        const char *number = strchr(what, '#');
        if (number)
            buf_printf(&out, "%.*s%u%s", (int)(number - what), what, i, number + 1);
        else
            buf_puts(&out, what);
    }
    buf_puts(&out, after);
    char *text = strdup(buf_cstr(&out));
    buf_finish(&out);
    return text;
}

static void bounds(void **state)
{
    static const struct {
        const char *before, *what;
        unsigned n;
        const char *after, *want;
    } cases[] = {
        {"", "[", 32, "]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]", NULL},
        {"", "[", 33, "", "nested deeper than 32 levels"},
        {"{", "k#: 1,", 4096, "}", NULL},
        {"{", "k#: 1,", 4097, "}", "more than 4096 keys in one mapping"},
        {"[", "&a# 1,", 256, "]", NULL},
        {"[", "&a# 1,", 257, "]", "more than 256 anchors"},
        {"[", "1,", 99999, "]", NULL},
        {"[", "1,", 100000, "]", "more than 100000 values"},
        {"[&a [[[[[[[[[[[[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]]]]]]]]]]], ", "[", 20,
         "*a]]]]]]]]]]]]]]]]]]]]]", "nested deeper than 32 levels"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *text = repeat(cases[i].before, cases[i].what, cases[i].n, cases[i].after);
        bound(text, cases[i].want);
        free(text);
    }
    // 64 KiB of text, 65 times
    char *text = repeat("[&a '", "x", 65536, "'"), *all = repeat(text, ", *a", 64, "]");
    bound(all, "more than 4 MiB of text");
    free(text);
    free(all);
}

// --- references

static struct buf resolved(const char *text, const char *dir)
{
    struct arena arena;
    struct report report;
    struct buf out = {0};

    arena_init(&arena, 0);
    report_init(&report, &arena);
    struct resolve r = {.report = &report, .dir = dir};
    struct yaml_node *root = yaml_parse("t", text, strlen(text), &report);
    assert_non_null(root);
    resolve_env(&r, root);
    resolve_files(&r, root);
    if (report.n_errors)
        buf_puts(&out, report.lines[0].text);
    else
        yaml_json(root, &out);
    buf_cstr(&out);
    arena_finish(&arena);
    return out;
}

static void put_file(const char *dir, const char *name, const char *text, size_t n)
{
    char path[300];

    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_int_equal(fwrite(text, 1, n, f), n);
    fclose(f);
}

static void references(void **state)
{
    static const struct {
        const char *text, *want;
    } cases[] = {
        {"${ST_N}", "8123"},
        {"\"${ST_N}\"", "\"8123\""},
        {"x${ST_N}y${ST_N}", "\"x8123y8123\""},
        {"${ST_NONE:-7}", "7"},
        {"\"${ST_NONE:-}\"", "\"\""},
        {"${ST_EMPTY:-e}", "\"e\""},
        {"$${ST_N}", "\"${ST_N}\""},
        {"$$${ST_N}", "\"$${ST_N}\""},
        {"$5 $ $$", "\"$5 $ $$\""},
        {"${ST_NONE}", "t:1:1: environment variable ST_NONE is not set: set it, or write "
                       "${ST_NONE:-default}"},
        {"${1A}", "t:1:1: '${1A}' is no environment variable: want ${NAME} or ${NAME:-default} (a "
                  "literal ${ is written $${)"},
        {"a${b", "t:1:1: '${' without its '}' (a literal ${ is written $${)"},
        {"${ST_LATIN}", "t:1:1: the environment variable's value is no UTF-8 text"},
        {"file:one", "\"line\""},
        {"file:two", "\"a\\nb\\n\""},
        {"file:number", "\"5\""},
        {"'file:${ST_NAME}'", "\"line\""},
        {"file:empty", "\"\""},
        {"file:none", "t:1:1: cannot read the file 'none', which 'file:' names: No such file or "
                      "directory (it is looked for in the YAML file's folder)"},
        {"file:/none", "t:1:1: cannot read the file '/none', which 'file:' names: No such file or "
                       "directory"},
        {"file:///none",
         "t:1:1: cannot read the file '/none', which 'file:' names: No such file or "
         "directory"},
        {"file:.", "t:1:1: cannot read the file '.', which 'file:' names: Is a directory (it is "
                   "looked for in the YAML file's folder)"},
        {"file:large",
         "t:1:1: 'large' is larger than 64 KiB; 'file:' puts a file's content here (a "
         "path is written without 'file:')"},
        {"file:binary", "t:1:1: the file that 'file:' names is no UTF-8 text"},
    };
    static char large[(64 << 10) + 1];
    char dir[] = "/tmp/salver-test-XXXXXX", command[64];

    (void)state;
    assert_non_null(mkdtemp(dir));
    memset(large, 'x', sizeof large);
    put_file(dir, "one", "line\n", 5);
    put_file(dir, "two", "a\nb\n\n", 5);
    put_file(dir, "number", "5", 1);
    put_file(dir, "empty", "", 0);
    put_file(dir, "large", large, sizeof large);
    put_file(dir, "binary", "\0\1", 2);
    setenv("ST_N", "8123", 1);
    setenv("ST_EMPTY", "", 1);
    setenv("ST_NAME", "one", 1);
    setenv("ST_LATIN", "caf\xe9", 1);
    unsetenv("ST_NONE");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct buf got = resolved(cases[i].text, dir);
        assert_string_equal(buf_cstr(&got), cases[i].want);
        buf_finish(&got);
    }
    snprintf(command, sizeof command, "rm -r %s", dir);
    assert_int_equal(system(command), 0);
}

// Much that comes from references is bounded, one text and all together.
static void reference_bounds(void **state)
{
    char *value = repeat("", "v", 60000, ""), *text, *all;
    struct buf got;

    (void)state;
    setenv("ST_BIG", value, 1);
    text = repeat("", "${ST_BIG}", 3, "");
    got = resolved(text, "");
    assert_string_equal(buf_cstr(&got), "t:1:1: longer than 128 KiB with its variables replaced");
    buf_finish(&got);
    all = repeat("[", "\"${ST_BIG}\",", 80, "]");
    got = resolved(all, "");
    assert_non_null(strstr(buf_cstr(&got), "more than 4 MiB came from references"));
    buf_finish(&got);
    unsetenv("ST_BIG");
    free(value);
    free(text);
    free(all);
}

// --- whole files

static void files(void **state)
{
    char dir[] = "/tmp/salver-test-XXXXXX", path[64], command[64];
    struct conf_file f = {0};
    struct err err = {0};

    (void)state;
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/no.yaml", dir);
    assert_true(conf_load(path, &f, &err) < 0);
    assert_non_null(strstr(err.msg, "/no.yaml: No such file or directory"));
    conf_finish(&f);
    assert_true(conf_load(dir, &f, &err) < 0);
    assert_non_null(strstr(err.msg, ": is a folder; name the YAML file in it"));
    conf_finish(&f);

    char *large = repeat("", "#234567\n", (1 << 17) + 1, "");
    put_file(dir, "large.yaml", large, strlen(large));
    snprintf(path, sizeof path, "%s/large.yaml", dir);
    assert_true(conf_load(path, &f, &err) < 0);
    assert_non_null(strstr(err.msg, "large.yaml: larger than 1024 KiB"));
    conf_finish(&f);
    free(large);

    char *many = repeat("applications: [{plugin: x, deployments: [", "{name: d#},", 65, "]}]");
    assert_true(conf_load_bytes("many.yaml", many, strlen(many), &f, &err) < 0);
    assert_string_equal(err.msg, "many.yaml:1:41: 'deployments' holds 65 entries; at most 64 are "
                                 "taken");
    conf_finish(&f);
    free(many);

    put_file(dir, "good.yaml", "applications: [{plugin: ./x.so}]", 32);
    snprintf(path, sizeof path, "%s/good.yaml", dir);
    assert_int_equal(conf_load(path, &f, &err), 0);
    assert_string_equal(f.dir, dir);
    assert_string_equal(f.apps[0].deployments[0].name, "x");
    conf_finish(&f);
    conf_finish(&f); // a dead object
    snprintf(command, sizeof command, "rm -r %s", dir);
    assert_int_equal(system(command), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(table),      cmocka_unit_test(bounds),
        cmocka_unit_test(references), cmocka_unit_test(reference_bounds),
        cmocka_unit_test(files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
