// SPDX-License-Identifier: Apache-2.0
/*
 * Names, ranges and sentences are vLLM's: entrypoints/openai/{completion,chat_completion}/
 * protocol.py and sampling_params.py.
 */
#include "llm/params.h"

#include "base/check.h"
#include "base/err.h"
#include "common/json.h"
#include "llm/params_lists.h"
#include "llm/refusal.h"

#include <math.h>
#include <string.h>

typedef struct params_reader reader;

enum kind {
    K_BOOL,
    K_INT,
    K_NUM,
    K_TEXT,   // struct bytes, of doc
    K_KEPT,   // struct bytes, copied to the arena
    K_OBJECT, // yyjson_val *, of doc
    K_IDS,    // struct id_list, within the vocabulary
    K_READ,   // by a function of its own
    K_FALSE,  // false is served, true is not
    K_NOT_YET,
    K_CHECKED // its type is checked, then it is ignored as vLLM does
};

struct field {
    const char *name;
    uint32_t at; // endpoints
    enum kind kind;
    size_t offset;
    enum kind type;       // K_CHECKED: of what kind
    double min, max;      // both 0: any
    const char *interval; // as the refusal writes it; begins with '(': min is outside
    int (*read)(reader *, yyjson_val *);
};

enum {
    K = AT_COMPLETIONS,
    C = AT_CHAT,
    B = AT_COMPLETIONS | AT_CHAT,
    T = AT_TOKENIZE,
    M = AT_CHAT | AT_TOKENIZE // whoever has messages
};

#define AT(member) .offset = offsetof(struct params, member)
#define NOWHERE    .offset = 0

static int read_bad_words(reader *r, yyjson_val *v);
static int read_best_of(reader *r, yyjson_val *v);
static int read_documents(reader *r, yyjson_val *v);
static int read_logprobs(reader *r, yyjson_val *v);
static int read_messages(reader *r, yyjson_val *v);
static int read_modalities(reader *r, yyjson_val *v);
static int read_prompt(reader *r, yyjson_val *v);
static int read_reasoning_effort(reader *r, yyjson_val *v);
static int read_response_format(reader *r, yyjson_val *v);
static int read_stream_interval(reader *r, yyjson_val *v);
static int read_stream_options(reader *r, yyjson_val *v);
static int read_thinking(reader *r, yyjson_val *v);
static int read_tool_choice(reader *r, yyjson_val *v);
static int read_tools(reader *r, yyjson_val *v);
static int read_truncation_side(reader *r, yyjson_val *v);

