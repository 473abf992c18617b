// SPDX-License-Identifier: Apache-2.0
// What goes to a client, byte for byte, without an engine: exchanges are made by hand.
#include "base/err.h"
#include "llm/exchange.h"
#include "llm/instance.h"
#include "llm/refusal.h"
#include "llm/reply.h"
#include "llm/stream.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct buf sent; // all bytes
static char head[128];  // status and content type
static int send_gives;  // what send() returns

static int on_head(sv_req *r, int status, const char *type)
{
    (void)r;
    snprintf(head, sizeof head, "%d %s", status, type);
    return 0;
}

static int on_header(sv_req *r, const char *name, const char *value)
{
    (void)r;
    (void)name;
    (void)value;
    return 0;
}

static int on_send(sv_req *r, const void *p, size_t n, uint32_t flags)
{
    (void)r;
    (void)flags;
    buf_put(&sent, p, n);
    return send_gives;
}

static int on_end(sv_req *r, int code, const char *text)
{
    (void)r;
    (void)text;
    buf_printf(&sent, "<end %d>", code);
    return 0;
}

static const sv_host host = {
    .size = sizeof host, .head = on_head, .header = on_header, .send = on_send, .end = on_end};

static char *names[] = {(char[]){"m\"x"}, (char[]){"alias"}};
static struct instance in = {
    .host = &host, .o = {.names = names, .n_names = 2}, .fingerprint = "fp"};
static sv_req req = {.size = sizeof req, .host = &host};

static void setup_exchange(struct exchange *x, enum endpoint at, uint32_t n)
{
    *x = (struct exchange){.in = &in, .req = &req, .n = n, .running = n, .created = 17};
    x->p = (struct params){.endpoint = at,
                           .n = n,
                           .stream = true,
                           .skip_special = true,
                           .logprobs = -1,
                           .prompt_logprobs = -1};
    strcpy(x->id, at == AT_CHAT ? "\"chatcmpl-1\"" : "\"cmpl-1\"");
    x->prompts.v = calloc(1, sizeof *x->prompts.v);
    x->prompts.n = 1;
    x->prompts.v->n_tokens = 3;
    for (int i = 0; i < 3; i++)
        ids_push(&x->prompts.v->ids, 70 + i);
    strcpy(x->prompts.role, "assistant");
    x->choices = calloc(n, sizeof *x->choices);
    for (uint32_t i = 0; i < n; i++)
        choice_init(&x->choices[i], x, i);
    buf_clear(&sent);
    *head = '\0';
    send_gives = 0;
}

static void finish_exchange(struct exchange *x)
{
    for (uint32_t i = 0; i < x->n; i++)
        choice_finish(&x->choices[i]);
    free(x->choices);
    ids_finish(&x->prompts.v->ids);
    buf_finish(&x->prompts.v->echo);
    free(x->prompts.v);
    buf_finish(&x->start);
}

// A token's text arrives.
static void say(struct choice *c, const char *text, const char *finish)
{
    c->n_tokens++;
    c->finish = finish;
    c->x->output_tokens++;
    buf_puts(&c->text, text);
    stream_open(c->x);
    stream_chunk(c, buf_len(&c->text));
}

static void expect(const char *want)
{
    if (strcmp(buf_cstr(&sent), want) != 0)
        fail_msg("got\n%s\nwant\n%s", buf_cstr(&sent), want);
}

#define CHAT                                                                                       \
    "data: {\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":17,"            \
    "\"model\":\"m\\\"x\",\"choices\":["
#define TEXT                                                                                       \
    "data: {\"id\":\"cmpl-1\",\"object\":\"text_completion\",\"created\":17,\"model\":\"m\\\"x\"," \
    "\"choices\":["

static void chat(void **state)
{
    (void)state;
    struct exchange x;
    setup_exchange(&x, AT_CHAT, 1);
    x.p.include_usage = true;
    x.prompt_tokens = 3;
    say(x.choices, "H\"i\n", NULL);
    say(x.choices, "", "stop");
    stream_close(&x);
    assert_string_equal(head, "200 text/event-stream; charset=utf-8");
    expect(CHAT
           "{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"logprobs\":null,"
           "\"finish_reason\":null}]}\n\n" CHAT
           "{\"index\":0,\"delta\":{\"content\":\"H\\\"i\\n\"},\"logprobs\":null,"
           "\"finish_reason\":null}]}\n\n" CHAT
           "{\"index\":0,\"delta\":{\"content\":\"\"},\"logprobs\":null,"
           "\"finish_reason\":\"stop\",\"stop_reason\":null}]}\n\n" CHAT
           "],\"usage\":{\"prompt_tokens\":3,\"total_tokens\":5,\"completion_tokens\":2},"
           "\"system_fingerprint\":\"fp\"}\n\n"
           "data: [DONE]\n\n");
    finish_exchange(&x);
}

