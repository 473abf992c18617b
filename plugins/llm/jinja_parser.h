// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * jinja_parser - tokens to the tree of jinja_node.h, by the grammar of jinja2/parser.py.
 *
 * Bounds  TEMPLATE_NESTING_MAX expressions and blocks in each other.
 */
#include "llm/jinja_node.h"

struct jtokens;
struct jtoken;

struct parser {
    struct jinja *j;
    const struct jtoken *at;
    uint32_t nesting;
    uint32_t loops; // that a break would leave
};

struct node *jparser_run(struct jinja *j, const struct jtokens *tokens); // the body of a BLOCK

// Between jinja_parser.c (statements) and jinja_expression.c.
struct node *jparser_node(struct parser *p, enum node_kind kind, uint32_t line);
void jparser_push(struct parser *p, struct node_list *list, struct node *n);
bool jparser_is(const struct parser *p, const char *op); // an operator
bool jparser_is_name(const struct parser *p, const char *name);
bool jparser_skip(struct parser *p, const char *op);
bool jparser_skip_name(struct parser *p, const char *name);
void jparser_expect(struct parser *p, const char *op);
struct jstr *jparser_name(struct parser *p);
__attribute__((noreturn)) void jparser_unexpected(struct parser *p, const char *wanted);
void jparser_nest(struct parser *p);
struct node *jexpression_parse(struct parser *p);
// `a, b`: a tuple.
struct node *jexpression_tuple(struct parser *p, bool cond, bool in_parens);
struct node *jexpression_target(struct parser *p, bool namespaces);
struct node *jexpression_filters(struct parser *p, struct node *of, bool begun);
struct node *jexpression_primary(struct parser *p, bool namespaces);
