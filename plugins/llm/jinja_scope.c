// SPDX-License-Identifier: Apache-2.0
#include "llm/jinja_scope.h"

#include "base/check.h"
#include "llm/jinja_string.h"

struct resolver {
    struct jinja *j;
    struct scope *scope;
    uint32_t branches; // ifs around, within this scope
    uint32_t loops;    // fors around, anywhere
    bool soft;         // in an if: an unknown filter is an error only when it is reached
};

static void collect(struct resolver *r, struct node *n);
static void resolve(struct resolver *r, struct node *n);

static bool same(const struct jstr *a, const struct jstr *b)
{
    return a->n == b->n && memcmp(a->p, b->p, a->n) == 0;
}

static struct scope_name *find_own(struct jinja *j, const struct scope *s, const struct jstr *name)
{
    CHECK(s);
    jinja_step(j, s->n);
    for (size_t i = 0; i < s->n; i++)
        if (same(s->v[i].name, name))
            return &s->v[i];
    return NULL;
}

static bool find(struct jinja *j, const struct scope *s, const struct jstr *name,
                 struct node_place *ret)
{
    for (uint32_t up = 0; s; s = s->parent, up++) {
        jinja_step(j, 1);
        const struct scope_name *n = find_own(j, s, name);
        if (n) {
            *ret = (struct node_place){up, (uint32_t)(n - s->v)};
            return true;
        }
    }
    return false;
}

static struct scope_name *define(struct jinja *j, struct scope *s, struct jstr *name,
                                 enum scope_load load)
{
    CHECK(s);
    if (s->n == s->cap) {
        size_t cap = s->cap ? s->cap * 2 : 4;
        struct scope_name *v = jinja_array(j, cap, sizeof *v);
        if (s->n)
            memcpy(v, s->v, s->n * sizeof *v);
        s->v = v;
        s->cap = cap;
    }
    s->v[s->n] = (struct scope_name){.name = name, .load = load};
    return &s->v[s->n++];
}

static void load(struct resolver *r, struct jstr *name)
{
    struct node_place place;
    if (!find(r->j, r->scope, name, &place))
        define(r->j, r->scope, name, LOAD_RESOLVE);
}

static void store(struct resolver *r, struct jstr *name)
{
    struct scope *s = r->scope;
    if (r->loops && jstr_is(name, "loop"))
        jinja_fail(r->j, "Can't assign to special loop variable in for-loop target");
    struct scope_name *own = find_own(r->j, s, name);
    if (own) {
        own->stored = true;
        return;
    }
    struct node_place outer;
    bool known = s->parent && find(r->j, s->parent, name, &outer);
    enum scope_load how = known ? LOAD_ALIAS : r->branches ? LOAD_RESOLVE : LOAD_UNDEFINED;
    own = define(r->j, s, name, how);
    own->stored = true;
    if (known)
        own->outer = outer;
}

static struct node_place declare(struct resolver *r, struct jstr *name)
{
    struct scope_name *own = find_own(r->j, r->scope, name);
    if (!own)
        own = define(r->j, r->scope, name, LOAD_PARAM);
    own->load = LOAD_PARAM;
    own->stored = true;
    return (struct node_place){0, (uint32_t)(own - r->scope->v)};
}

static struct node_place declare_text(struct resolver *r, const char *name)
{
    return declare(r, jstr_of(r->j, name).s);
}

static struct scope *new_scope(struct resolver *r, struct scope *parent)
{
    struct scope *s = jinja_alloc(r->j, sizeof *s);
    s->parent = parent;
    return s;
}

static void each_in(struct resolver *r, const struct node_list *list,
                    void (*visit)(struct resolver *, struct node *))
{
    for (size_t i = 0; i < list->n; i++)
        if (list->v[i])
            visit(r, list->v[i]);
}

