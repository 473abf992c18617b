// SPDX-License-Identifier: Apache-2.0
#include "conf/yaml.h"

#include "base/buf.h"
#include "base/check.h"
#include "conf/app.h"

#include <yaml.h>

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    YAML_KEYS_MAX = 4096,   // keys of one mapping; they are compared one by one
    YAML_KEY_MAX = 128,     // bytes of a key
    YAML_ANCHORS_MAX = 256, // anchors of a file
};

struct anchor {
    const char *name;
    struct yaml_node *node; // NULL while it is still being read
};

struct reader {
    yaml_parser_t parser;
    struct report *report;
    struct arena *arena;
    const char *name, *text;
    size_t len;
    uint32_t nodes;
    size_t bytes;
    struct anchor anchors[YAML_ANCHORS_MAX];
    uint32_t n_anchors;
};

static struct yaml_node *read_document(struct reader *r);
static struct yaml_node *read_node(struct reader *r, const yaml_event_t *ev, unsigned depth);
static void tell_syntax(struct reader *r);

struct yaml_node *yaml_parse(const char *name, const char *p, size_t n, struct report *report)
{
    struct reader *r = arena_alloc(report->arena, sizeof *r);
    uint32_t errors = report->n_errors;

    r->report = report;
    r->arena = report->arena;
    r->name = arena_strdup(r->arena, name);
    r->text = p;
    r->len = n;
    CHECK(yaml_parser_initialize(&r->parser));
    yaml_parser_set_encoding(&r->parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&r->parser, (const unsigned char *)p, n);
    struct yaml_node *root = read_document(r);
    yaml_parser_delete(&r->parser);
    return report->n_errors == errors ? root : NULL;
}

static struct place place_of(const struct reader *r, yaml_mark_t mark)
{
    return (struct place){r->name, (uint32_t)mark.line + 1, (uint32_t)mark.column + 1};
}

// False: the text is no YAML, which the report knows by now.
static bool next(struct reader *r, yaml_event_t *ev)
{
    if (yaml_parser_parse(&r->parser, ev))
        return true;
    tell_syntax(r);
    return false;
}

static struct yaml_node *read_document(struct reader *r)
{
    struct yaml_node *root = NULL;
    bool any = false;

    for (;;) {
        yaml_event_t ev;
        if (!next(r, &ev))
            return NULL;
        yaml_event_type_t type = ev.type;
        struct place at = place_of(r, ev.start_mark);
        if (type == YAML_DOCUMENT_START_EVENT && any)
            report_error(r->report, at,
                         "a second document begins here; a file holds one (remove the '---')");
        bool stop = type == YAML_STREAM_END_EVENT || (type == YAML_DOCUMENT_START_EVENT && any);
        bool value = type != YAML_STREAM_START_EVENT && type != YAML_DOCUMENT_START_EVENT &&
                     type != YAML_DOCUMENT_END_EVENT && !stop;
        if (value)
            root = read_node(r, &ev, 1);
        yaml_event_delete(&ev);
        if (stop)
            break;
        if (value && !root)
            return NULL;
        any = any || value;
    }
    if (!root)
        root = yaml_scalar(r->arena, (struct place){r->name, 1, 1}, "");
    return root;
}

// Counts what a node costs, aliases each time; false when a bound is passed.
static bool charge(struct reader *r, struct place at, size_t bytes)
{
    r->nodes++;
    r->bytes += bytes;
    if (r->nodes <= CONF_NODES_MAX && r->bytes <= YAML_TEXT_MAX)
        return true;
    if (r->nodes > CONF_NODES_MAX)
        report_error(r->report, at,
                     "more than %d values, aliases counted each time they are used: split the file",
                     CONF_NODES_MAX);
    else
        report_error(r->report, at,
                     "more than %d MiB of text, aliases counted each time they are used",
                     YAML_TEXT_MAX >> 20);
    return false;
}

static bool check_depth(struct reader *r, struct place at, unsigned depth)
{
    if (depth <= CONF_DEPTH_MAX)
        return true;
    report_error(r->report, at, "nested deeper than %d levels", CONF_DEPTH_MAX);
    return false;
}

