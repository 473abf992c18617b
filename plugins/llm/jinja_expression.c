// SPDX-License-Identifier: Apache-2.0
// The expressions' half of jinja_parser: one function for each level of precedence.
#include "llm/jinja_filter.h"
#include "llm/jinja_lexer.h"
#include "llm/jinja_parser.h"
#include "llm/jinja_string.h"
#include "llm/jinja_test.h"

static struct node *parse_or(struct parser *p);
static struct node *parse_unary(struct parser *p, bool with_filters);
static struct node *parse_postfix(struct parser *p, struct node *n);

static struct node *binary(struct parser *p, enum node_kind kind, uint32_t line, struct node *a,
                           struct node *b)
{
    struct node *n = jparser_node(p, kind, line);
    n->a = a;
    n->b = b;
    return n;
}

static struct node *parse_cond(struct parser *p)
{
    uint32_t line = p->at->line;
    struct node *n = parse_or(p);
    while (jparser_skip_name(p, "if")) {
        struct node *cond = jparser_node(p, NODE_COND, line);
        cond->b = n;
        cond->a = parse_or(p);
        if (jparser_skip_name(p, "else")) {
            jparser_nest(p);
            cond->c = parse_cond(p);
            p->nesting--;
        }
        n = cond;
        line = p->at->line;
    }
    return n;
}

struct node *jexpression_parse(struct parser *p)
{
    jparser_nest(p);
    struct node *n = parse_cond(p);
    p->nesting--;
    return n;
}

static struct node *parse_not(struct parser *p);

static struct node *parse_and(struct parser *p)
{
    uint32_t line = p->at->line;
    struct node *n = parse_not(p);
    while (jparser_skip_name(p, "and"))
        n = binary(p, NODE_AND, line, n, parse_not(p));
    return n;
}

static struct node *parse_or(struct parser *p)
{
    uint32_t line = p->at->line;
    struct node *n = parse_and(p);
    while (jparser_skip_name(p, "or"))
        n = binary(p, NODE_OR, line, n, parse_and(p));
    return n;
}

static struct node *parse_sum(struct parser *p);

static bool compare_op(struct parser *p, enum jinja_op *op)
{
    static const struct {
        const char *text;
        enum jinja_op op;
    } ops[] = {{"==", JOP_EQ}, {"!=", JOP_NE}, {"<", JOP_LT},
               {"<=", JOP_LE}, {">", JOP_GT},  {">=", JOP_GE}};
    for (size_t i = 0; i < sizeof ops / sizeof *ops; i++) {
        *op = ops[i].op;
        if (jparser_skip(p, ops[i].text))
            return true;
    }
    *op = JOP_IN;
    if (jparser_skip_name(p, "in"))
        return true;
    *op = JOP_NOT_IN;
    const struct jtoken *next = p->at + 1;
    if (!jparser_is_name(p, "not") || next->kind != JTOK_NAME || !jstr_is(next->value.s, "in"))
        return false;
    p->at += 2;
    return true;
}

static struct node *parse_compare(struct parser *p)
{
    enum jinja_op op;
    uint32_t line = p->at->line;
    struct node *first = parse_sum(p);
    struct node *n = NULL;
    while (compare_op(p, &op)) {
        if (!n) {
            n = jparser_node(p, NODE_COMPARE, line);
            n->a = first;
        }
        size_t count = n->items.n, cap = n->items.cap;
        jparser_push(p, &n->items, parse_sum(p));
        if (cap != n->items.cap) {
            enum jinja_op *ops = jinja_array(p->j, n->items.cap, sizeof *ops);
            if (count)
                memcpy(ops, n->ops, count * sizeof *ops);
            n->ops = ops;
        }
        n->ops[count] = op;
    }
    return n ? n : first;
}

static struct node *parse_not(struct parser *p)
{
    if (!jparser_is_name(p, "not"))
        return parse_compare(p);
    struct node *n = jparser_node(p, NODE_NOT, (p->at++)->line);
    jparser_nest(p);
    n->a = parse_not(p);
    p->nesting--;
    return n;
}

static struct node *arithmetic(struct parser *p, enum jinja_op op, uint32_t line, struct node *a,
                               struct node *b)
{
    struct node *n = binary(p, NODE_BINARY, line, a, b);
    n->op = op;
    return n;
}

static struct node *parse_product(struct parser *p);

static struct node *parse_concat(struct parser *p)
{
    uint32_t line = p->at->line;
    struct node *first = parse_product(p), *n = NULL;
    while (jparser_skip(p, "~")) {
        if (!n) {
            n = jparser_node(p, NODE_CONCAT, line);
            jparser_push(p, &n->items, first);
        }
        jparser_push(p, &n->items, parse_product(p));
    }
    return n ? n : first;
}

