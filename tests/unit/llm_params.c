// SPDX-License-Identifier: Apache-2.0
#include "llm/params.h"
#include "llm/refusal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

static const struct params_limits limits = {.vocab = 1000,
                                            .max_logprobs = 20,
                                            .temperature = 0.6,
                                            .top_p = 0.95,
                                            .min_p = 0,
                                            .repetition_penalty = 1.1,
                                            .top_k = 40};

// A body whose first quote is ' instead of ", so that rows are readable.
static int parse(struct params *p, enum endpoint at, const struct params_limits *l,
                 const char *body, struct refusal *why)
{
    char json[8192];
    size_t n = strlen(body);
    assert_true(n < sizeof json);
    for (size_t i = 0; i <= n; i++)
        json[i] = body[i] == '\'' ? '"' : body[i];
    *why = (struct refusal){0};
    return params_parse(p, at, l, json, n, why);
}

/*
 * One row is one refusal. `{P` stands for an object with a good prompt, `{M` with good messages.
 * param "-": null. says: a part of the message.
 */
static const struct {
    enum endpoint at;
    const char *body, *type, *param, *says;
} refused[] = {
    {AT_CHAT, "", "Bad Request", "-", "JSON"},
    {AT_CHAT, "{M,}", "Bad Request", "-", "JSON"},
    {AT_CHAT, "[1]", "Bad Request", "-", "object"},
    {AT_CHAT, "{}", "Bad Request", "messages", "required"},
    {AT_CHAT, "{'messages':null}", "Bad Request", "messages", "required"},
    {AT_CHAT, "{'messages':[]}", "Bad Request", "messages", "at least one"},
    {AT_CHAT, "{'messages':'hi'}", "Bad Request", "messages", "'hi'"},
    {AT_CHAT, "{'messages':[1]}", "Bad Request", "messages", "messages[0]"},
    {AT_CHAT, "{'messages':[{'content':'x'}]}", "Bad Request", "messages", "role"},
    {AT_COMPLETIONS, "{}", "Bad Request", "prompt", "must be provided"},
    {AT_COMPLETIONS, "{'prompt':''}", "Bad Request", "prompt", "non-empty"},
    {AT_COMPLETIONS, "{'prompt':[]}", "Bad Request", "prompt", "empty list"},
    {AT_COMPLETIONS, "{'prompt':7}", "Bad Request", "prompt", "got 7"},
    {AT_COMPLETIONS, "{'prompt':['a',1]}", "Bad Request", "prompt", "got 1"},
    {AT_COMPLETIONS, "{'prompt':[1,'a']}", "Bad Request", "prompt", "'a'"},
    {AT_COMPLETIONS, "{'prompt':[[1],[]]}", "Bad Request", "prompt", "no tokens"},
    {AT_COMPLETIONS, "{'prompt':[1,1000]}", "BadRequestError", "prompt", "1000 is out of vocab"},
    {AT_COMPLETIONS, "{'prompt':[-1]}", "BadRequestError", "prompt", "-1 is out of vocab"},
    {AT_COMPLETIONS, "{'prompt':[[1.5]]}", "Bad Request", "prompt", "1.5"},
    {AT_COMPLETIONS, "{P,'temperature':2.5}", "BadRequestError", "temperature", "[0, 2], got 2.5"},
    {AT_COMPLETIONS, "{P,'temperature':-0.1}", "BadRequestError", "temperature", "got -0.1"},
    {AT_COMPLETIONS, "{P,'temperature':'1'}", "Bad Request", "temperature", "got '1'"},
    {AT_COMPLETIONS, "{P,'temperature':true}", "Bad Request", "temperature", "got true"},
    {AT_CHAT, "{M,'top_p':0}", "BadRequestError", "top_p", "(0, 1], got 0"},
    {AT_CHAT, "{M,'top_p':1.01}", "BadRequestError", "top_p", "(0, 1]"},
    {AT_CHAT, "{M,'min_p':-0.5}", "BadRequestError", "min_p", "[0, 1]"},
    {AT_CHAT, "{M,'top_k':-2}", "BadRequestError", "top_k", "-2"},
    {AT_CHAT, "{M,'top_k':1.5}", "Bad Request", "top_k", "1.5"},
    {AT_CHAT, "{M,'presence_penalty':2.1}", "BadRequestError", "presence_penalty", "[-2, 2]"},
    {AT_CHAT, "{M,'frequency_penalty':-2.1}", "BadRequestError", "frequency_penalty", "[-2, 2]"},
    {AT_CHAT, "{M,'repetition_penalty':0}", "BadRequestError", "repetition_penalty", "got 0"},
    {AT_CHAT, "{M,'n':0}", "BadRequestError", "n", "[1, 16384], got 0"},
    {AT_CHAT, "{M,'n':16385}", "BadRequestError", "n", "16384"},
    {AT_CHAT, "{M,'n':2,'temperature':0}", "BadRequestError", "n", "greedy sampling, got 2"},
    {AT_CHAT, "{M,'seed':9223372036854775808}", "Bad Request", "seed", "9223372036854775808"},
    {AT_CHAT, "{M,'seed':'x'}", "Bad Request", "seed", "integer"},
    {AT_CHAT, "{M,'max_tokens':0}", "BadRequestError", "max_tokens", "at least 1"},
    {AT_CHAT, "{M,'max_completion_tokens':0}", "BadRequestError", "max_completion_tokens", "got 0"},
    {AT_COMPLETIONS, "{P,'max_tokens':-1}", "BadRequestError", "max_tokens", "got -1"},
    {AT_COMPLETIONS, "{P,'max_tokens':0}", "BadRequestError", "max_tokens", "at least 1"},
    {AT_COMPLETIONS, "{P,'min_tokens':17}", "BadRequestError", "min_tokens",
     "max_tokens=16, got 17"},
    {AT_COMPLETIONS, "{P,'stop':''}", "BadRequestError", "stop", "empty string"},
    {AT_COMPLETIONS, "{P,'stop':['a','']}", "BadRequestError", "stop", "empty string"},
    {AT_COMPLETIONS, "{P,'stop':['a','b','c','d','e']}", "Bad Request", "stop", "at most 4"},
    {AT_COMPLETIONS, "{P,'stop':7}", "Bad Request", "stop", "got 7"},
    {AT_COMPLETIONS, "{P,'stop':[7]}", "Bad Request", "stop", "got 7"},
    {AT_COMPLETIONS, "{P,'stop_token_ids':[1000]}", "BadRequestError", "stop_token_ids", "[1000]"},
    {AT_COMPLETIONS, "{P,'stop_token_ids':['1']}", "Bad Request", "stop_token_ids", "[0]"},
    {AT_COMPLETIONS, "{P,'stop_token_ids':1}", "Bad Request", "stop_token_ids", "list"},
    {AT_COMPLETIONS, "{P,'allowed_token_ids':[]}", "BadRequestError", "allowed_token_ids", "empty"},
    {AT_COMPLETIONS, "{P,'allowed_token_ids':[-1]}", "BadRequestError", "allowed_token_ids", "-1"},
    {AT_COMPLETIONS, "{P,'bad_words':['']}", "BadRequestError", "bad_words", "empty string"},
    {AT_COMPLETIONS, "{P,'bad_words':'x'}", "Bad Request", "bad_words", "list"},
    {AT_COMPLETIONS, "{P,'logit_bias':[1]}", "Bad Request", "logit_bias", "object"},
    {AT_COMPLETIONS, "{P,'logit_bias':{'a':1}}", "Bad Request", "logit_bias", "'a'"},
    {AT_COMPLETIONS, "{P,'logit_bias':{'1':'x'}}", "Bad Request", "logit_bias", "'x'"},
    {AT_COMPLETIONS, "{P,'logit_bias':{'1000':1}}", "BadRequestError", "logit_bias", "1000"},
    {AT_COMPLETIONS, "{P,'logprobs':21}", "BadRequestError", "logprobs", "of 21, which is greater"},
    {AT_COMPLETIONS, "{P,'logprobs':-1}", "BadRequestError", "logprobs", "of 1000"},
    {AT_COMPLETIONS, "{P,'logprobs':true}", "Bad Request", "logprobs", "integer"},
    {AT_CHAT, "{M,'logprobs':1}", "Bad Request", "logprobs", "true or false"},
    {AT_CHAT, "{M,'top_logprobs':3}", "Bad Request", "top_logprobs", "must be set to true"},
    {AT_CHAT, "{M,'logprobs':true,'top_logprobs':21}", "BadRequestError", "top_logprobs", "21"},
    {AT_CHAT, "{M,'prompt_logprobs':1,'stream':true}", "Bad Request", "prompt_logprobs", "stream"},
    {AT_CHAT, "{M,'prompt_logprobs':-1}", "BadRequestError", "prompt_logprobs", "of 1000"},
    {AT_CHAT, "{M,'prompt_logprobs':-2}", "BadRequestError", "prompt_logprobs", "-2"},
    {AT_CHAT, "{M,'stream':1}", "Bad Request", "stream", "true or false, got 1"},
    {AT_CHAT, "{M,'stream_options':{'include_usage':true}}", "Bad Request", "stream_options",
     "stream=True"},
    {AT_CHAT, "{M,'stream':true,'stream_options':{'include_usage':3}}", "Bad Request",
     "stream_options.include_usage", "got 3"},
    {AT_CHAT, "{M,'stream':true,'stream_options':7}", "Bad Request", "stream_options", "object"},
    {AT_CHAT, "{M,'tools':[]}", "Bad Request", "tools", "must not be an empty array"},
    {AT_CHAT, "{M,'tools':[{}]}", "BadRequestError", "tool_choice", "not supported yet"},
    {AT_CHAT, "{M,'tools':[{}],'tool_choice':'auto'}", "BadRequestError", "tool_choice",
     "supported"},
    {AT_CHAT, "{M,'tool_choice':'some'}", "Bad Request", "tool_choice", "'some'"},
    {AT_CHAT, "{M,'response_format':{'type':'json_object'}}", "BadRequestError", "response_format",
     "not supported yet"},
    {AT_CHAT, "{M,'response_format':{'type':'x'}}", "Bad Request", "response_format", "'x'"},
    {AT_CHAT, "{M,'structured_outputs':{}}", "BadRequestError", "structured_outputs", "yet"},
    {AT_CHAT, "{M,'guided_json':{}}", "BadRequestError", "guided_json", "yet"},
    {AT_CHAT, "{M,'use_beam_search':true}", "BadRequestError", "use_beam_search", "yet"},
    {AT_CHAT, "{M,'best_of':2}", "BadRequestError", "best_of", "yet"},
    {AT_CHAT, "{M,'modalities':['text','audio']}", "BadRequestError", "modalities", "text"},
    {AT_CHAT, "{M,'audio':{}}", "BadRequestError", "audio", "yet"},
    {AT_CHAT, "{M,'logprob_token_ids':[1]}", "BadRequestError", "logprob_token_ids", "yet"},
    {AT_COMPLETIONS, "{P,'suffix':'x'}", "BadRequestError", "suffix", "supported"},
    {AT_COMPLETIONS, "{P,'prompt_embeds':'x'}", "BadRequestError", "prompt_embeds", "yet"},
    {AT_CHAT, "{M,'priority':1}", "BadRequestError", "priority", "not enabled"},
    {AT_CHAT, "{M,'cache_salt':''}", "Bad Request", "cache_salt", "non-empty"},
    {AT_CHAT, "{M,'cache_salt':7}", "Bad Request", "cache_salt", "string"},
    {AT_CHAT, "{M,'chat_template':'x'}", "BadRequestError", "chat_template", "untrusted"},
    {AT_CHAT, "{M,'chat_template_kwargs':{'chat_template':'x'}}", "BadRequestError",
     "chat_template", "untrusted"},
    {AT_CHAT, "{M,'chat_template_kwargs':[]}", "Bad Request", "chat_template_kwargs", "object"},
    {AT_CHAT, "{M,'continue_final_message':true,'add_generation_prompt':true}", "Bad Request",
     "continue_final_message", "both"},
    {AT_CHAT, "{M,'reasoning_effort':'very'}", "Bad Request", "reasoning_effort", "'very'"},
    {AT_CHAT, "{M,'documents':[1]}", "Bad Request", "documents", "objects"},
    {AT_CHAT, "{M,'truncate_prompt_tokens':-2}", "BadRequestError", "truncate_prompt_tokens", "-2"},
    {AT_CHAT, "{M,'truncation_side':'up'}", "Bad Request", "truncation_side", "'up'"},
    {AT_CHAT, "{M,'model':7}", "Bad Request", "model", "string"},
    {AT_TOKENIZE, "{}", "Bad Request", "prompt", "one of"},
    {AT_TOKENIZE, "{P,'messages':[{'role':'user'}]}", "Bad Request", "prompt", "one of"},
    {AT_TOKENIZE, "{'prompt':[1]}", "Bad Request", "prompt", "string"},
    {AT_DETOKENIZE, "{}", "Bad Request", "tokens", "required"},
    {AT_DETOKENIZE, "{'tokens':[1000]}", "BadRequestError", "tokens", "1000"},
};