static struct yaml_node *node_new(struct reader *r, enum yaml_kind kind, struct place at,
                                  size_t bytes)
{
    if (!charge(r, at, bytes))
        return NULL;
    struct yaml_node *node = arena_alloc(r->arena, sizeof *node);
    node->kind = kind;
    node->at = at;
    return node;
}

// --- anchors and aliases

// Reserves the anchor's name before its node is read, so that an alias inside of it is noticed.
// Returns its index, -1 without an anchor, -2 when there are too many.
static int anchor_open(struct reader *r, const yaml_char_t *name, struct place at)
{
    if (!name)
        return -1;
    if (r->n_anchors == YAML_ANCHORS_MAX) {
        report_error(r->report, at, "more than %d anchors", YAML_ANCHORS_MAX);
        return -2;
    }
    r->anchors[r->n_anchors].name = arena_strdup(r->arena, (const char *)name);
    return (int)r->n_anchors++;
}

static struct yaml_node *copy_tree(struct reader *r, const struct yaml_node *from, struct place use,
                                   unsigned depth)
{
    if (!check_depth(r, use, depth) || !charge(r, use, from->text ? strlen(from->text) : 0))
        return NULL;
    struct yaml_node *node = arena_alloc(r->arena, sizeof *node);
    *node = *from;
    if (from->kind == YAML_SEQ && from->n)
        node->items = arena_alloc(r->arena, from->n * sizeof *node->items);
    if (from->kind == YAML_MAP && from->n)
        node->pairs = arena_alloc(r->arena, from->n * sizeof *node->pairs);
    for (uint32_t i = 0; i < from->n; i++) {
        struct yaml_node **slot = from->kind == YAML_SEQ ? &node->items[i] : NULL;
        if (!slot) {
            node->pairs[i] = from->pairs[i];
            slot = &node->pairs[i].value;
        }
        const struct yaml_node *child =
            from->kind == YAML_SEQ ? from->items[i] : from->pairs[i].value;
        *slot = copy_tree(r, child, use, depth + 1);
        if (!*slot)
            return NULL;
    }
    return node;
}

static struct yaml_node *read_alias(struct reader *r, const yaml_event_t *ev, unsigned depth)
{
    const char *name = (const char *)ev->data.alias.anchor;
    struct place at = place_of(r, ev->start_mark);

    for (uint32_t i = r->n_anchors; i-- > 0;) {
        if (strcmp(r->anchors[i].name, name) != 0)
            continue;
        if (r->anchors[i].node)
            return copy_tree(r, r->anchors[i].node, at, depth);
        report_error(r->report, at, "alias '*%s' stands inside of what it names", name);
        return NULL;
    }
    report_error(r->report, at, "alias '*%s' names no anchor: no '&%s' stands above", name, name);
    return NULL;
}

// --- scalars

static const char *skip_digits(const char *c, const char *digits)
{
    return c + strspn(c, digits);
}

static bool type_whole(struct yaml_node *node)
{
    const char *t = node->text, *digits = t + (*t == '-' || *t == '+');
    int base = 10;
    const char *set = "0123456789";

    if (t[0] == '0' && (t[1] == 'x' || t[1] == 'o')) {
        base = t[1] == 'x' ? 16 : 8;
        set = t[1] == 'x' ? "0123456789abcdefABCDEF" : "01234567";
        digits = t + 2;
    }
    if (!*digits || *skip_digits(digits, set))
        return false;
    errno = 0;
    long long v = base == 10 ? strtoll(t, NULL, 10) : strtoll(digits, NULL, base);
    if (errno == ERANGE) {
        node->kind = YAML_NUM;
        node->number = base == 10 ? strtod(t, NULL) : (double)INFINITY;
        return true;
    }
    node->kind = YAML_INT;
    node->whole = v;
    return true;
}