static struct node *parse_sum(struct parser *p)
{
    uint32_t line = p->at->line;
    struct node *n = parse_concat(p);
    for (;;) {
        if (jparser_skip(p, "+"))
            n = arithmetic(p, JOP_ADD, line, n, parse_concat(p));
        else if (jparser_skip(p, "-"))
            n = arithmetic(p, JOP_SUB, line, n, parse_concat(p));
        else
            return n;
    }
}

static struct node *parse_pow(struct parser *p)
{
    uint32_t line = p->at->line;
    struct node *n = parse_unary(p, true);
    while (jparser_skip(p, "**"))
        n = arithmetic(p, JOP_POW, line, n, parse_unary(p, true));
    return n;
}

static struct node *parse_product(struct parser *p)
{
    static const struct {
        const char *text;
        enum jinja_op op;
    } ops[] = {{"*", JOP_MUL}, {"/", JOP_DIV}, {"//", JOP_FLOORDIV}, {"%", JOP_MOD}};
    uint32_t line = p->at->line;
    struct node *n = parse_pow(p);
    for (size_t i = 0; i < sizeof ops / sizeof *ops;) {
        if (!jparser_skip(p, ops[i].text)) {
            i++;
            continue;
        }
        n = arithmetic(p, ops[i].op, line, n, parse_pow(p));
        i = 0;
    }
    return n;
}

static bool skip_test(struct parser *p, struct node **n);

// What may follow a whole operand: filters, tests, calls.
static struct node *parse_filters(struct parser *p, struct node *n)
{
    for (;;) {
        if (jparser_is(p, "|"))
            n = jexpression_filters(p, n, false);
        else if (jparser_is(p, "("))
            n = parse_postfix(p, n);
        else if (!skip_test(p, &n))
            return n;
    }
}

static struct node *parse_unary(struct parser *p, bool with_filters)
{
    struct node *n;
    uint32_t line = p->at->line;
    bool minus = jparser_is(p, "-");
    if (minus || jparser_is(p, "+")) {
        p->at++;
        n = jparser_node(p, minus ? NODE_NEG : NODE_POS, line);
        jparser_nest(p);
        n->a = parse_unary(p, false);
        p->nesting--;
    } else {
        n = jexpression_primary(p, false);
    }
    n = parse_postfix(p, n);
    return with_filters ? parse_filters(p, n) : n;
}

static struct node *constant(struct parser *p, struct jv value)
{
    struct node *n = jparser_node(p, NODE_CONST, (p->at++)->line);
    n->value = value;
    return n;
}

static struct node *parse_name(struct parser *p, bool namespaces)
{
    const struct jstr *s = p->at->value.s;
    if (jstr_is(s, "true") || jstr_is(s, "True"))
        return constant(p, jv_bool(true));
    if (jstr_is(s, "false") || jstr_is(s, "False"))
        return constant(p, jv_bool(false));
    if (jstr_is(s, "none") || jstr_is(s, "None"))
        return constant(p, jv_none());
    struct node *n = jparser_node(p, NODE_NAME, p->at->line);
    n->name = jparser_name(p);
    if (namespaces && jparser_skip(p, ".")) {
        n->kind = NODE_NSREF;
        n->attr = jparser_name(p);
    }
    return n;
}

static struct node *parse_strings(struct parser *p)
{
    struct node *n = constant(p, p->at->value);
    while (p->at->kind == JTOK_STRING)
        n->value = jstr_concat(p->j, n->value.s, (p->at++)->value.s);
    jstr_freeze(p->j, n->value.s);
    return n;
}

static struct node *parse_list(struct parser *p)
{
    struct node *n = jparser_node(p, NODE_LIST, (p->at++)->line);
    while (!jparser_is(p, "]")) {
        if (n->items.n)
            jparser_expect(p, ",");
        if (jparser_is(p, "]"))
            break;
        jparser_push(p, &n->items, jexpression_parse(p));
    }
    p->at++;
    return n;
}

static struct node *parse_dict(struct parser *p)
{
    struct node *n = jparser_node(p, NODE_DICT, (p->at++)->line);
    while (!jparser_is(p, "}")) {
        if (n->items.n)
            jparser_expect(p, ",");
        if (jparser_is(p, "}"))
            break;
        jparser_push(p, &n->items, jexpression_parse(p));
        jparser_expect(p, ":");
        jparser_push(p, &n->items, jexpression_parse(p));
    }
    p->at++;
    return n;
}