// Sorted by name: it is searched by halves, and read in this order.
// clang-format off
static const struct field fields[] = {
    {"add_generation_prompt", M, K_BOOL, AT(add_generation_prompt)},
    {"add_special_tokens", B | T, K_BOOL, AT(add_special_tokens)},
    {"allowed_token_ids", B, K_IDS, AT(allowed)},
    {"audio", C, K_NOT_YET, NOWHERE},
    {"bad_words", B, K_READ, .read = read_bad_words},
    {"best_of", B, K_READ, .read = read_best_of},
    {"cache_salt", B, K_KEPT, AT(cache_salt)},
    {"chat_template", M, K_TEXT, AT(chat_template)},
    {"chat_template_kwargs", M, K_OBJECT, AT(template_kwargs)},
    {"continue_final_message", M, K_BOOL, AT(continue_final_message)},
    {"documents", C, K_READ, .read = read_documents},
    {"ec_transfer_params", B, K_NOT_YET, NOWHERE},
    {"echo", B, K_BOOL, AT(echo)},
    {"frequency_penalty", B, K_NUM, AT(frequency_penalty), .min = -2, .max = 2, .interval = "[-2, 2]"},
    {"function_call", C, K_NOT_YET, NOWHERE},
    {"functions", C, K_NOT_YET, NOWHERE},
    {"guided_choice", B, K_NOT_YET, NOWHERE},
    {"guided_decoding_backend", B, K_NOT_YET, NOWHERE},
    {"guided_grammar", B, K_NOT_YET, NOWHERE},
    {"guided_json", B, K_NOT_YET, NOWHERE},
    {"guided_regex", B, K_NOT_YET, NOWHERE},
    {"guided_whitespace_pattern", B, K_NOT_YET, NOWHERE},
    {"ignore_eos", B, K_BOOL, AT(ignore_eos)},
    {"include_reasoning", C, K_CHECKED, .type = K_BOOL},
    {"include_stop_str_in_output", B, K_BOOL, AT(include_stop)},
    {"kv_transfer_params", B, K_NOT_YET, NOWHERE},
    {"length_penalty", B, K_CHECKED, .type = K_NUM},
    {"logit_bias", B, K_READ, .read = params_read_bias},
    {"logprob_token_ids", B, K_NOT_YET, NOWHERE},
    {"logprobs", B, K_READ, .read = read_logprobs},
    {"max_completion_tokens", C, K_INT, AT(max_tokens), .min = 1, .max = INT32_MAX, .interval = "[1, 2147483647]"},
    {"max_tokens", B, K_INT, AT(max_tokens), .min = 0, .max = INT32_MAX, .interval = "[0, 2147483647]"},
    {"media_io_kwargs", C, K_NOT_YET, NOWHERE},
    {"messages", M, K_READ, .read = read_messages},
    {"min_p", B, K_NUM, AT(min_p), .min = 0, .max = 1, .interval = "[0, 1]"},
    {"min_tokens", B, K_INT, AT(min_tokens), .min = 0, .max = INT32_MAX, .interval = "[0, 2147483647]"},
    {"mm_processor_kwargs", C, K_NOT_YET, NOWHERE},
    {"modalities", C, K_READ, .read = read_modalities},
    {"model", B | T | AT_DETOKENIZE, K_TEXT, AT(model)},
    {"n", B, K_INT, AT(n), .min = 1, .max = PARAMS_N_MAX, .interval = "[1, 16384]"},
    {"parallel_tool_calls", C, K_CHECKED, .type = K_BOOL},
    {"presence_penalty", B, K_NUM, AT(presence_penalty), .min = -2, .max = 2, .interval = "[-2, 2]"},
    {"priority", B, K_INT, AT(priority)},
    {"prompt", K | T, K_READ, .read = read_prompt},
    {"prompt_embeds", K, K_NOT_YET, NOWHERE},
    {"prompt_logprobs", B, K_INT, AT(prompt_logprobs), .min = -1, .max = INT32_MAX, .interval = "[0, 2147483647], or -1 for all"},
    {"reasoning_effort", C, K_READ, .read = read_reasoning_effort},
    {"repetition_detection", B, K_NOT_YET, NOWHERE},
    {"repetition_penalty", B, K_NUM, AT(repetition_penalty), .min = 0, .max = 1e30, .interval = "(0, 1e30]"},
    {"request_id", B, K_KEPT, AT(request_id)},
    {"response_format", B, K_READ, .read = read_response_format},
    {"return_prompt_text", C, K_FALSE, NOWHERE},
    {"return_token_ids", B, K_BOOL, AT(return_token_ids)},
    {"return_token_strs", T, K_BOOL, AT(return_token_strs)},
    {"return_tokens_as_token_ids", B, K_BOOL, AT(tokens_as_ids)},
    {"seed", B, K_INT, AT(seed)},
    {"skip_special_tokens", B, K_BOOL, AT(skip_special)},
    {"spaces_between_special_tokens", B, K_CHECKED, .type = K_BOOL},
    {"stop", B, K_READ, .read = params_read_stop},
    {"stop_token_ids", B, K_IDS, AT(stop_ids)},
    {"stream", B, K_BOOL, AT(stream)},
    {"stream_interval", B, K_READ, .read = read_stream_interval},
    {"stream_options", B, K_READ, .read = read_stream_options},
    {"structured_outputs", B, K_NOT_YET, NOWHERE},
    {"suffix", K, K_NOT_YET, NOWHERE},
    {"temperature", B, K_NUM, AT(temperature), .min = 0, .max = 2, .interval = "[0, 2]"},
    {"thinking_token_budget", B, K_READ, .read = read_thinking},
    {"tokens", AT_DETOKENIZE, K_IDS, AT(tokens)},
    {"tool_choice", C, K_READ, .read = read_tool_choice},
    {"tools", M, K_READ, .read = read_tools},
    {"top_k", B, K_INT, AT(top_k), .min = -1, .max = INT32_MAX, .interval = "[0, 2147483647], or -1 for off"},
    {"top_logprobs", C, K_INT, AT(logprobs), .min = -1, .max = INT32_MAX, .interval = "[0, 2147483647], or -1 for all"},
    {"top_p", B, K_NUM, AT(top_p), .min = 0, .max = 1, .interval = "(0, 1]"},
    {"truncate_prompt_tokens", B | T, K_INT, AT(truncate), .min = -1, .max = INT32_MAX, .interval = "[-1, 2147483647]"},
    {"truncation_side", B | T, K_READ, .read = read_truncation_side},
    {"use_beam_search", B, K_FALSE, NOWHERE},
    {"vllm_xargs", B, K_NOT_YET, NOWHERE},
    {"watermarking", B, K_FALSE, NOWHERE},
};
// clang-format on

