// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * jinja_node - a compiled template: a tree, and the variables of every scope in it.
 *
 * Names   the parser writes names; jinja_scope turns each into a place: how many scopes up, and
 *         which variable there. Places are found as jinja2/idtracking.py finds them.
 * Owner   the arena of the template; never changed once compiled.
 */
#include "llm/jinja_operator.h"
#include "llm/jinja_value.h"

enum node_kind {
    // statements
    NODE_OUTPUT,       // items: expressions, or constants for the template's text
    NODE_SET,          // a: target, b: value
    NODE_SET_BLOCK,    // a: target, b: filter or NULL, body
    NODE_IF,           // a: test, body, items: an IF for each elif, orelse
    NODE_FOR,          // a: target, b: what, c: test or NULL, body, orelse
    NODE_MACRO,        // name, params, body
    NODE_CALL_BLOCK,   // a: the call, params, body
    NODE_FILTER_BLOCK, // b: filter, body
    NODE_WITH,         // items: target, value, target, value ..., body
    NODE_GENERATION,   // body
    NODE_BLOCK,        // name, body
    NODE_BREAK,
    NODE_CONTINUE,
    // expressions
    NODE_CONST, // value
    NODE_NAME,  // name
    NODE_NSREF, // name, attr: a target
    NODE_TUPLE, // items
    NODE_LIST,
    NODE_DICT,    // items: key, value, key, value ...
    NODE_COND,    // a: test, b: then, c: else or NULL
    NODE_BINARY,  // op, a, b
    NODE_COMPARE, // a, items and their ops
    NODE_CONCAT,  // items
    NODE_AND,
    NODE_OR,
    NODE_NOT,
    NODE_NEG,
    NODE_POS,
    NODE_ATTR,   // a, attr
    NODE_ITEM,   // a, b
    NODE_SLICE,  // a; items: start, stop, step, each may be NULL
    NODE_CALL,   // a, call
    NODE_FILTER, // a (NULL: the block's text), call, filter
    NODE_TEST    // a, call, test
};

struct node_list {
    struct node **v;
    size_t n, cap;
};

struct node_call {                 // arguments
    struct node_list args, values; // values[i] is the keyword names[i]'s
    struct jstr **names;
    struct node *rest, *keywords; // of *rest and **keywords, or NULL
};

struct node_place {
    uint32_t up, slot; // scopes up; variable
};

enum scope_load { LOAD_PARAM, LOAD_RESOLVE, LOAD_ALIAS, LOAD_UNDEFINED };

struct scope_name {
    struct jstr *name;
    enum scope_load load;    // what the variable is when the scope begins
    struct node_place outer; // of LOAD_ALIAS
    bool stored;
};
struct scope {
    struct scope *parent;
    struct scope_name *v;
    size_t n, cap;
};

struct node {
    enum node_kind kind;
    uint32_t line;
    enum jinja_op op;
    struct node *a, *b, *c;
    struct node_list items, body, orelse;
    struct jstr *name, *attr;
    struct jv value;
    struct node_place place;
    struct node_call *call;
    const struct jfilter *filter; // NULL: unknown, an error when it is reached
    const struct jtest *test;
    enum jinja_op *ops; // of COMPARE
    bool recursive, negated;
    bool loop_used;                        // FOR: its body speaks of `loop`
    struct scope *scope;                   // of the body
    struct scope *test_scope, *else_scope; // of FOR
    struct node_list params, defaults;     // MACRO, CALL_BLOCK: names; the last ones have defaults
    bool takes_caller, takes_kwargs, takes_varargs; // that the caller didn't list
    struct node_place loop_place, caller_place, kwargs_place, varargs_place;
};