static void expand(const char *body, char out[512])
{
    const char *rest = body + 2;
    if (strncmp(body, "{P", 2) == 0)
        snprintf(out, 512, "{'prompt':'hello'%s", rest);
    else if (strncmp(body, "{M", 2) == 0)
        snprintf(out, 512, "{'messages':[{'role':'user','content':'hello'}]%s", rest);
    else
        snprintf(out, 512, "%s", body);
}

static void refuses(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        char body[512];
        struct params p;
        struct refusal why;
        expand(refused[i].body, body);
        int rc = parse(&p, refused[i].at, &limits, body, &why);
        const char *param = *why.param ? why.param : "-";
        if (rc != -400 || why.status != 400 || strcmp(why.type, refused[i].type) != 0 ||
            strcmp(param, refused[i].param) != 0 || !strstr(why.message, refused[i].says))
            fail_msg("%s: %d, %s, param %s: %s", refused[i].body, rc, why.type ? why.type : "none",
                     param, why.message);
        params_finish(&p);
    }
}

// Writes what a request came to, as the rows below have it; what is as by default is left out.
static void show(const struct params *p, char *out, size_t room)
{
    size_t n = 0;
    out[0] = '\0';
#define PUT(cond, ...)                                                                             \
    if (cond)                                                                                      \
    n += (size_t)snprintf(out + n, room - n, __VA_ARGS__)
    PUT(p->max_tokens != (p->endpoint == AT_CHAT ? -1 : 16), "max=%lld ", (long long)p->max_tokens);
    PUT(p->n != 1, "n=%lld ", (long long)p->n);
    PUT(p->seed != -1, "seed=%lld ", (long long)p->seed);
    PUT(p->temperature != 0.6, "t=%g ", p->temperature);
    PUT(p->top_p != 0.95, "p=%g ", p->top_p);
    PUT(p->top_k != 40, "k=%lld ", (long long)p->top_k);
    PUT(p->min_p != 0, "minp=%g ", p->min_p);
    PUT(p->repetition_penalty != 1.1, "rep=%g ", p->repetition_penalty);
    PUT(p->frequency_penalty != 0, "freq=%g ", p->frequency_penalty);
    PUT(p->presence_penalty != 0, "pres=%g ", p->presence_penalty);
    PUT(p->logprobs >= 0, "lp=%lld ", (long long)p->logprobs);
    PUT(p->prompt_logprobs >= 0, "plp=%lld ", (long long)p->prompt_logprobs);
    PUT(p->stream, "stream ");
    PUT(p->include_usage, "usage ");
    PUT(p->continuous_usage, "always ");
    PUT(p->echo, "echo ");
    PUT(p->ignore_eos, "noeos ");
    PUT(!p->skip_special, "special ");
    PUT(p->min_tokens, "min=%lld ", (long long)p->min_tokens);
    PUT(p->truncate != INT64_MAX, "cut=%lld%s ", (long long)p->truncate,
        p->truncate_right ? "r" : "");
    PUT(!p->add_generation_prompt, "nogen ");
    PUT(p->continue_final_message, "goon ");
    PUT(p->add_special_tokens != (p->endpoint != AT_CHAT), "bos=%d ", p->add_special_tokens);
    PUT(p->tools, "tools ");
    PUT(p->cache_salt.p, "salt=%.*s ", (int)p->cache_salt.n, p->cache_salt.p);
    PUT(p->model.p, "model=%.*s ", (int)p->model.n, p->model.p);
    for (uint32_t i = 0; i < p->stops.n; i++)
        PUT(true, "stop=%.*s ", (int)p->stops.v[i].n, p->stops.v[i].text);
    for (uint32_t i = 0; i < p->stop_ids.n; i++)
        PUT(true, "id=%d ", p->stop_ids.v[i]);
    for (uint32_t i = 0; i < p->bias_ids.n; i++)
        PUT(true, "bias%d=%g ", p->bias_ids.v[i], (double)p->bias[i]);
#undef PUT
}