static const struct field *find(const char *name, size_t n)
{
    size_t low = 0, high = ARRAY_LEN(fields);
    while (low < high) {
        size_t mid = (low + high) / 2, len = strlen(fields[mid].name);
        int order = memcmp(name, fields[mid].name, n < len ? n : len);
        if (order == 0 && n == len)
            return &fields[mid];
        if (order < 0 || (order == 0 && n < len))
            high = mid;
        else
            low = mid + 1;
    }
    return NULL;
}

/* ---- one field ---- */

static int in_range(reader *r, const struct field *f, double x, const char *shown)
{
    bool open = f->interval && f->interval[0] == '(';
    if ((f->min == 0 && f->max == 0) || (x <= f->max && (open ? x > f->min : x >= f->min)))
        return 0;
    return refuse_value(r->why, f->name, "%s must be in %s, got %s.", f->name, f->interval, shown);
}

static int read_int(reader *r, const struct field *f, yyjson_val *v, int64_t *ret)
{
    char shown[PARAMS_SHOWN];
    int64_t x;
    if (!params_int(v, &x))
        return refuse_schema(r->why, f->name, "`%s` must be an integer, got %s.", f->name,
                             params_show(v, shown));
    int rc = in_range(r, f, (double)x, params_show(v, shown));
    if (rc == 0)
        *ret = x;
    return rc;
}

static int read_num(reader *r, const struct field *f, yyjson_val *v, double *ret)
{
    char shown[PARAMS_SHOWN];
    if (!yyjson_is_num(v))
        return refuse_schema(r->why, f->name, "`%s` must be a number, got %s.", f->name,
                             params_show(v, shown));
    double x = yyjson_get_num(v);
    int rc = in_range(r, f, x, params_show(v, shown));
    if (rc == 0)
        *ret = x;
    return rc;
}

static int read_bool(reader *r, const struct field *f, yyjson_val *v, bool *ret)
{
    char shown[PARAMS_SHOWN];
    if (!yyjson_is_bool(v))
        return refuse_schema(r->why, f->name, "`%s` must be true or false, got %s.", f->name,
                             params_show(v, shown));
    *ret = yyjson_get_bool(v);
    return 0;
}