static bool type_number(struct yaml_node *node)
{
    const char *t = node->text, *c = t + (*t == '-' || *t == '+');
    static const char *const inf[] = {".inf", ".Inf", ".INF"}, *const nan[] = {".nan", ".NaN",
                                                                               ".NAN"};

    node->kind = YAML_NUM;
    for (size_t i = 0; i < ARRAY_LEN(inf); i++) {
        node->number = *t == '-' ? -(double)INFINITY : (double)INFINITY;
        if (strcmp(c, inf[i]) == 0)
            return true;
        node->number = (double)NAN;
        if (strcmp(t, nan[i]) == 0)
            return true;
    }
    const char *digits = "0123456789", *whole = skip_digits(c, digits), *end = whole;
    if (*end == '.')
        end = skip_digits(end + 1, digits);
    if (end == c || (whole == c && end == c + 1)) // no digit at all
        return false;
    if (*end == 'e' || *end == 'E') {
        const char *power = end + 1 + (end[1] == '-' || end[1] == '+');
        end = skip_digits(power, digits);
        if (end == power)
            return false;
    }
    node->number = strtod(t, NULL);
    return !*end;
}

static bool one_of(const char *text, const char *const *names, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(text, names[i]) == 0)
            return true;
    return false;
}

void yaml_retype(struct yaml_node *node)
{
    static const char *const null[] = {"", "~", "null", "Null", "NULL"},
                             *const yes[] = {"true", "True", "TRUE"},
                             *const no[] = {"false", "False", "FALSE"};

    if (one_of(node->text, null, ARRAY_LEN(null))) {
        node->kind = YAML_NULL;
    } else if (one_of(node->text, yes, ARRAY_LEN(yes)) || one_of(node->text, no, ARRAY_LEN(no))) {
        node->kind = YAML_BOOL;
        node->boolean = *node->text == 't' || *node->text == 'T';
    } else if (!type_whole(node) && !type_number(node)) {
        node->kind = YAML_TEXT;
    }
}

// Obeys an explicit tag; false when it is unknown or does not fit.
static bool apply_tag(struct reader *r, struct yaml_node *node, const char *tag)
{
    static const struct {
        const char *tag;
        enum yaml_kind kind;
    } tags[] = {{YAML_NULL_TAG, YAML_NULL}, {YAML_BOOL_TAG, YAML_BOOL}, {YAML_INT_TAG, YAML_INT},
                {YAML_FLOAT_TAG, YAML_NUM}, {YAML_STR_TAG, YAML_TEXT},  {YAML_SEQ_TAG, YAML_SEQ},
                {YAML_MAP_TAG, YAML_MAP}};

    if (strcmp(tag, "!") == 0) // "not resolved": a text, or the collection it is
        return true;
    for (size_t i = 0; i < ARRAY_LEN(tags); i++) {
        if (strcmp(tag, tags[i].tag) != 0)
            continue;
        bool scalar = node->kind != YAML_SEQ && node->kind != YAML_MAP;
        if (scalar && tags[i].kind != YAML_TEXT && tags[i].kind < YAML_SEQ)
            yaml_retype(node);
        if (node->kind == YAML_INT && tags[i].kind == YAML_NUM) {
            node->kind = YAML_NUM;
            node->number = (double)node->whole;
        }
        if (node->kind == tags[i].kind)
            return true;
        report_error(r->report, node->at, "tag '!!%s' does not fit %s", strrchr(tag, ':') + 1,
                     yaml_kind_text(node));
        return false;
    }
    report_error(r->report, node->at, "tag '%s' means nothing here: remove it", tag);
    return false;
}

static struct yaml_node *read_scalar(struct reader *r, const yaml_event_t *ev)
{
    const char *text = (const char *)ev->data.scalar.value;
    size_t len = ev->data.scalar.length;
    struct place at = place_of(r, ev->start_mark);
    struct yaml_node *node = node_new(r, YAML_TEXT, at, len);

    if (!node)
        return NULL;
    if (memchr(text, '\0', len)) {
        report_error(r->report, at, "a text must not hold a NUL character (\\0)");
        return NULL;
    }
    node->text = arena_strndup(r->arena, text, len);
    node->plain = ev->data.scalar.plain_implicit;
    if (node->plain)
        yaml_retype(node);
    const char *tag = (const char *)ev->data.scalar.tag;
    if (tag && !apply_tag(r, node, tag))
        return NULL;
    return node;
}