static const struct {
    enum endpoint at;
    const char *body, *want;
} taken[] = {
    {AT_COMPLETIONS, "{P}", ""},
    {AT_CHAT, "{M}", ""},
    {AT_CHAT, "{M,'nonsense':[1,{}],'user':'me','model':'m'}", "model=m "},
    {AT_COMPLETIONS, "{P,'max_tokens':null,'temperature':null,'stop':null,'n':null}", ""},
    {AT_COMPLETIONS, "{P,'max_tokens':16.0,'max_tokens':17.0}", "max=17 "},
    {AT_CHAT, "{M,'max_tokens':5,'max_completion_tokens':6}", "max=6 "},
    {AT_CHAT, "{M,'max_tokens':5,'max_completion_tokens':null}", "max=5 "},
    {AT_COMPLETIONS, "{P,'max_tokens':0,'echo':true}", "max=0 echo "},
    {AT_CHAT, "{M,'temperature':0.000001}", "t=0 "},
    {AT_CHAT, "{M,'temperature':0.001}", "t=0.01 "},
    {AT_CHAT, "{M,'temperature':2,'top_p':1,'top_k':-1,'min_p':1}", "t=2 p=1 k=0 minp=1 "},
    {AT_CHAT, "{M,'top_k':999}", "k=999 "},
    {AT_CHAT, "{M,'top_k':1000}", "k=0 "}, // the whole vocabulary
    {AT_CHAT, "{M,'repetition_penalty':2,'frequency_penalty':-2,'presence_penalty':2}",
     "rep=2 freq=-2 pres=2 "},
    {AT_CHAT, "{M,'n':3,'seed':-9223372036854775808}", "n=3 seed=-9223372036854775808 "},
    {AT_CHAT, "{M,'seed':-1}", ""},
    {AT_CHAT, "{M,'logprobs':true}", "lp=0 "},
    {AT_CHAT, "{M,'logprobs':true,'top_logprobs':5}", "lp=5 "},
    {AT_CHAT, "{M,'logprobs':false,'top_logprobs':0}", ""},
    {AT_COMPLETIONS, "{P,'logprobs':0}", "lp=0 "},
    {AT_COMPLETIONS, "{P,'logprobs':20,'prompt_logprobs':3}", "lp=20 plp=3 "},
    {AT_COMPLETIONS, "{P,'stop':'x'}", "stop=x "},
    {AT_COMPLETIONS, "{P,'stop':['a','b','c','dd']}", "stop=a stop=b stop=c stop=dd "},
    {AT_COMPLETIONS, "{P,'stop':[],'stop_token_ids':[3,0,999]}", "id=3 id=0 id=999 "},
    {AT_COMPLETIONS, "{P,'logit_bias':{'7':200,'3':-1000,'7':1.5}}", "bias3=-100 bias7=1.5 "},
    {AT_COMPLETIONS, "{P,'logit_bias':{}}", ""},
    {AT_COMPLETIONS, "{P,'stream':true,'stream_options':{'include_usage':true}}", "stream usage "},
    {AT_CHAT, "{M,'stream':true,'stream_options':{'continuous_usage_stats':true}}",
     "stream always "},
    {AT_CHAT, "{M,'stream':false,'stream_options':{}}", ""},
    {AT_CHAT, "{M,'ignore_eos':true,'min_tokens':2,'skip_special_tokens':false}",
     "noeos special min=2 "},
    {AT_CHAT, "{M,'truncate_prompt_tokens':-1,'truncation_side':'right'}", "cut=-1r "},
    {AT_CHAT, "{M,'continue_final_message':true}", "nogen goon "},
    {AT_CHAT, "{M,'add_special_tokens':true}", "bos=1 "},
    {AT_COMPLETIONS, "{P,'add_special_tokens':false}", "bos=0 "},
    {AT_CHAT, "{M,'tools':[{'type':'function'}],'tool_choice':'none'}", "tools "},
    {AT_CHAT, "{M,'tool_choice':'none','response_format':{'type':'text'},'best_of':1}", ""},
    {AT_CHAT, "{M,'use_beam_search':false,'thinking_token_budget':-1,'stream_interval':1}", ""},
    {AT_CHAT, "{M,'modalities':['text'],'cache_salt':'abc','priority':0}", "salt=abc "},
    {AT_COMPLETIONS, "{'prompt':[1,2,3]}", ""},
    {AT_COMPLETIONS, "{'prompt':[[1],[2,3]]}", ""},
    {AT_COMPLETIONS, "{'prompt':['a','']}", ""},
    {AT_COMPLETIONS, "{'prompt':'x','messages':7,'tools':[]}", ""}, // not this endpoint's
    {AT_TOKENIZE, "{P}", ""},
    {AT_DETOKENIZE, "{'tokens':[]}", ""},
};