// The children of an expression, in the order in which jinja2 visits them.
static void each_child(struct resolver *r, struct node *n,
                       void (*visit)(struct resolver *, struct node *))
{
    if (n->a)
        visit(r, n->a);
    if (n->b)
        visit(r, n->b);
    if (n->c)
        visit(r, n->c);
    each_in(r, &n->items, visit);
    if (!n->call)
        return;
    each_in(r, &n->call->args, visit);
    each_in(r, &n->call->values, visit);
    if (n->call->rest)
        visit(r, n->call->rest);
    if (n->call->keywords)
        visit(r, n->call->keywords);
}

/* First: the names of a scope. */

static void collect_target(struct resolver *r, struct node *n, bool param)
{
    if (n->kind == NODE_TUPLE)
        for (size_t i = 0; i < n->items.n; i++)
            collect_target(r, n->items.v[i], param);
    else if (n->kind == NODE_NSREF)
        load(r, n->name);
    else if (param)
        declare(r, n->name);
    else
        store(r, n->name);
}

static void collect_if(struct resolver *r, struct node *n)
{
    collect(r, n->a);
    r->branches++;
    each_in(r, &n->body, collect);
    each_in(r, &n->items, collect);
    each_in(r, &n->orelse, collect);
    r->branches--;
}

static void collect(struct resolver *r, struct node *n)
{
    jinja_enter(r->j);
    jinja_step(r->j, 1);
    r->j->line = n->line;
    switch (n->kind) {
    case NODE_NAME:
        load(r, n->name);
        break;
    case NODE_SET:
        collect(r, n->b);
        collect_target(r, n->a, false);
        break;
    case NODE_SET_BLOCK:
        collect_target(r, n->a, false);
        break;
    case NODE_IF:
        collect_if(r, n);
        break;
    case NODE_FOR:
    case NODE_FILTER_BLOCK:
        collect(r, n->b);
        break;
    case NODE_MACRO:
        store(r, n->name);
        break;
    case NODE_CALL_BLOCK:
        collect(r, n->a);
        break;
    case NODE_WITH:
        for (size_t i = 1; i < n->items.n; i += 2)
            collect(r, n->items.v[i]);
        break;
    case NODE_BLOCK:
    case NODE_GENERATION:
        break;
    default:
        each_child(r, n, collect);
    }
    jinja_leave(r->j);
}

/* Whether a body speaks of a name that it has not set before: 1 yes, -1 it sets it, 0 no. */

static int uses(struct resolver *r, const struct node *n, const char *name);

static int uses_in(struct resolver *r, const struct node_list *list, const char *name)
{
    int found = 0;
    for (size_t i = 0; i < list->n && !found; i++)
        found = list->v[i] ? uses(r, list->v[i], name) : 0;
    return found;
}

static int sets(const struct node *n, const char *name)
{
    if (n->kind == NODE_NAME)
        return jstr_is(n->name, name) ? -1 : 0;
    for (size_t i = 0; n->kind == NODE_TUPLE && i < n->items.n; i++)
        if (sets(n->items.v[i], name))
            return -1;
    return 0;
}

static int uses_params(struct resolver *r, const struct node *n, const char *name)
{
    for (size_t i = 0; i < n->params.n; i++)
        if (jstr_is(n->params.v[i]->name, name))
            return -1;
    return uses_in(r, &n->defaults, name);
}

static int uses_call(struct resolver *r, const struct node_call *c, const char *name)
{
    int found = uses_in(r, &c->args, name);
    found = found ? found : uses_in(r, &c->values, name);
    if (!found && c->rest)
        found = uses(r, c->rest, name);
    if (!found && c->keywords)
        found = uses(r, c->keywords, name);
    return found;
}

static int uses_with(struct resolver *r, const struct node *n, const char *name)
{
    for (size_t i = 0; i < n->items.n; i += 2)
        if (sets(n->items.v[i], name))
            return -1;
    for (size_t i = 1; i < n->items.n; i += 2) {
        int found = uses(r, n->items.v[i], name);
        if (found)
            return found;
    }
    return uses_in(r, &n->body, name);
}

