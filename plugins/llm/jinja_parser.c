// SPDX-License-Identifier: Apache-2.0
#include "llm/jinja_parser.h"

#include "llm/jinja_lexer.h"
#include "llm/jinja_string.h"
#include "llm/template.h"

static void parse_body(struct parser *p, struct node_list *body, const char *const *ends);
static struct node *parse_statement(struct parser *p);

struct node *jparser_node(struct parser *p, enum node_kind kind, uint32_t line)
{
    struct node *n = jinja_alloc(p->j, sizeof *n);
    n->kind = kind;
    n->line = line;
    return n;
}

void jparser_push(struct parser *p, struct node_list *list, struct node *n)
{
    if (list->n == list->cap) {
        size_t cap = list->cap ? list->cap * 2 : 4;
        struct node **v = jinja_array(p->j, cap, sizeof(struct node *));
        if (list->n)
            memcpy(v, list->v, list->n * sizeof(struct node *));
        list->v = v;
        list->cap = cap;
    }
    list->v[list->n++] = n;
}

bool jparser_is(const struct parser *p, const char *op)
{
    return p->at->kind == JTOK_OPERATOR && strcmp(p->at->op, op) == 0;
}

bool jparser_is_name(const struct parser *p, const char *name)
{
    return p->at->kind == JTOK_NAME && jstr_is(p->at->value.s, name);
}

bool jparser_skip(struct parser *p, const char *op)
{
    bool is = jparser_is(p, op);
    p->at += is;
    return is;
}

bool jparser_skip_name(struct parser *p, const char *name)
{
    bool is = jparser_is_name(p, name);
    p->at += is;
    return is;
}

void jparser_unexpected(struct parser *p, const char *wanted)
{
    static const char *const kinds[] = {[JTOK_EOF] = "the end of the template",
                                        [JTOK_DATA] = "text",
                                        [JTOK_BLOCK_BEGIN] = "{%",
                                        [JTOK_BLOCK_END] = "%}",
                                        [JTOK_VARIABLE_BEGIN] = "{{",
                                        [JTOK_VARIABLE_END] = "}}",
                                        [JTOK_STRING] = "a string",
                                        [JTOK_NUMBER] = "a number"};
    p->j->line = p->at->line;
    if (p->at->kind == JTOK_OPERATOR)
        jinja_fail(p->j, "expected %s, got '%s'", wanted, p->at->op);
    if (p->at->kind == JTOK_NAME)
        jinja_fail(p->j, "expected %s, got '%.*s'", wanted,
                   (int)(p->at->value.s->n < 100 ? p->at->value.s->n : 100), p->at->value.s->p);
    jinja_fail(p->j, "expected %s, got %s", wanted, kinds[p->at->kind]);
}

void jparser_expect(struct parser *p, const char *op)
{
    char wanted[8] = "'";
    if (jparser_skip(p, op))
        return;
    memcpy(wanted + 1, op, strlen(op));
    memcpy(wanted + 1 + strlen(op), "'", 2);
    jparser_unexpected(p, wanted);
}

struct jstr *jparser_name(struct parser *p)
{
    if (p->at->kind != JTOK_NAME)
        jparser_unexpected(p, "a name");
    return (p->at++)->value.s;
}

void jparser_nest(struct parser *p)
{
    p->j->line = p->at->line;
    if (++p->nesting > TEMPLATE_NESTING_MAX)
        jinja_fail(p->j, "more than %d expressions and blocks in each other", TEMPLATE_NESTING_MAX);
}

static void expect_kind(struct parser *p, enum jinja_token kind, const char *wanted)
{
    if (p->at->kind != kind)
        jparser_unexpected(p, wanted);
    p->at++;
}

static bool ends_here(const struct parser *p, const char *const *ends)
{
    for (; ends && *ends; ends++)
        if (jparser_is_name(p, *ends))
            return true;
    return false;
}

// Of a statement: from behind its head to one of the ends, which stays.
static void parse_until(struct parser *p, struct node_list *body, const char *const *ends)
{
    jparser_skip(p, ":");
    expect_kind(p, JTOK_BLOCK_END, "'%}'");
    jparser_nest(p);
    parse_body(p, body, ends);
    p->nesting--;
}

static void parse_to_end(struct parser *p, struct node_list *body, const char *end)
{
    const char *const ends[] = {end, NULL};
    parse_until(p, body, ends);
    p->at++;
}