// --- collections

// Room for one more element of `size` bytes in an array that doubles on the arena.
static void *grow(struct arena *arena, void *array, uint32_t n, size_t size)
{
    if (n & (n - 1)) // not at a power of two: there is room
        return array;
    void *bigger = arena_alloc(arena, (n ? 2 * (size_t)n : 1) * size);
    if (n)
        memcpy(bigger, array, n * size);
    return bigger;
}

static struct yaml_node *read_seq(struct reader *r, struct yaml_node *seq, unsigned depth)
{
    for (;;) {
        yaml_event_t ev;
        if (!next(r, &ev))
            return NULL;
        bool end = ev.type == YAML_SEQUENCE_END_EVENT;
        struct yaml_node *item = end ? NULL : read_node(r, &ev, depth + 1);
        yaml_event_delete(&ev);
        if (end)
            return seq;
        if (!item)
            return NULL;
        seq->items = grow(r->arena, seq->items, seq->n, sizeof *seq->items);
        seq->items[seq->n++] = item;
    }
}

static void add_pair(struct arena *arena, struct yaml_node *map, struct yaml_pair pair)
{
    map->pairs = grow(arena, map->pairs, map->n, sizeof *map->pairs);
    map->pairs[map->n++] = pair;
}

// `<<: *base` or `<<: [*a, *b]`: keys of the bases that the mapping itself lacks.
static bool merge_bases(struct reader *r, struct yaml_node *map, const struct yaml_node *bases)
{
    uint32_t n = bases->kind == YAML_SEQ ? bases->n : 1;

    for (uint32_t i = 0; i < n; i++) {
        const struct yaml_node *base = bases->kind == YAML_SEQ ? bases->items[i] : bases;
        if (base->kind != YAML_MAP) {
            report_error(r->report, base->at, "'<<' takes a mapping or a list of them, not %s",
                         yaml_kind_text(base));
            return false;
        }
        for (uint32_t k = 0; k < base->n && map->n < YAML_KEYS_MAX; k++)
            if (!yaml_get(map, base->pairs[k].key))
                add_pair(r->arena, map, base->pairs[k]);
    }
    return true;
}

static bool check_key(struct reader *r, const struct yaml_node *map, const struct yaml_node *key)
{
    const struct yaml_pair *first = yaml_pair(map, key->text);

    if (first)
        report_error(r->report, key->at,
                     "'%s' stands here twice; the first is at line %u, column "
                     "%u",
                     key->text, first->at.line, first->at.column);
    if (strlen(key->text) > YAML_KEY_MAX) {
        report_error(r->report, key->at, "a key of %zu bytes; at most %d are taken",
                     strlen(key->text), YAML_KEY_MAX);
        return false;
    }
    if (map->n < YAML_KEYS_MAX)
        return true;
    report_error(r->report, key->at, "more than %d keys in one mapping", YAML_KEYS_MAX);
    return false;
}

static struct yaml_node *read_key(struct reader *r, const yaml_event_t *ev)
{
    if (ev->type == YAML_SCALAR_EVENT)
        return read_scalar(r, ev);
    report_error(r->report, place_of(r, ev->start_mark),
                 "a key must be a plain text, not a list, a mapping or an alias%s",
                 ev->type == YAML_MAPPING_START_EVENT
                     ? " (inside of { }, write ${NAME} in quotes: \"${NAME}\")"
                     : "");
    return NULL;
}

static struct yaml_node *read_map(struct reader *r, struct yaml_node *map, unsigned depth)
{
    struct yaml_node *bases = NULL;

    for (;;) {
        yaml_event_t ev;
        if (!next(r, &ev))
            return NULL;
        bool end = ev.type == YAML_MAPPING_END_EVENT;
        struct yaml_node *key = end ? NULL : read_key(r, &ev);
        yaml_event_delete(&ev);
        if (end)
            break;
        if (!key || !check_key(r, map, key) || !next(r, &ev))
            return NULL;
        struct yaml_node *value = read_node(r, &ev, depth + 1);
        yaml_event_delete(&ev);
        if (!value)
            return NULL;
        if (key->plain && strcmp(key->text, "<<") == 0)
            bases = value;
        else
            add_pair(r->arena, map, (struct yaml_pair){key->text, key->at, value});
    }
    return !bases || merge_bases(r, map, bases) ? map : NULL;
}