static int uses(struct resolver *r, const struct node *n, const char *name)
{
    int found = 0;
    jinja_enter(r->j);
    jinja_step(r->j, 1);
    if (n->kind == NODE_NAME) {
        found = jstr_is(n->name, name);
    } else if (n->kind == NODE_MACRO || n->kind == NODE_CALL_BLOCK) {
        found = n->a ? uses(r, n->a, name) : 0;
        found = found ? found : uses_params(r, n, name);
        found = found ? found : uses_in(r, &n->body, name);
    } else if (n->kind == NODE_WITH) {
        found = uses_with(r, n, name);
    } else if (n->kind != NODE_BLOCK) {
        bool target = n->kind == NODE_FOR || n->kind == NODE_SET || n->kind == NODE_SET_BLOCK;
        if (n->a)
            found = target ? sets(n->a, name) : uses(r, n->a, name);
        if (!found && n->b)
            found = uses(r, n->b, name);
        bool test_last = n->kind == NODE_FOR;
        if (!found && n->c && !test_last)
            found = uses(r, n->c, name);
        found = found ? found : uses_in(r, &n->body, name);
        found = found ? found : uses_in(r, &n->items, name);
        found = found ? found : uses_in(r, &n->orelse, name);
        if (!found && n->c && test_last)
            found = uses(r, n->c, name);
        if (!found && n->call)
            found = uses_call(r, n->call, name);
    }
    jinja_leave(r->j);
    return found;
}

/* Then: the place of every name, and the scopes within. */

static void resolve_name(struct resolver *r, struct jstr *name, struct node_place *place)
{
    if (!find(r->j, r->scope, name, place)) {
        define(r->j, r->scope, name, LOAD_RESOLVE);
        find(r->j, r->scope, name, place);
    }
}

static void resolve_target(struct resolver *r, struct node *n)
{
    if (n->kind == NODE_TUPLE)
        for (size_t i = 0; i < n->items.n; i++)
            resolve_target(r, n->items.v[i]);
    else
        resolve_name(r, n->name, &n->place);
}

static struct resolver inside(const struct resolver *r, struct scope *scope)
{
    struct resolver inner = *r;
    inner.scope = scope;
    inner.branches = 0;
    inner.soft = false;
    return inner;
}

static void resolve_macro(struct resolver *r, struct node *n)
{
    n->scope = new_scope(r, r->scope);
    struct resolver inner = inside(r, n->scope);
    bool caller = false, kwargs = false, varargs = false;
    for (size_t i = 0; i < n->params.n; i++) {
        struct node *p = n->params.v[i];
        p->place = declare(&inner, p->name);
        bool last = i + n->defaults.n >= n->params.n;
        caller |= jstr_is(p->name, "caller");
        kwargs |= jstr_is(p->name, "kwargs");
        varargs |= jstr_is(p->name, "varargs");
        if (jstr_is(p->name, "caller") && !last && uses_in(r, &n->body, "caller") > 0)
            jinja_fail(r->j,
                       "the special \"caller\" argument must be omitted or be given a default");
    }
    each_in(&inner, &n->defaults, collect);
    each_in(&inner, &n->body, collect);
    n->takes_caller = !caller && uses_in(r, &n->body, "caller") > 0;
    n->takes_kwargs = !kwargs && uses_in(r, &n->body, "kwargs") > 0;
    n->takes_varargs = !varargs && uses_in(r, &n->body, "varargs") > 0;
    if (n->takes_caller)
        n->caller_place = declare_text(&inner, "caller");
    if (n->takes_kwargs)
        n->kwargs_place = declare_text(&inner, "kwargs");
    if (n->takes_varargs)
        n->varargs_place = declare_text(&inner, "varargs");
    each_in(&inner, &n->defaults, resolve);
    each_in(&inner, &n->body, resolve);
}