static int read_text(reader *r, const struct field *f, yyjson_val *v, struct bytes *ret)
{
    char shown[PARAMS_SHOWN];
    if (!yyjson_is_str(v))
        return refuse_schema(r->why, f->name, "`%s` must be a string, got %s.", f->name,
                             params_show(v, shown));
    *ret = (struct bytes){yyjson_get_str(v), yyjson_get_len(v)};
    return 0;
}

static int read_kept(reader *r, const struct field *f, yyjson_val *v, struct bytes *ret)
{
    struct bytes text = {0};
    int rc = read_text(r, f, v, &text);
    if (rc < 0)
        return rc;
    if (text.n == 0 || text.n > PARAMS_SALT_MAX)
        return refuse_schema(r->why, f->name,
                             "Parameter '%s' must be a non-empty string of at most %d bytes if "
                             "provided, got %zu.",
                             f->name, PARAMS_SALT_MAX, text.n);
    char *copy = arena_alloc(&r->p->arena, text.n + 1);
    memcpy(copy, text.p, text.n);
    *ret = (struct bytes){copy, text.n};
    return 0;
}

static int not_yet(reader *r, const char *name)
{
    return refuse_value(r->why, name, "`%s` is not supported yet; leave it out.", name);
}

static int read_checked(reader *r, const struct field *f, yyjson_val *v)
{
    double number;
    bool flag;
    return f->type == K_NUM ? read_num(r, f, v, &number) : read_bool(r, f, v, &flag);
}

static int read_field(reader *r, const struct field *f, yyjson_val *v)
{
    char shown[PARAMS_SHOWN];
    void *to = (char *)r->p + f->offset;
    bool flag = false;
    int rc;
    switch (f->kind) {
    case K_BOOL:
        return read_bool(r, f, v, to);
    case K_INT:
        return read_int(r, f, v, to);
    case K_NUM:
        return read_num(r, f, v, to);
    case K_TEXT:
        return read_text(r, f, v, to);
    case K_KEPT:
        return read_kept(r, f, v, to);
    case K_OBJECT:
        if (!yyjson_is_obj(v))
            return refuse_schema(r->why, f->name, "`%s` must be an object, got %s.", f->name,
                                 params_show(v, shown));
        *(yyjson_val **)to = v;
        return 0;
    case K_IDS:
        return params_read_ids(r, f->name, v, to);
    case K_READ:
        return f->read(r, v);
    case K_FALSE:
        rc = read_bool(r, f, v, &flag);
        return rc == 0 && flag ? not_yet(r, f->name) : rc;
    case K_NOT_YET:
        return not_yet(r, f->name);
    case K_CHECKED:
        return read_checked(r, f, v);
    }
    BUG("field %s has kind %d", f->name, f->kind);
}

/* ---- fields with rules of their own ---- */

static int read_bad_words(reader *r, yyjson_val *v)
{
    char shown[PARAMS_SHOWN];
    size_t i, n;
    yyjson_val *word;
    if (!yyjson_is_arr(v))
        return refuse_schema(r->why, "bad_words", "`bad_words` must be a list of strings, got %s.",
                             params_show(v, shown));
    if (yyjson_arr_size(v) > PARAMS_BAD_WORDS)
        return refuse_value(r->why, "bad_words", "%zu bad words; at most %d are taken.",
                            yyjson_arr_size(v), PARAMS_BAD_WORDS);
    yyjson_arr_foreach(v, i, n, word)
    {
        if (!yyjson_is_str(word))
            return refuse_schema(r->why, "bad_words",
                                 "`bad_words` must be a list of strings, got %s at place %zu.",
                                 params_show(word, shown), i);
        if (yyjson_get_len(word) == 0)
            return refuse_value(r->why, "bad_words", "bad_words cannot contain an empty string.");
    }
    r->p->bad_words = v;
    return 0;
}

static int read_best_of(reader *r, yyjson_val *v)
{
    int64_t x;
    return params_int(v, &x) && x == 1 ? 0 : not_yet(r, "best_of");
}