static struct node *parse_set(struct parser *p, uint32_t line)
{
    struct node *target = jexpression_target(p, true);
    if (jparser_skip(p, "=")) {
        struct node *n = jparser_node(p, NODE_SET, line);
        n->a = target;
        n->b = jexpression_tuple(p, true, false);
        return n;
    }
    struct node *n = jparser_node(p, NODE_SET_BLOCK, line);
    n->a = target;
    n->b = jexpression_filters(p, NULL, false);
    parse_to_end(p, &n->body, "endset");
    return n;
}

static struct node *parse_for(struct parser *p, uint32_t line)
{
    static const char *const ends[] = {"endfor", "else", NULL};
    struct node *n = jparser_node(p, NODE_FOR, line);
    n->a = jexpression_target(p, false);
    if (!jparser_skip_name(p, "in"))
        jparser_unexpected(p, "'in'");
    n->b = jexpression_tuple(p, false, false);
    if (jparser_skip_name(p, "if"))
        n->c = jexpression_parse(p);
    n->recursive = jparser_skip_name(p, "recursive");
    uint32_t outer = p->loops;
    p->loops = n->recursive ? 1 : outer + 1;
    parse_until(p, &n->body, ends);
    p->loops = n->recursive ? 0 : outer;
    if (jparser_skip_name(p, "else"))
        parse_to_end(p, &n->orelse, "endfor");
    else
        p->at++;
    p->loops = outer;
    return n;
}

static struct node *parse_if(struct parser *p, uint32_t line)
{
    static const char *const ends[] = {"elif", "else", "endif", NULL};
    struct node *first = jparser_node(p, NODE_IF, line), *n = first;
    for (;;) {
        n->a = jexpression_tuple(p, false, false);
        parse_until(p, &n->body, ends);
        if (!jparser_skip_name(p, "elif"))
            break;
        n = jparser_node(p, NODE_IF, p->at->line);
        jparser_push(p, &first->items, n);
    }
    if (jparser_skip_name(p, "else"))
        parse_to_end(p, &first->orelse, "endif");
    else
        p->at++;
    return first;
}

static bool same_name(const struct node *a, const struct node *b)
{
    return a->name->n == b->name->n && memcmp(a->name->p, b->name->p, a->name->n) == 0;
}

static void parse_signature(struct parser *p, struct node *n)
{
    jparser_expect(p, "(");
    while (!jparser_is(p, ")")) {
        if (n->params.n)
            jparser_expect(p, ",");
        struct node *param = jparser_node(p, NODE_NAME, p->at->line);
        param->name = jparser_name(p);
        for (size_t i = 0; i < n->params.n; i++)
            if (same_name(n->params.v[i], param))
                jinja_fail(p->j, "an argument is named twice");
        if (jparser_skip(p, "="))
            jparser_push(p, &n->defaults, jexpression_parse(p));
        else if (n->defaults.n)
            jinja_fail(p->j, "non-default argument follows default argument");
        jparser_push(p, &n->params, param);
    }
    p->at++;
}

// A body that is a function of its own: no break leaves it.
static void parse_function(struct parser *p, struct node_list *body, const char *end)
{
    uint32_t outer = p->loops;
    p->loops = 0;
    parse_to_end(p, body, end);
    p->loops = outer;
}

static struct node *parse_macro(struct parser *p, uint32_t line)
{
    struct node *n = jparser_node(p, NODE_MACRO, line);
    n->name = jparser_name(p);
    parse_signature(p, n);
    parse_function(p, &n->body, "endmacro");
    return n;
}

static struct node *parse_call_block(struct parser *p, uint32_t line)
{
    struct node *n = jparser_node(p, NODE_CALL_BLOCK, line);
    if (jparser_is(p, "("))
        parse_signature(p, n);
    n->a = jexpression_parse(p);
    if (n->a->kind != NODE_CALL)
        jinja_fail(p->j, "expected a call");
    parse_function(p, &n->body, "endcall");
    return n;
}

static struct node *parse_filter_block(struct parser *p, uint32_t line)
{
    struct node *n = jparser_node(p, NODE_FILTER_BLOCK, line);
    n->b = jexpression_filters(p, NULL, true);
    parse_to_end(p, &n->body, "endfilter");
    return n;
}

static struct node *parse_with(struct parser *p, uint32_t line)
{
    struct node *n = jparser_node(p, NODE_WITH, line);
    while (p->at->kind != JTOK_BLOCK_END) {
        if (n->items.n)
            jparser_expect(p, ",");
        jparser_push(p, &n->items, jexpression_target(p, false));
        jparser_expect(p, "=");
        jparser_push(p, &n->items, jexpression_parse(p));
    }
    parse_to_end(p, &n->body, "endwith");
    return n;
}

