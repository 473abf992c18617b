// SPDX-License-Identifier: Apache-2.0
#include "llm/messages.h"

#include "common/json.h"
#include "llm/params_lists.h"
#include "llm/refusal.h"

#include <string.h>

enum { ARGUMENTS_MAX = 16 << 20 };

static bool is_plain(yyjson_val *message)
{
    return !yyjson_is_arr(json_get(message, "content")) && !json_get(message, "tool_calls") &&
           !json_get(message, "reasoning") && !json_get(message, "reasoning_content");
}

static int check_content(yyjson_val *message, size_t i, struct refusal *why)
{
    char shown[PARAMS_SHOWN];
    yyjson_val *c = json_get(message, "content");
    if (!c || yyjson_is_null(c) || yyjson_is_str(c) || yyjson_is_arr(c))
        return 0;
    return refuse_schema(why, "messages",
                         "messages[%zu].content must be a string or a list of parts, got %s.", i,
                         params_show(c, shown));
}

// The text of one part, or NULL with the refusal.
static yyjson_val *part_text(yyjson_val *part, size_t i, struct refusal *why)
{
    char shown[PARAMS_SHOWN];
    if (yyjson_is_str(part))
        return part;
    yyjson_val *type = yyjson_is_obj(part) ? json_get(part, "type") : NULL;
    yyjson_val *text = yyjson_is_obj(part) ? json_get(part, "text") : NULL;
    bool known = !type || yyjson_equals_str(type, "text") ||
                 yyjson_equals_str(type, "input_text") || yyjson_equals_str(type, "output_text") ||
                 yyjson_equals_str(type, "refusal");
    if (yyjson_equals_str(type, "refusal"))
        text = json_get(part, "refusal");
    if (known && yyjson_is_str(text))
        return text;
    if (known)
        refuse_schema(why, "messages", "a part of messages[%zu].content has no text, but %s.", i,
                      params_show(part, shown));
    else
        refuse_value(why, "messages",
                     "messages[%zu].content has a part of type %s, which is not supported yet; "
                     "only text is.",
                     i, params_show(type, shown));
    return NULL;
}

static yyjson_mut_val *joined(yyjson_mut_doc *to, yyjson_val *parts, size_t i, struct refusal *why)
{
    struct buf text = {0};
    size_t k, n;
    yyjson_val *part;
    yyjson_arr_foreach(parts, k, n, part)
    {
        yyjson_val *piece = part_text(part, i, why);
        if (!piece) {
            buf_finish(&text);
            return NULL;
        }
        buf_put(&text, "\n", k > 0);
        buf_put(&text, yyjson_get_str(piece), yyjson_get_len(piece));
    }
    yyjson_mut_val *v = yyjson_mut_strncpy(to, buf_cstr(&text), buf_len(&text));
    buf_finish(&text);
    return v;
}

static int read_arguments(yyjson_mut_doc *to, yyjson_mut_val *call, size_t i, struct refusal *why)
{
    yyjson_mut_val *function = yyjson_mut_obj_get(call, "function");
    yyjson_mut_val *text = yyjson_mut_obj_get(function, "arguments");
    yyjson_doc *doc = NULL;
    if (!yyjson_mut_is_str(text))
        return 0;
    size_t n = yyjson_mut_get_len(text);
    if (n > 0 && json_parse(yyjson_mut_get_str(text), n, ARGUMENTS_MAX, &doc, NULL) < 0)
        return refuse_value(why, "messages",
                            "the arguments of a tool call in messages[%zu] are not JSON.", i);
    yyjson_mut_val *v =
        doc ? yyjson_val_mut_copy(to, yyjson_doc_get_root(doc)) : yyjson_mut_obj(to);
    yyjson_doc_free(doc);
    yyjson_mut_obj_put(function, yyjson_mut_str(to, "arguments"), v);
    return 0;
}