static int read_documents(reader *r, yyjson_val *v)
{
    char shown[PARAMS_SHOWN];
    size_t i, n;
    yyjson_val *d;
    bool good = yyjson_is_arr(v);
    yyjson_arr_foreach(v, i, n, d) good = good && yyjson_is_obj(d);
    if (!good)
        return refuse_schema(r->why, "documents", "`documents` must be a list of objects, got %s.",
                             params_show(v, shown));
    r->p->documents = v;
    return 0;
}

static int read_logprobs(reader *r, yyjson_val *v)
{
    static const struct field flag = {"logprobs", .kind = K_BOOL};
    static const struct field number = {"logprobs", .min = -1, .max = INT32_MAX,
                                        .interval = "[0, 2147483647], or -1 for all"};
    if (r->p->endpoint == AT_CHAT)
        return read_bool(r, &flag, v, &r->wants_logprobs);
    r->wants_logprobs = true;
    return read_int(r, &number, v, &r->p->logprobs);
}

static int read_messages(reader *r, yyjson_val *v)
{
    char shown[PARAMS_SHOWN];
    size_t i, n;
    yyjson_val *m;
    if (!yyjson_is_arr(v) || yyjson_arr_size(v) == 0)
        return refuse_schema(r->why, "messages",
                             "`messages` must be a list of at least one message, got %s.",
                             params_show(v, shown));
    yyjson_arr_foreach(v, i, n, m)
    {
        if (!yyjson_is_obj(m))
            return refuse_schema(r->why, "messages", "messages[%zu] must be an object, got %s.", i,
                                 params_show(m, shown));
        if (!yyjson_is_str(json_get(m, "role")))
            return refuse_schema(r->why, "messages", "messages[%zu].role must be a string, got %s.",
                                 i, params_show(json_get(m, "role"), shown));
    }
    r->p->messages = v;
    return 0;
}

static int read_modalities(reader *r, yyjson_val *v)
{
    bool text = yyjson_is_arr(v) && yyjson_arr_size(v) == 1 &&
                yyjson_equals_str(yyjson_arr_get(v, 0), "text");
    return text ? 0 : refuse_value(r->why, "modalities", "only [\"text\"] is supported yet.");
}

static int read_prompt(reader *r, yyjson_val *v)
{
    if (r->p->endpoint == AT_TOKENIZE && !yyjson_is_str(v)) {
        char shown[PARAMS_SHOWN];
        return refuse_schema(r->why, "prompt", "`prompt` must be a string, got %s.",
                             params_show(v, shown));
    }
    r->p->prompt = v;
    return params_check_prompt(r, v);
}

static bool one_of(yyjson_val *v, const char *const *names)
{
    for (; *names; names++)
        if (yyjson_equals_str(v, *names))
            return true;
    return false;
}

static int read_reasoning_effort(reader *r, yyjson_val *v)
{
    static const char *const known[] = {"none", "minimal", "low", "medium",
                                        "high", "xhigh",   "max", NULL};
    char shown[PARAMS_SHOWN];
    if (!one_of(v, known))
        return refuse_schema(r->why, "reasoning_effort",
                             "`reasoning_effort` must be one of none, minimal, low, medium, high, "
                             "xhigh and max, got %s.",
                             params_show(v, shown));
    r->p->reasoning_effort = (struct bytes){yyjson_get_str(v), yyjson_get_len(v)};
    return 0;
}

static int read_response_format(reader *r, yyjson_val *v)
{
    static const char *const known[] = {"json_object", "json_schema", "structural_tag", NULL};
    char shown[PARAMS_SHOWN];
    yyjson_val *type = yyjson_is_obj(v) ? json_get(v, "type") : NULL;
    if (yyjson_equals_str(type, "text"))
        return 0;
    if (one_of(type, known))
        return refuse_value(r->why, "response_format",
                            "response_format of type %s is not supported yet; only text is.",
                            params_show(type, shown));
    return refuse_schema(r->why, "response_format",
                         "`response_format` must be an object whose `type` is text, json_object, "
                         "json_schema or structural_tag, got %s.",
                         params_show(yyjson_is_obj(v) ? type : v, shown));
}