struct node *jexpression_primary(struct parser *p, bool namespaces)
{
    if (p->at->kind == JTOK_NAME)
        return parse_name(p, namespaces);
    if (p->at->kind == JTOK_STRING)
        return parse_strings(p);
    if (p->at->kind == JTOK_NUMBER)
        return constant(p, p->at->value);
    if (jparser_is(p, "(")) {
        p->at++;
        jparser_nest(p);
        struct node *n = jexpression_tuple(p, true, true);
        p->nesting--;
        jparser_expect(p, ")");
        return n;
    }
    if (jparser_is(p, "["))
        return parse_list(p);
    if (jparser_is(p, "{"))
        return parse_dict(p);
    jparser_unexpected(p, "an expression");
}

static bool tuple_ends(const struct parser *p)
{
    return p->at->kind == JTOK_VARIABLE_END || p->at->kind == JTOK_BLOCK_END || jparser_is(p, ")");
}

static struct node *tuple(struct parser *p, struct node *(*parse)(struct parser *), bool in_parens)
{
    struct node *n = jparser_node(p, NODE_TUPLE, p->at->line);
    bool comma = false;
    for (;;) {
        if (n->items.n)
            jparser_expect(p, ",");
        if (tuple_ends(p))
            break;
        jparser_push(p, &n->items, parse(p));
        if (!jparser_is(p, ","))
            break;
        comma = true;
    }
    if (comma)
        return n;
    if (n->items.n)
        return n->items.v[0];
    if (!in_parens)
        jparser_unexpected(p, "an expression");
    return n;
}

struct node *jexpression_tuple(struct parser *p, bool cond, bool in_parens)
{
    return tuple(p, cond ? jexpression_parse : parse_or, in_parens);
}

static struct node *plain_primary(struct parser *p)
{
    return jexpression_primary(p, false);
}

static struct node *namespace_primary(struct parser *p)
{
    return jexpression_primary(p, true);
}

static void check_target(struct parser *p, const struct node *n)
{
    p->j->line = n->line;
    if (n->kind == NODE_TUPLE)
        for (size_t i = 0; i < n->items.n; i++)
            check_target(p, n->items.v[i]); // as deep as the parser got
    else if (n->kind != NODE_NAME && n->kind != NODE_NSREF)
        jinja_fail(p->j, "can't assign to this expression");
}

struct node *jexpression_target(struct parser *p, bool namespaces)
{
    struct node *n = tuple(p, namespaces ? namespace_primary : plain_primary, false);
    check_target(p, n);
    return n;
}

static struct node *parse_slice(struct parser *p, struct node *of, struct node *start,
                                uint32_t line)
{
    struct node *n = jparser_node(p, NODE_SLICE, line);
    n->a = of;
    jparser_push(p, &n->items, start);
    for (int i = 0; i < 2; i++) {
        struct node *part = NULL;
        if (i == 1 && !jparser_skip(p, ":")) {
            jparser_push(p, &n->items, NULL);
            break;
        }
        if (!jparser_is(p, ":") && !jparser_is(p, "]") && !jparser_is(p, ","))
            part = jexpression_parse(p);
        jparser_push(p, &n->items, part);
    }
    return n;
}

static struct node *parse_subscript(struct parser *p, struct node *of)
{
    uint32_t line = (p->at++)->line;
    struct node *n = jparser_node(p, NODE_ITEM, line), *first = NULL;
    n->a = of;
    jparser_nest(p);
    if (!jparser_is(p, ":"))
        first = jexpression_parse(p);
    if (jparser_skip(p, ":")) {
        n = parse_slice(p, of, first, line);
    } else if (jparser_is(p, ",")) { // a[1, 2]: the key is a tuple
        n->b = jparser_node(p, NODE_TUPLE, line);
        jparser_push(p, &n->b->items, first);
        while (jparser_skip(p, ","))
            jparser_push(p, &n->b->items, jexpression_parse(p));
    } else {
        n->b = first;
    }
    p->nesting--;
    jparser_expect(p, "]");
    return n;
}

static struct node *parse_dot(struct parser *p, struct node *of)
{
    struct node *n = jparser_node(p, NODE_ATTR, (p->at++)->line);
    n->a = of;
    if (p->at->kind == JTOK_NUMBER && p->at->value.kind == JV_INT) {
        n->kind = NODE_ITEM;
        n->b = constant(p, p->at->value);
        return n;
    }
    n->attr = jparser_name(p);
    return n;
}