static void resolve_for(struct resolver *r, struct node *n)
{
    struct resolver body = inside(r, new_scope(r, r->scope));
    body.loops++;
    if (sets(n->a, "loop"))
        jinja_fail(r->j, "Can't assign to special loop variable in for-loop target");
    collect_target(&body, n->a, true);
    n->loop_used = n->recursive || uses_in(r, &n->body, "loop") > 0;
    if (n->loop_used)
        n->loop_place = declare_text(&body, "loop");
    each_in(&body, &n->body, collect);
    n->scope = body.scope;

    struct resolver test = inside(r, new_scope(r, r->scope));
    n->test_scope = test.scope;
    if (n->c) {
        collect_target(&test, n->a, true);
        collect(&test, n->c);
        resolve(&test, n->c);
    }
    resolve_target(&body, n->a); // first in both scopes: the places are the same
    resolve(r, n->b);
    each_in(&body, &n->body, resolve);

    struct resolver orelse = inside(r, new_scope(r, r->scope));
    orelse.loops++;
    n->else_scope = orelse.scope;
    each_in(&orelse, &n->orelse, collect);
    each_in(&orelse, &n->orelse, resolve);
}

// A body with a scope and nothing else to it.
static void resolve_inner(struct resolver *r, struct node *n, struct scope *parent)
{
    n->scope = new_scope(r, parent);
    struct resolver inner = inside(r, n->scope);
    for (size_t i = 0; n->kind == NODE_WITH && i < n->items.n; i += 2) {
        collect_target(&inner, n->items.v[i], true);
        resolve(r, n->items.v[i + 1]);
    }
    each_in(&inner, &n->body, collect);
    if (n->b)
        collect(&inner, n->b);
    for (size_t i = 0; n->kind == NODE_WITH && i < n->items.n; i += 2)
        resolve_target(&inner, n->items.v[i]);
    each_in(&inner, &n->body, resolve);
    if (n->b)
        resolve(&inner, n->b);
}

static void check_known(struct resolver *r, const struct node *n)
{
    bool known = n->kind == NODE_FILTER ? n->filter != NULL : n->test != NULL;
    if (!known && !r->soft)
        jinja_fail(r->j, "No %s named '%.*s'.", n->kind == NODE_FILTER ? "filter" : "test",
                   (int)(n->name->n < 100 ? n->name->n : 100), n->name->p);
}

static void resolve_soft(struct resolver *r, struct node *n)
{
    bool soft = r->soft;
    r->soft = true;
    each_child(r, n, resolve);
    each_in(r, &n->body, resolve);
    each_in(r, &n->orelse, resolve);
    r->soft = soft;
}

static void resolve(struct resolver *r, struct node *n)
{
    jinja_enter(r->j);
    jinja_step(r->j, 1);
    r->j->line = n->line;
    switch (n->kind) {
    case NODE_NAME:
        resolve_name(r, n->name, &n->place);
        break;
    case NODE_SET:
        resolve(r, n->b);
        resolve_target(r, n->a);
        break;
    case NODE_SET_BLOCK:
        resolve_target(r, n->a);
        resolve_inner(r, n, r->scope);
        break;
    case NODE_IF:
    case NODE_COND:
        resolve_soft(r, n);
        break;
    case NODE_FOR:
        resolve_for(r, n);
        break;
    case NODE_MACRO:
        resolve_name(r, n->name, &n->place);
        resolve_macro(r, n);
        break;
    case NODE_CALL_BLOCK:
        resolve(r, n->a);
        resolve_macro(r, n);
        break;
    case NODE_FILTER_BLOCK:
    case NODE_WITH:
    case NODE_GENERATION:
        resolve_inner(r, n, r->scope);
        break;
    case NODE_BLOCK:
        resolve_inner(r, n, NULL);
        break;
    case NODE_FILTER:
    case NODE_TEST:
        check_known(r, n);
        each_child(r, n, resolve);
        break;
    default:
        each_child(r, n, resolve);
    }
    jinja_leave(r->j);
}

void jscope_run(struct jinja *j, struct node *root)
{
    struct resolver r = {.j = j};
    resolve_inner(&r, root, NULL);
}