static int read_stream_interval(reader *r, yyjson_val *v)
{
    int64_t x;
    return params_int(v, &x) && x == 1 ? 0 : not_yet(r, "stream_interval");
}

static int read_stream_options(reader *r, yyjson_val *v)
{
    static const struct field usage = {"stream_options.include_usage", .kind = K_BOOL};
    static const struct field always = {"stream_options.continuous_usage_stats", .kind = K_BOOL};
    char shown[PARAMS_SHOWN];
    if (!yyjson_is_obj(v))
        return refuse_schema(r->why, "stream_options",
                             "`stream_options` must be an object, got %s.", params_show(v, shown));
    yyjson_val *a = json_get(v, "include_usage"), *b = json_get(v, "continuous_usage_stats");
    int rc = a && !yyjson_is_null(a) ? read_bool(r, &usage, a, &r->p->include_usage) : 0;
    if (rc == 0 && b && !yyjson_is_null(b))
        rc = read_bool(r, &always, b, &r->p->continuous_usage);
    r->has_stream_options = yyjson_obj_size(v) > 0;
    return rc;
}

static int read_thinking(reader *r, yyjson_val *v)
{
    int64_t x;
    return params_int(v, &x) && x == -1 ? 0 : not_yet(r, "thinking_token_budget");
}

static int read_tool_choice(reader *r, yyjson_val *v)
{
    static const char *const known[] = {"auto", "required", NULL};
    char shown[PARAMS_SHOWN];
    r->no_tool_calls = yyjson_equals_str(v, "none");
    if (r->no_tool_calls)
        return 0;
    if (!yyjson_is_obj(v) && !one_of(v, known))
        return refuse_schema(r->why, "tool_choice",
                             "Invalid value for `tool_choice`: %s! Only named tools, \"none\", "
                             "\"auto\" or \"required\" are supported.",
                             params_show(v, shown));
    return refuse_value(r->why, "tool_choice",
                        "tool calls are not supported yet; only tool_choice \"none\" is.");
}

static int read_tools(reader *r, yyjson_val *v)
{
    char shown[PARAMS_SHOWN];
    size_t i, n;
    yyjson_val *t;
    bool good = yyjson_is_arr(v);
    yyjson_arr_foreach(v, i, n, t) good = good && yyjson_is_obj(t);
    if (!good)
        return refuse_schema(r->why, "tools", "`tools` must be a list of objects, got %s.",
                             params_show(v, shown));
    if (yyjson_arr_size(v) == 0)
        return refuse_schema(r->why, "tools",
                             "`tools` must not be an empty array. Either provide at least one tool "
                             "or omit the field entirely.");
    r->p->tools = v;
    return 0;
}

static int read_truncation_side(reader *r, yyjson_val *v)
{
    char shown[PARAMS_SHOWN];
    r->p->truncate_right = yyjson_equals_str(v, "right");
    if (r->p->truncate_right || yyjson_equals_str(v, "left"))
        return 0;
    return refuse_schema(r->why, "truncation_side",
                         "`truncation_side` must be left or right, got %s.", params_show(v, shown));
}

/* ---- what holds between fields ---- */

static int check_streaming(reader *r)
{
    struct params *p = r->p;
    if (r->has_stream_options && !p->stream)
        return refuse_schema(r->why, "stream_options",
                             "Stream options can only be defined when `stream=True`.");
    if (p->stream && p->prompt_logprobs >= 0)
        return refuse_schema(r->why, "prompt_logprobs",
                             "`prompt_logprobs` are not available when `stream=True`.");
    return 0;
}