static void add_keyword(struct parser *p, struct node_call *c, struct jstr *name,
                        struct node *value)
{
    for (size_t i = 0; i < c->values.n; i++)
        if (c->names[i]->n == name->n && memcmp(c->names[i]->p, name->p, name->n) == 0)
            jinja_fail(p->j, "keyword argument repeated: %.*s", (int)(name->n & 127), name->p);
    size_t cap = c->values.cap, n = c->values.n;
    jparser_push(p, &c->values, value);
    if (cap != c->values.cap) {
        struct jstr **names = jinja_array(p->j, c->values.cap, sizeof(struct jstr *));
        if (n)
            memcpy(names, c->names, n * sizeof(struct jstr *));
        c->names = names;
    }
    c->names[n] = name;
}

static struct node_call *parse_args(struct parser *p)
{
    struct node_call *c = jinja_alloc(p->j, sizeof *c);
    bool comma = false;
    jparser_expect(p, "(");
    jparser_nest(p);
    while (!jparser_is(p, ")")) {
        if (comma)
            jparser_expect(p, ",");
        comma = true;
        if (jparser_is(p, ")"))
            break;
        const struct jtoken *next = p->at + (p->at->kind != JTOK_EOF);
        bool named =
            p->at->kind == JTOK_NAME && next->kind == JTOK_OPERATOR && strcmp(next->op, "=") == 0;
        bool late = c->keywords || (!named && !jparser_is(p, "**") && c->rest);
        if (late || (!named && c->values.n && !jparser_is(p, "*") && !jparser_is(p, "**")))
            jinja_fail(p->j, "invalid syntax for function call expression");
        if (jparser_skip(p, "*")) {
            c->rest = jexpression_parse(p);
        } else if (jparser_skip(p, "**")) {
            c->keywords = jexpression_parse(p);
        } else if (named) {
            struct jstr *name = jparser_name(p);
            p->at++;
            add_keyword(p, c, name, jexpression_parse(p));
        } else {
            jparser_push(p, &c->args, jexpression_parse(p));
        }
    }
    p->nesting--;
    p->at++;
    return c;
}

static struct node *parse_postfix(struct parser *p, struct node *n)
{
    for (;;) {
        if (jparser_is(p, ".")) {
            n = parse_dot(p, n);
        } else if (jparser_is(p, "[")) {
            n = parse_subscript(p, n);
        } else if (jparser_is(p, "(")) {
            struct node *call = jparser_node(p, NODE_CALL, p->at->line);
            call->a = n;
            call->call = parse_args(p);
            n = call;
        } else {
            return n;
        }
    }
}

// "name" or "name.more" of a filter or test.
static struct jstr *dotted(struct parser *p)
{
    struct jstr *name = jparser_name(p);
    while (jparser_skip(p, "."))
        name =
            jstr_concat(p->j, jstr_concat(p->j, name, jstr_of(p->j, ".").s).s, jparser_name(p)).s;
    return name;
}

struct node *jexpression_filters(struct parser *p, struct node *of, bool begun)
{
    while (begun || jparser_skip(p, "|")) {
        begun = false;
        struct node *n = jparser_node(p, NODE_FILTER, p->at->line);
        n->a = of;
        n->name = dotted(p);
        n->filter = jfilter_find(n->name->p, n->name->n);
        n->call = jparser_is(p, "(") ? parse_args(p) : jinja_alloc(p->j, sizeof *n->call);
        of = n;
    }
    return of;
}

// Whether the token begins the one operand that a test takes without brackets.
static bool begins_operand(const struct parser *p)
{
    if (jparser_is_name(p, "else") || jparser_is_name(p, "or") || jparser_is_name(p, "and"))
        return false;
    return p->at->kind == JTOK_NAME || p->at->kind == JTOK_STRING || p->at->kind == JTOK_NUMBER ||
           jparser_is(p, "[") || jparser_is(p, "{");
}

static bool skip_test(struct parser *p, struct node **n)
{
    uint32_t line = p->at->line;
    if (!jparser_skip_name(p, "is"))
        return false;
    struct node *t = jparser_node(p, NODE_TEST, line);
    t->negated = jparser_skip_name(p, "not");
    t->a = *n;
    t->name = dotted(p);
    t->test = jtest_find(t->name->p, t->name->n);
    if (jparser_is(p, "(")) {
        t->call = parse_args(p);
    } else {
        t->call = jinja_alloc(p->j, sizeof *t->call);
        if (jparser_is_name(p, "is"))
            jinja_fail(p->j, "You cannot chain multiple tests with is");
        if (begins_operand(p))
            jparser_push(p, &t->call->args, parse_postfix(p, jexpression_primary(p, false)));
    }
    *n = t;
    return true;
}