// reasoning is the name, reasoning_content what older templates know.
static void name_reasoning(yyjson_mut_doc *to, yyjson_mut_val *m)
{
    yyjson_mut_val *a = yyjson_mut_obj_get(m, "reasoning");
    yyjson_mut_val *b = yyjson_mut_obj_get(m, "reasoning_content");
    if (yyjson_mut_is_str(a) && !b)
        yyjson_mut_obj_add_strncpy(to, m, "reasoning_content", yyjson_mut_get_str(a),
                                   yyjson_mut_get_len(a));
    else if (yyjson_mut_is_str(b) && !a)
        yyjson_mut_obj_add_strncpy(to, m, "reasoning", yyjson_mut_get_str(b),
                                   yyjson_mut_get_len(b));
}

static int rewrite(yyjson_mut_doc *to, yyjson_val *message, size_t i, yyjson_mut_val **ret,
                   struct refusal *why)
{
    yyjson_mut_val *m = yyjson_val_mut_copy(to, message);
    yyjson_val *parts = json_get(message, "content");
    size_t k, n;
    yyjson_mut_val *call;
    *ret = m;
    if (yyjson_is_arr(parts)) {
        yyjson_mut_val *content = joined(to, parts, i, why);
        if (!content)
            return -why->status;
        yyjson_mut_obj_put(m, yyjson_mut_str(to, "content"), content);
    }
    name_reasoning(to, m);
    yyjson_mut_val *calls = yyjson_mut_obj_get(m, "tool_calls");
    if (!yyjson_mut_is_arr(calls))
        return 0;
    yyjson_mut_arr_foreach(calls, k, n, call)
    {
        int rc = read_arguments(to, call, i, why);
        if (rc < 0)
            return rc;
    }
    return 0;
}

static int rewrite_all(yyjson_mut_doc *to, yyjson_val *list, yyjson_mut_val *out,
                       struct refusal *why)
{
    size_t i, n;
    yyjson_val *message;
    yyjson_arr_foreach(list, i, n, message)
    {
        yyjson_mut_val *m;
        int rc = rewrite(to, message, i, &m, why);
        if (rc < 0)
            return rc;
        yyjson_mut_arr_append(out, m);
    }
    return 0;
}

// reasoning_effort is a variable of the template, and switches thinking on where a template asks.
static yyjson_mut_val *variables(const struct params *p, yyjson_mut_doc *to)
{
    yyjson_mut_val *v =
        p->template_kwargs ? yyjson_val_mut_copy(to, p->template_kwargs) : yyjson_mut_obj(to);
    struct bytes effort = p->reasoning_effort;
    if (!effort.p)
        return v;
    yyjson_mut_obj_put(v, yyjson_mut_str(to, "reasoning_effort"),
                       yyjson_mut_strncpy(to, effort.p, effort.n));
    if (!yyjson_mut_obj_get(v, "enable_thinking"))
        yyjson_mut_obj_add_bool(to, v, "enable_thinking",
                                !(effort.n == 4 && memcmp(effort.p, "none", 4) == 0));
    return v;
}

int messages_make(const struct params *p, struct messages *ret, struct refusal *why)
{
    size_t i, n;
    yyjson_val *message;
    bool plain = !p->reasoning_effort.p;
    *ret = (struct messages){.list = p->messages, .extra = p->template_kwargs};
    yyjson_arr_foreach(p->messages, i, n, message)
    {
        int rc = check_content(message, i, why);
        if (rc < 0)
            return rc;
        plain = plain && is_plain(message);
    }
    if (plain)
        return 0;
    yyjson_mut_doc *to = yyjson_mut_doc_new(NULL);
    yyjson_mut_val *root = yyjson_mut_obj(to), *list = yyjson_mut_arr(to);
    yyjson_mut_doc_set_root(to, root);
    yyjson_mut_obj_add_val(to, root, "messages", list);
    yyjson_mut_obj_add_val(to, root, "extra", variables(p, to));
    int rc = rewrite_all(to, p->messages, list, why);
    if (rc == 0) {
        ret->doc = yyjson_mut_doc_imut_copy(to, NULL);
        ret->list = json_get(yyjson_doc_get_root(ret->doc), "messages");
        ret->extra = json_get(yyjson_doc_get_root(ret->doc), "extra");
    }
    yyjson_mut_doc_free(to);
    return rc;
}

void messages_finish(struct messages *m)
{
    yyjson_doc_free(m->doc);
    *m = (struct messages){0};
}