static int check_most(reader *r, const char *param, const char *what, int64_t n)
{
    uint32_t most = r->limits->max_logprobs;
    if (n <= (int64_t)most)
        return 0;
    return refuse_value(r->why, param,
                        "Requested %s logprobs of %lld, which is greater than max allowed: %u",
                        what, (long long)n, most);
}

// -1 asks for the whole vocabulary.
static int check_logprobs(reader *r)
{
    struct params *p = r->p;
    const char *name = p->endpoint == AT_CHAT ? "top_logprobs" : "logprobs";
    if (p->logprobs != r->logprobs_default && !r->wants_logprobs)
        if (p->logprobs != 0)
            return refuse_schema(r->why, name,
                                 "when using `top_logprobs`, `logprobs` must be set to true.");
    if (!r->wants_logprobs)
        p->logprobs = -1;
    else if (p->logprobs < 0)
        p->logprobs = r->limits->vocab;
    if (r->all_prompt_logprobs)
        p->prompt_logprobs = r->limits->vocab;
    int rc = check_most(r, name, "sample", p->logprobs);
    return rc < 0 ? rc : check_most(r, "prompt_logprobs", "prompt", p->prompt_logprobs);
}

static int check_sampling(reader *r)
{
    struct params *p = r->p;
    if (p->temperature > 0 && p->temperature < 0.01) // below 1e-5 it is greedy
        p->temperature = p->temperature < 1e-5 ? 0 : 0.01;
    if (p->top_k < 0 || p->top_k >= (int64_t)r->limits->vocab)
        p->top_k = 0;
    if (p->temperature == 0 && p->n > 1)
        return refuse_value(r->why, "n", "n must be 1 when using greedy sampling, got %lld.",
                            (long long)p->n);
    if (p->allowed.v && p->allowed.n == 0)
        return refuse_value(r->why, "allowed_token_ids",
                            "allowed_token_ids is not None and empty!");
    if (p->priority != 0 && !r->limits->priority)
        return refuse_value(r->why, "priority",
                            "Got priority %lld but priority scheduling is not enabled "
                            "(scheduling_policy: priority).",
                            (long long)p->priority);
    if (p->max_tokens == 0 && !(p->endpoint == AT_COMPLETIONS && p->echo))
        return refuse_value(r->why, "max_tokens", "max_tokens must be at least 1, got 0.");
    if (p->max_tokens >= 0 && p->min_tokens > p->max_tokens)
        return refuse_value(r->why, "min_tokens",
                            "min_tokens must be less than or equal to max_tokens=%lld, got %lld.",
                            (long long)p->max_tokens, (long long)p->min_tokens);
    return 0;
}

static int check_chat(reader *r)
{
    struct params *p = r->p;
    if (p->continue_final_message && p->add_generation_prompt && r->says_generation_prompt)
        return refuse_schema(r->why, "continue_final_message",
                             "Cannot set both `continue_final_message` and `add_generation_prompt` "
                             "to True.");
    if (p->continue_final_message)
        p->add_generation_prompt = false;
    if (p->tools && !r->no_tool_calls && p->endpoint == AT_CHAT)
        return refuse_value(r->why, "tool_choice",
                            "tool calls are not supported yet; with `tools`, `tool_choice` must be "
                            "\"none\": they are then shown to the model alone.");
    bool template = p->chat_template.p || json_get(p->template_kwargs, "chat_template");
    if (template && !r->limits->trust_template)
        return refuse_value(r->why, "chat_template",
                            "Chat template is passed with request, but trust_request_chat_template "
                            "is not set. Refused request with untrusted chat template.");
    return 0;
}

static int check_presence(reader *r)
{
    struct params *p = r->p;
    if (p->endpoint == AT_COMPLETIONS &&
        (!p->prompt || (yyjson_is_str(p->prompt) && yyjson_get_len(p->prompt) == 0)))
        return refuse_schema(r->why, "prompt",
                             "Either prompt or prompt_embeds must be provided and non-empty.");
    if (p->endpoint == AT_CHAT && !p->messages)
        return refuse_schema(r->why, "messages", "`messages` is required.");
    if (p->endpoint == AT_TOKENIZE && !p->prompt == !p->messages)
        return refuse_schema(r->why, "prompt", "one of `prompt` and `messages` is required.");
    if (p->endpoint == AT_DETOKENIZE && !p->tokens.v)
        return refuse_schema(r->why, "tokens", "`tokens` is required.");
    return 0;
}