static void takes(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof taken / sizeof *taken; i++) {
        char body[512], got[1024];
        struct params p;
        struct refusal why;
        expand(taken[i].body, body);
        int rc = parse(&p, taken[i].at, &limits, body, &why);
        if (rc != 0)
            fail_msg("%s: %s", taken[i].body, why.message);
        if (taken[i].at >= AT_TOKENIZE)
            p.max_tokens = 16;
        show(&p, got, sizeof got);
        if (strcmp(got, taken[i].want) != 0)
            fail_msg("%s: got '%s', want '%s'", taken[i].body, got, taken[i].want);
        params_finish(&p);
    }
}

static void deployment_decides(void **state)
{
    (void)state;
    struct params_limits l = limits;
    struct params p;
    struct refusal why;
    char body[512];
    l.priority = l.trust_template = true;
    expand("{M,'priority':-5,'chat_template':'x','return_tokens_as_token_ids':true}", body);
    assert_int_equal(parse(&p, AT_CHAT, &l, body, &why), 0);
    assert_int_equal(p.priority, -5);
    assert_true(p.tokens_as_ids);
    params_finish(&p);
    l.max_logprobs = 2;
    l.tokens_as_ids = true;
    expand("{P,'logprobs':3}", body);
    assert_int_equal(parse(&p, AT_COMPLETIONS, &l, body, &why), -400);
    params_finish(&p);
    expand("{P,'logprobs':2}", body);
    assert_int_equal(parse(&p, AT_COMPLETIONS, &l, body, &why), 0);
    assert_true(p.tokens_as_ids);
    params_finish(&p);
}