// One role chunk for each choice comes first; without usage the last chunk has the fingerprint.
static void chat_of_two(void **state)
{
    (void)state;
    struct exchange x;
    setup_exchange(&x, AT_CHAT, 2);
    say(&x.choices[1], "b", "length");
    say(&x.choices[0], "a", "length");
    stream_close(&x);
    expect(CHAT
           "{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"logprobs\":null,"
           "\"finish_reason\":null}]}\n\n" CHAT
           "{\"index\":1,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"logprobs\":null,"
           "\"finish_reason\":null}]}\n\n" CHAT
           "{\"index\":1,\"delta\":{\"content\":\"b\"},\"logprobs\":null,\"finish_reason\":"
           "\"length\",\"stop_reason\":null}],\"system_fingerprint\":\"fp\"}\n\n" CHAT
           "{\"index\":0,\"delta\":{\"content\":\"a\"},\"logprobs\":null,\"finish_reason\":"
           "\"length\",\"stop_reason\":null}],\"system_fingerprint\":\"fp\"}\n\n"
           "data: [DONE]\n\n");
    finish_exchange(&x);
}

static void completion(void **state)
{
    (void)state;
    struct exchange x;
    setup_exchange(&x, AT_COMPLETIONS, 1);
    x.p.continuous_usage = true;
    x.p.return_token_ids = true;
    ids_push(&x.choices->ids, 9);
    say(x.choices, "a", NULL);
    ids_push(&x.choices->ids, 8);
    x.choices->stop_id = 8;
    say(x.choices, "", "stop");
    expect(TEXT
           "{\"index\":0,\"text\":\"a\",\"logprobs\":null,\"finish_reason\":null,"
           "\"stop_reason\":null,\"prompt_token_ids\":[70,71,72],\"token_ids\":[9]}],"
           "\"usage\":{\"prompt_tokens\":3,\"total_tokens\":4,\"completion_tokens\":1}}\n\n" TEXT
           "{\"index\":0,\"text\":\"\",\"logprobs\":null,\"finish_reason\":\"stop\","
           "\"stop_reason\":8,\"token_ids\":[8]}],\"system_fingerprint\":\"fp\","
           "\"usage\":{\"prompt_tokens\":3,\"total_tokens\":5,\"completion_tokens\":2}}\n\n");
    finish_exchange(&x);
}

static void plain_completion(void **state)
{
    (void)state;
    struct exchange x;
    setup_exchange(&x, AT_COMPLETIONS, 1);
    say(x.choices, "a", NULL);
    expect(TEXT "{\"index\":0,\"text\":\"a\",\"logprobs\":null,\"finish_reason\":null,"
                "\"stop_reason\":null}]}\n\n");
    finish_exchange(&x);
}

static void held_back(void **state)
{
    (void)state;
    struct exchange x;
    setup_exchange(&x, AT_COMPLETIONS, 1);
    stream_open(&x);
    buf_puts(&x.choices->text, "abc");
    stream_chunk(x.choices, 1);
    assert_memory_equal(buf_head(&x.choices->text), "bc", 2);
    assert_int_equal(buf_len(&x.choices->text), 2);
    finish_exchange(&x);
}

static void error_in_mid_stream(void **state)
{
    (void)state;
    struct exchange x;
    struct refusal why;
    setup_exchange(&x, AT_COMPLETIONS, 1);
    stream_open(&x);
    refuse(&why, 500, NULL, "gone");
    stream_fail(&x, &why);
    expect("data: {\"error\":{\"message\":\"gone\",\"type\":\"InternalServerError\",\"param\":null,"
           "\"code\":500}}\n\ndata: [DONE]\n\n");
    finish_exchange(&x);
}

// Once nobody listens nothing more is sent.
static void nobody_listens(void **state)
{
    (void)state;
    struct exchange x;
    setup_exchange(&x, AT_COMPLETIONS, 1);
    send_gives = SV_E_CANCELLED;
    say(x.choices, "a", NULL);
    assert_true(x.gone);
    buf_clear(&sent);
    say(x.choices, "b", NULL);
    stream_close(&x);
    expect("");
    finish_exchange(&x);
}

/* ---- logprobs ---- */

// Ids of the tiny tokenizer: 70 is d, 71 e, 72 f, 73 g.
static const int32_t top_id[3] = {71, 70, 72};
static const float top[3] = {-0.25f, -1.5f, -INFINITY};

