// SPDX-License-Identifier: Apache-2.0
// A request's body of any bytes is read or refused; what is read is in range. The first byte is the
// endpoint.
#include "base/check.h"
#include "base/str.h"
#include "llm/messages.h"
#include "llm/params.h"
#include "llm/refusal.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct params_limits limits = {.vocab = 500,
                                            .max_logprobs = 20,
                                            .priority = true,
                                            .trust_template = true,
                                            .temperature = 1,
                                            .top_p = 1,
                                            .repetition_penalty = 1};

static void check_ids(const struct id_list *l)
{
    for (uint32_t i = 0; i < l->n; i++)
        CHECK(l->v[i] >= 0 && l->v[i] < 500);
}

static void check_generation(const struct params *p)
{
    CHECK(p->temperature >= 0 && p->temperature <= 2 && p->top_p > 0 && p->top_p <= 1);
    CHECK(p->min_p >= 0 && p->min_p <= 1 && p->repetition_penalty > 0 && p->top_k >= 0);
    CHECK(p->frequency_penalty >= -2 && p->frequency_penalty <= 2);
    CHECK(p->presence_penalty >= -2 && p->presence_penalty <= 2);
    CHECK(p->n >= 1 && p->n <= PARAMS_N_MAX && (p->n == 1 || p->temperature > 0));
    CHECK(p->max_tokens >= -1 && p->max_tokens <= INT32_MAX && p->min_tokens >= 0);
    CHECK(p->max_tokens != 0 || p->echo);
    CHECK(p->logprobs >= -1 && p->logprobs <= 20);
    CHECK(p->prompt_logprobs >= -1 && p->prompt_logprobs <= 20);
    CHECK(p->endpoint == AT_CHAT ? p->messages != NULL : p->prompt != NULL);
    for (uint32_t i = 0; i < p->bias_ids.n; i++) {
        CHECK(p->bias[i] >= -100 && p->bias[i] <= 100);
        CHECK(i == 0 || p->bias_ids.v[i - 1] < p->bias_ids.v[i]);
    }
    for (uint32_t i = 0; i < p->stops.n; i++)
        CHECK(p->stops.v[i].n > 0 && str_valid_utf8(p->stops.v[i].text, p->stops.v[i].n));
}

static void check_refusal(int rc, const struct refusal *why)
{
    struct buf out = {0};
    CHECK(rc == -why->status && why->status >= 400 && why->status < 500 && *why->message);
    refusal_render(why, &out);
    CHECK(str_valid_utf8(buf_head(&out), buf_len(&out)));
    buf_finish(&out);
}

static void read_messages(const struct params *p)
{
    struct messages m;
    struct refusal why = {0};
    int rc = messages_make(p, &m, &why);
    if (rc < 0)
        check_refusal(rc, &why);
    else
        CHECK(yyjson_arr_size(m.list) == yyjson_arr_size(p->messages));
    messages_finish(&m);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const enum endpoint at[4] = {AT_COMPLETIONS, AT_CHAT, AT_TOKENIZE, AT_DETOKENIZE};
    struct params p;
    struct refusal why = {0};
    if (size == 0)
        return 0;
    char *body = malloc(size); // of its own, so that a sanitizer sees its end
    memcpy(body, data + 1, size - 1);
    int rc = params_parse(&p, at[data[0] % 4], &limits, body, size - 1, &why);
    free(body);
    if (rc < 0) {
        check_refusal(rc, &why);
    } else {
        check_ids(&p.stop_ids);
        check_ids(&p.allowed);
        check_ids(&p.bias_ids);
        check_ids(&p.tokens);
        if (p.endpoint <= AT_CHAT)
            check_generation(&p);
        if (p.messages)
            read_messages(&p);
    }
    params_finish(&p);
    return 0;
}