static void too_many_prompts(void **state)
{
    (void)state;
    char body[8192] = "{'prompt':['x'";
    struct params p;
    struct refusal why;
    for (int i = 1; i < PARAMS_PROMPTS; i++)
        strcat(body, ",'x'");
    size_t n = strlen(body);
    strcpy(body + n, "]}");
    assert_int_equal(parse(&p, AT_COMPLETIONS, &limits, body, &why), 0);
    params_finish(&p);
    strcpy(body + n, ",'x']}");
    assert_int_equal(parse(&p, AT_COMPLETIONS, &limits, body, &why), -400);
    assert_non_null(strstr(why.message, "1025 exceeds the maximum allowed count of 1024"));
    params_finish(&p);
}

// A NUL in a stop string is a character like others.
static void nul_in_stop(void **state)
{
    (void)state;
    struct params p;
    struct refusal why;
    assert_int_equal(parse(&p, AT_COMPLETIONS, &limits, "{'prompt':'x','stop':'a\\u0000b'}", &why),
                     0);
    assert_int_equal(p.stops.v[0].n, 3);
    assert_memory_equal(p.stops.v[0].text, "a\0b", 3);
    params_finish(&p);
}

static void refusal_is_json(void **state)
{
    (void)state;
    struct buf out = {0};
    struct refusal r;
    assert_int_equal(refuse(&r, 404, "model", "The model `%s` does not exist.", "a\"b"), -404);
    refusal_render(&r, &out);
    assert_string_equal(buf_cstr(&out),
                        "{\"error\":{\"message\":\"The model `a\\\"b` does not exist.\",\"type\":"
                        "\"NotFoundError\",\"param\":\"model\",\"code\":404}}");
    buf_clear(&out);
    refuse_schema(&r, NULL, "x");
    refusal_render(&r, &out);
    assert_string_equal(buf_cstr(&out), "{\"error\":{\"message\":\"x\",\"type\":\"Bad Request\","
                                        "\"param\":null,\"code\":400}}");
    buf_finish(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(refuses),
        cmocka_unit_test(takes),
        cmocka_unit_test(deployment_decides),
        cmocka_unit_test(too_many_prompts),
        cmocka_unit_test(nul_in_stop),
        cmocka_unit_test(refusal_is_json),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