static struct token_info info_of(int32_t id, float x)
{
    return (struct token_info){.token = id,
                               .has_logprob = true,
                               .logprob = x,
                               .rank = 2,
                               .n_top = 3,
                               .top_id = top_id,
                               .top_logprob = top};
}

static void add(struct choice *c, int32_t id, float x)
{
    struct token_info t = info_of(id, x);
    struct logprobs_style s = choice_style(c);
    logprobs_add(&c->logprobs, &s, id, &t);
}

static void completion_logprobs(void **state)
{
    (void)state;
    struct exchange x;
    setup_exchange(&x, AT_COMPLETIONS, 1);
    x.p.logprobs = 2;
    add(x.choices, 70, -1.5f);
    say(x.choices, "d", NULL);
    add(x.choices, 73, -2);
    say(x.choices, "g", NULL);
    expect(TEXT "{\"index\":0,\"text\":\"d\",\"logprobs\":{\"text_offset\":[0],\"token_logprobs\":"
                "[-1.5],\"tokens\":[\"d\"],\"top_logprobs\":[{\"d\":-1.5,\"e\":-0.25}]},"
                "\"finish_reason\":null,\"stop_reason\":null}]}\n\n" TEXT
                "{\"index\":0,\"text\":\"g\",\"logprobs\":{\"text_offset\":[1],\"token_logprobs\":"
                "[-2.0],\"tokens\":[\"g\"],\"top_logprobs\":[{\"g\":-2.0,\"e\":-0.25,\"d\":-1.5}]},"
                "\"finish_reason\":null,\"stop_reason\":null}]}\n\n");
    finish_exchange(&x);
}

static void chat_logprobs(void **state)
{
    (void)state;
    struct exchange x;
    struct buf out = {0};
    setup_exchange(&x, AT_CHAT, 1);
    x.p.logprobs = 3;
    x.p.tokens_as_ids = false;
    struct logprobs_style s = choice_style(x.choices);
    add(x.choices, 70, -1.5f);
    logprobs_render(&x.choices->logprobs, &s, &out);
    assert_string_equal(
        buf_cstr(&out),
        "{\"content\":[{\"token\":\"d\",\"logprob\":-1.5,\"bytes\":[100],\"top_logprobs\":["
        "{\"token\":\"e\",\"logprob\":-0.25,\"bytes\":[101]},"
        "{\"token\":\"d\",\"logprob\":-1.5,\"bytes\":[100]},"
        "{\"token\":\"f\",\"logprob\":-9999.0,\"bytes\":[102]}]}]}");
    buf_clear(&out);
    logprobs_clear(&x.choices->logprobs, 0);
    x.p.tokens_as_ids = true;
    x.p.logprobs = 0;
    s = choice_style(x.choices);
    add(x.choices, 70, -1.5f);
    logprobs_render(&x.choices->logprobs, &s, &out);
    assert_string_equal(buf_cstr(&out), "{\"content\":[{\"token\":\"token_id:70\",\"logprob\":-1.5,"
                                        "\"bytes\":[116,111,107,101,110,95,105,100,58,55,48],"
                                        "\"top_logprobs\":[]}]}");
    buf_finish(&out);
    finish_exchange(&x);
}

static void prompt_logprobs(void **state)
{
    (void)state;
    struct exchange x;
    struct buf out = {0};
    setup_exchange(&x, AT_CHAT, 1);
    struct logprobs_style s = choice_style(x.choices);
    struct token_info t = info_of(70, -1.5f);
    s.k = 1;
    logprobs_put_prompt(&out, &s, &t);
    assert_string_equal(buf_cstr(&out),
                        "{\"70\":{\"logprob\":-1.5,\"rank\":2,\"decoded_token\":\"d\"},"
                        "\"71\":{\"logprob\":-0.25,\"rank\":1,\"decoded_token\":\"e\"}}");
    buf_finish(&out);
    finish_exchange(&x);
}

/* ---- text ---- */