static struct yaml_node *read_collection(struct reader *r, const yaml_event_t *ev, unsigned depth)
{
    bool seq = ev->type == YAML_SEQUENCE_START_EVENT;
    struct place at = place_of(r, ev->start_mark);
    const yaml_char_t *tag = seq ? ev->data.sequence_start.tag : ev->data.mapping_start.tag;

    if (!check_depth(r, at, depth))
        return NULL;
    struct yaml_node *node = node_new(r, seq ? YAML_SEQ : YAML_MAP, at, 0);
    if (!node || (tag && !apply_tag(r, node, (const char *)tag)))
        return NULL;
    return seq ? read_seq(r, node, depth) : read_map(r, node, depth);
}

static struct yaml_node *read_node(struct reader *r, const yaml_event_t *ev, unsigned depth)
{
    if (ev->type == YAML_ALIAS_EVENT)
        return read_alias(r, ev, depth);
    bool scalar = ev->type == YAML_SCALAR_EVENT;
    const yaml_char_t *name = scalar ? ev->data.scalar.anchor
                              : ev->type == YAML_SEQUENCE_START_EVENT
                                  ? ev->data.sequence_start.anchor
                                  : ev->data.mapping_start.anchor;
    int anchor = anchor_open(r, name, place_of(r, ev->start_mark));
    if (anchor == -2)
        return NULL;
    struct yaml_node *node = scalar ? read_scalar(r, ev) : read_collection(r, ev, depth);
    if (anchor >= 0)
        r->anchors[anchor].node = node;
    return node;
}

// --- what libyaml says, in words that say what to do

static const struct saying {
    const char *problem; // libyaml's
    const char *text;    // ours
    enum {
        HERE,
        SINCE,
        BEGIN
    } where; // the place; with "... begins at line L, column C" behind;
             // or where the thing began that is wrong
} sayings[] = {
    {"mapping values are not allowed in this context",
     "a ':' stands where no key can be: is a line above indented wrongly, or does a text with "
     "': ' in it lack quotes?",
     HERE},
    {"did not find expected key",
     "a key was expected here: is this line indented like its neighbours? The mapping", SINCE},
    {"did not find expected '-' indicator",
     "'- ' was expected here: is this line indented like the other entries? The list", SINCE},
    {"did not find expected ',' or ']'",
     "',' or ']' was expected here, or a text needs quotes. The list", SINCE},
    {"did not find expected ',' or '}'",
     "',' or '}' was expected here, or a text needs quotes. The mapping", SINCE},
    {"found unexpected end of stream", "the quotes that begin here are never closed", BEGIN},
    {"could not find expected ':'", "a ':' is missing behind this key", BEGIN},
    {"found unknown escape character",
     "an unknown escape: in double quotes a backslash is written '\\\\'; single quotes take it as "
     "it is",
     HERE},
    {"block sequence entries are not allowed in this context",
     "a list cannot begin here: put '- ' on a line of its own below the key", HERE},
};

static struct place place_of_offset(const struct reader *r, size_t offset)
{
    struct place at = {r->name, 1, 1};

    for (size_t i = 0; i < offset && i < r->len; i++) {
        at.column++;
        if (r->text[i] == '\n') {
            at.line++;
            at.column = 1;
        }
    }
    return at;
}

static void tell_character(struct reader *r, struct place at, size_t index)
{
    char c = index < r->len ? r->text[index] : ' ';

    if (c == '\t')
        report_error(r->report, at, "a tab stands here; YAML indents with spaces alone");
    else
        report_error(r->report, at, "a text cannot begin with '%c': put it in quotes", c);
}

// Whether a fault is at the '{' of a "${".
static bool is_reference(const struct reader *r, size_t index)
{
    return index > 0 && index < r->len && memcmp(r->text + index - 1, "${", 2) == 0;
}