static void set_defaults(reader *r)
{
    const struct params_limits *l = r->limits;
    struct params *p = r->p;
    p->add_generation_prompt = p->skip_special = true;
    p->add_special_tokens = p->endpoint != AT_CHAT;
    p->truncate = INT64_MAX;
    p->max_tokens = p->endpoint == AT_COMPLETIONS ? 16 : -1;
    p->n = 1;
    p->seed = -1;
    p->temperature = l->temperature;
    p->top_p = l->top_p;
    p->min_p = l->min_p;
    p->top_k = l->top_k;
    p->repetition_penalty = l->repetition_penalty;
    p->logprobs = r->logprobs_default = 0;
    p->prompt_logprobs = -1;
    p->tokens_as_ids = l->tokens_as_ids;
}

// Of two equal keys the last counts.
static int read_fields(reader *r, yyjson_val *root)
{
    yyjson_val *value[ARRAY_LEN(fields)] = {0};
    size_t i, n;
    yyjson_val *key, *v;
    yyjson_obj_foreach(root, i, n, key, v)
    {
        const struct field *f = find(yyjson_get_str(key), yyjson_get_len(key));
        if (f && f->at & r->p->endpoint)
            value[f - fields] = yyjson_is_null(v) ? NULL : v;
    }
    for (size_t f = 0; f < ARRAY_LEN(fields); f++) {
        int rc = value[f] ? read_field(r, &fields[f], value[f]) : 0;
        if (rc < 0)
            return rc;
    }
    yyjson_val *most = value[find("max_completion_tokens", 21) - fields];
    if (most)
        params_int(most, &r->p->max_tokens); // it counts more than max_tokens
    r->says_generation_prompt = value[find("add_generation_prompt", 21) - fields] != NULL;
    r->all_prompt_logprobs =
        value[find("prompt_logprobs", 15) - fields] != NULL && r->p->prompt_logprobs < 0;
    return 0;
}

int params_parse(struct params *ret, enum endpoint endpoint, const struct params_limits *limits,
                 const char *body, size_t n, struct refusal *why)
{
    struct err err = {0};
    *ret = (struct params){.endpoint = endpoint};
    arena_init(&ret->arena, 0); // what lies there is smaller than the body by a constant factor
    reader r = {.p = ret, .limits = limits, .why = why};
    if (json_parse(body, n, PARAMS_BODY_MAX, &ret->doc, &err) < 0)
        return refuse_schema(why, NULL, "the body is not JSON: %s", err.msg);
    yyjson_val *root = yyjson_doc_get_root(ret->doc);
    if (!yyjson_is_obj(root))
        return refuse_schema(why, NULL, "the body must be a JSON object");
    set_defaults(&r);
    int rc = read_fields(&r, root);
    if (rc == 0)
        rc = check_presence(&r);
    if (rc == 0)
        rc = check_streaming(&r);
    if (rc == 0)
        rc = check_logprobs(&r);
    if (rc == 0)
        rc = check_chat(&r);
    return rc < 0 || endpoint >= AT_TOKENIZE ? rc : check_sampling(&r);
}

void params_drop_doc(struct params *p)
{
    yyjson_doc_free(p->doc);
    p->doc = NULL;
    p->model = p->chat_template = p->reasoning_effort = (struct bytes){0};
    p->prompt = p->messages = p->tools = p->documents = p->template_kwargs = p->bad_words = NULL;
}

void params_finish(struct params *p)
{
    params_drop_doc(p);
    arena_finish(&p->arena);
}