// SentencePiece's decoder drops the space before a text's first word; an answer has one before it.
static void goes_on_after_the_prompt(void **state)
{
    (void)state;
    struct tokenizer *bytes = in.tokenizer, *spm;
    struct exchange x;
    struct ids word = {0};
    struct buf alone = {0}, text = {0};
    struct err err = {0};
    if (tokenizer_from_folder(LLM_DATA "/tokenizers/sp_bpe", &spm, &err) < 0)
        fail_msg("%s", err.msg);
    tokenizer_encode(spm, "the", 3, false, NULL, 1, 100, &word, NULL);
    tokenizer_decode(spm, word.v, word.n, true, &alone);
    assert_string_equal(buf_cstr(&alone), "the");
    in.tokenizer = spm;
    setup_exchange(&x, AT_COMPLETIONS, 1);
    choice_finish(x.choices);
    x.prompts.v->ids.n = 0;
    tokenizer_encode(spm, "San Francisco is in", 19, true, NULL, 1, 100, &x.prompts.v->ids, NULL);
    choice_init(x.choices, &x, 0);
    for (size_t i = 0; i < word.n; i++)
        detok_push(&x.choices->detok, word.v[i], &text);
    assert_string_equal(buf_cstr(&text), " the");
    struct logprobs_style s = choice_style(x.choices);
    struct token_info t = info_of(word.v[0], -1);
    buf_clear(&text);
    t.n_top = 0;
    logprobs_put_prompt(&text, &s, &t);
    assert_non_null(strstr(buf_cstr(&text), "\"decoded_token\":\" "));
    finish_exchange(&x);
    in.tokenizer = bytes;
    tokenizer_destroy(spm);
    ids_finish(&word);
    buf_finish(&alone);
    buf_finish(&text);
}

/* ---- in one piece ---- */

static void reply_of_chat(void **state)
{
    (void)state;
    struct exchange x;
    setup_exchange(&x, AT_CHAT, 1);
    x.p.stream = false;
    x.prompt_tokens = 3;
    x.output_tokens = 2;
    x.cached_tokens = 1;
    in.o.prompt_details = true;
    buf_puts(&x.choices->text, "Hi");
    x.choices->finish = "length";
    reply_exchange(&x);
    in.o.prompt_details = false;
    assert_string_equal(head, "200 application/json");
    expect(
        "{\"id\":\"chatcmpl-1\",\"object\":\"chat.completion\",\"created\":17,\"model\":\"m\\\"x\","
        "\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"Hi\","
        "\"refusal\":null},\"logprobs\":null,\"finish_reason\":\"length\",\"stop_reason\":null}],"
        "\"system_fingerprint\":\"fp\",\"usage\":{\"prompt_tokens\":3,\"total_tokens\":5,"
        "\"completion_tokens\":2,\"prompt_tokens_details\":{\"cached_tokens\":1}},"
        "\"prompt_logprobs\":null}<end 0>");
    finish_exchange(&x);
}

static void reply_of_completion(void **state)
{
    (void)state;
    struct exchange x;
    struct arena a;
    arena_init(&a, 0);
    setup_exchange(&x, AT_COMPLETIONS, 2);
    x.p.stream = false;
    stops_add(&x.p.stops, &a, "\n", 1);
    buf_puts(&x.choices[0].text, "A");
    x.choices[0].finish = "stop";
    x.choices[0].stop_string = 0;
    buf_puts(&x.choices[1].text, "B");
    x.choices[1].finish = "length";
    reply_exchange(&x);
    expect(
        "{\"id\":\"cmpl-1\",\"object\":\"text_completion\",\"created\":17,\"model\":\"m\\\"x\","
        "\"choices\":[{\"index\":0,\"text\":\"A\",\"logprobs\":null,\"finish_reason\":\"stop\","
        "\"stop_reason\":\"\\n\",\"prompt_logprobs\":null},{\"index\":1,\"text\":\"B\","
        "\"logprobs\":null,\"finish_reason\":\"length\",\"stop_reason\":null,"
        "\"prompt_logprobs\":null}],\"system_fingerprint\":\"fp\",\"usage\":{\"prompt_tokens\":0,"
        "\"total_tokens\":0,\"completion_tokens\":0}}<end 0>");
    finish_exchange(&x);
    arena_finish(&a);
}

static int open_tokenizer(void **state)
{
    (void)state;
    struct err err = {0};
    if (tokenizer_from_folder(LLM_DATA "/tiny-llama", &in.tokenizer, &err) < 0)
        fail_msg("%s", err.msg);
    return 0;
}

static int close_tokenizer(void **state)
{
    (void)state;
    tokenizer_destroy(in.tokenizer);
    buf_finish(&in.scratch);
    buf_finish(&sent);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(chat),
        cmocka_unit_test(chat_of_two),
        cmocka_unit_test(completion),
        cmocka_unit_test(plain_completion),
        cmocka_unit_test(held_back),
        cmocka_unit_test(error_in_mid_stream),
        cmocka_unit_test(nobody_listens),
        cmocka_unit_test(completion_logprobs),
        cmocka_unit_test(chat_logprobs),
        cmocka_unit_test(prompt_logprobs),
        cmocka_unit_test(goes_on_after_the_prompt),
        cmocka_unit_test(reply_of_chat),
        cmocka_unit_test(reply_of_completion),
    };
    return cmocka_run_group_tests(tests, open_tokenizer, close_tokenizer);
}