static void tell_syntax(struct reader *r)
{
    const yaml_parser_t *p = &r->parser;
    struct place at = place_of(r, p->problem_mark), from = place_of(r, p->context_mark);
    const char *problem = p->problem ? p->problem : "no memory";

    if (p->error == YAML_READER_ERROR) {
        report_error(r->report, place_of_offset(r, p->problem_offset),
                     "not UTF-8 text, or a control character (%s)", problem);
        return;
    }
    if (strcmp(problem, "found character that cannot start any token") == 0) {
        tell_character(r, at, p->problem_mark.index);
        return;
    }
    if (strstr(problem, "'}'") && is_reference(r, p->problem_mark.index)) {
        report_error(r->report, at, "inside of { } and [ ] a reference needs quotes: \"${NAME}\"");
        return;
    }
    for (size_t i = 0; i < ARRAY_LEN(sayings); i++) {
        if (strcmp(problem, sayings[i].problem) != 0)
            continue;
        if (sayings[i].where == SINCE)
            report_error(r->report, at, "%s begins at line %u, column %u", sayings[i].text,
                         from.line, from.column);
        else
            report_error(r->report, sayings[i].where == BEGIN ? from : at, "%s", sayings[i].text);
        return;
    }
    report_error(r->report, at, "not YAML: %s", problem);
}

// --- trees

struct yaml_node *yaml_scalar(struct arena *arena, struct place at, const char *text)
{
    struct yaml_node *node = arena_alloc(arena, sizeof *node);

    node->at = at;
    node->plain = true;
    node->text = arena_strdup(arena, text);
    yaml_retype(node);
    return node;
}

struct yaml_node *yaml_map(struct arena *arena, struct place at, uint32_t n_max)
{
    struct yaml_node *node = arena_alloc(arena, sizeof *node);

    node->kind = YAML_MAP;
    node->at = at;
    node->pairs = arena_alloc(arena, (n_max + 1) * sizeof *node->pairs);
    return node;
}

void yaml_add(struct yaml_node *map, const char *key, struct yaml_node *value)
{
    map->pairs[map->n++] = (struct yaml_pair){key, value->at, value};
}

const struct yaml_pair *yaml_pair(const struct yaml_node *map, const char *key)
{
    if (!map || map->kind != YAML_MAP)
        return NULL;
    for (uint32_t i = 0; i < map->n; i++)
        if (strcmp(map->pairs[i].key, key) == 0)
            return &map->pairs[i];
    return NULL;
}

struct yaml_node *yaml_get(const struct yaml_node *map, const char *key)
{
    const struct yaml_pair *pair = yaml_pair(map, key);
    return pair ? pair->value : NULL;
}

struct yaml_node *yaml_merge(struct arena *arena, struct yaml_node *base, struct yaml_node *over)
{
    if (!base || !over)
        return base ? base : over;
    if (base->kind != YAML_MAP || over->kind != YAML_MAP)
        return over;
    struct yaml_node *out = yaml_map(arena, base->at, base->n + over->n);
    for (uint32_t i = 0; i < base->n; i++) {
        struct yaml_pair pair = base->pairs[i];
        const struct yaml_pair *wins = yaml_pair(over, pair.key);
        if (wins) {
            pair.at = wins->at;
            pair.value = yaml_merge(arena, pair.value, wins->value);
        }
        out->pairs[out->n++] = pair;
    }
    for (uint32_t i = 0; i < over->n; i++)
        if (!yaml_get(base, over->pairs[i].key))
            out->pairs[out->n++] = over->pairs[i];
    return out;
}

const char *yaml_kind_text(const struct yaml_node *node)
{
    static const char *const texts[] = {
        [YAML_NULL] = "an empty value", [YAML_BOOL] = "true or false",
        [YAML_INT] = "a whole number",  [YAML_NUM] = "a number",
        [YAML_TEXT] = "a text",         [YAML_SEQ] = "a list",
        [YAML_MAP] = "a mapping",
    };
    return texts[node->kind];
}