static struct node *parse_generation(struct parser *p, uint32_t line)
{
    struct node *n = jparser_node(p, NODE_GENERATION, line);
    parse_function(p, &n->body, "endgeneration");
    return n;
}

static struct node *parse_block(struct parser *p, uint32_t line)
{
    struct node *n = jparser_node(p, NODE_BLOCK, line);
    n->name = jparser_name(p);
    if (jparser_is_name(p, "scoped") || jparser_is_name(p, "required"))
        jinja_fail(p->j, "'scoped' and 'required' blocks are not supported");
    parse_function(p, &n->body, "endblock");
    if (p->at->kind == JTOK_NAME && p->at->value.s->n == n->name->n &&
        memcmp(p->at->value.s->p, n->name->p, n->name->n) == 0)
        p->at++;
    return n;
}

static struct node *parse_print(struct parser *p, uint32_t line)
{
    struct node *n = jparser_node(p, NODE_OUTPUT, line);
    while (p->at->kind != JTOK_BLOCK_END) {
        if (n->items.n)
            jparser_expect(p, ",");
        jparser_push(p, &n->items, jexpression_parse(p));
    }
    return n;
}

static struct node *parse_jump(struct parser *p, uint32_t line, bool is_break)
{
    if (!p->loops)
        jinja_fail(p->j, "'%s' outside of a loop", is_break ? "break" : "continue");
    return jparser_node(p, is_break ? NODE_BREAK : NODE_CONTINUE, line);
}

static struct node *parse_break(struct parser *p, uint32_t line)
{
    return parse_jump(p, line, true);
}

static struct node *parse_continue(struct parser *p, uint32_t line)
{
    return parse_jump(p, line, false);
}

static struct node *parse_statement(struct parser *p)
{
    static const struct {
        const char *name;
        struct node *(*parse)(struct parser *, uint32_t);
    } tags[] = {{"set", parse_set},         {"for", parse_for},
                {"if", parse_if},           {"macro", parse_macro},
                {"call", parse_call_block}, {"filter", parse_filter_block},
                {"with", parse_with},       {"generation", parse_generation},
                {"block", parse_block},     {"print", parse_print},
                {"break", parse_break},     {"continue", parse_continue}};
    static const char *const refused[] = {"include", "import", "from", "extends", "autoescape"};
    uint32_t line = p->at->line;
    p->j->line = line;
    for (size_t i = 0; i < sizeof tags / sizeof *tags; i++)
        if (jparser_skip_name(p, tags[i].name))
            return tags[i].parse(p, line);
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++)
        if (jparser_is_name(p, refused[i]))
            jinja_fail(p->j, "the tag '%s' is not for chat templates", refused[i]);
    if (p->at->kind != JTOK_NAME)
        jparser_unexpected(p, "the name of a tag");
    jinja_fail(p->j, "unknown or misplaced tag '%.*s'",
               (int)(p->at->value.s->n < 100 ? p->at->value.s->n : 100), p->at->value.s->p);
}

// Texts and {{ }} that follow each other are one OUTPUT.
static void add_output(struct parser *p, struct node_list *body, struct node *what)
{
    struct node *last = body->n ? body->v[body->n - 1] : NULL;
    if (!last || last->kind != NODE_OUTPUT) {
        last = jparser_node(p, NODE_OUTPUT, what->line);
        jparser_push(p, body, last);
    }
    jparser_push(p, &last->items, what);
}

static void parse_body(struct parser *p, struct node_list *body, const char *const *ends)
{
    uint32_t from = p->at->line;
    while (p->at->kind != JTOK_EOF) {
        const struct jtoken *t = p->at++;
        if (t->kind == JTOK_DATA) {
            struct node *text = jparser_node(p, NODE_CONST, t->line);
            text->value = t->value;
            add_output(p, body, text);
        } else if (t->kind == JTOK_VARIABLE_BEGIN) {
            add_output(p, body, jexpression_tuple(p, true, false));
            expect_kind(p, JTOK_VARIABLE_END, "'}}'");
        } else {
            if (ends_here(p, ends))
                return;
            jparser_push(p, body, parse_statement(p));
            expect_kind(p, JTOK_BLOCK_END, "'%}'");
        }
    }
    p->j->line = p->at->line;
    if (ends)
        jinja_fail(p->j, "the template ends where '%s' is missing, for what began in line %u",
                   ends[1] && ends[2] ? ends[2] : ends[0], from);
}

struct node *jparser_run(struct jinja *j, const struct jtokens *tokens)
{
    struct parser p = {.j = j, .at = tokens->v};
    struct node *root = jparser_node(&p, NODE_BLOCK, 1);
    parse_body(&p, &root->body, NULL);
    return root;
}
