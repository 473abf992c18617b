// SPDX-License-Identifier: Apache-2.0
// What config.json says and what is refused; RoPE frequencies against transformers.
#include "abi/plugin.h"
#include "base/buf.h"
#include "base/err.h"
#include "common/file.h"
#include "common/gguf.h"
#include "common/json.h"
#include "kernels/kernels.h"
#include "llm/arch.h"
#include "llm/rope.h"
#include "llm/spec.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

// Of two equal keys the last counts: rows append what they change.
#define BASE                                                                                       \
    "\"architectures\":[\"LlamaForCausalLM\"],\"num_hidden_layers\":4,\"hidden_size\":64,"         \
    "\"intermediate_size\":128,\"num_attention_heads\":4,\"num_key_value_heads\":2,"               \
    "\"vocab_size\":100,\"max_position_embeddings\":2048,\"eos_token_id\":2"
#define QWEN2 "\"architectures\":[\"Qwen2ForCausalLM\"],"
#define QWEN3 "\"architectures\":[\"Qwen3ForCausalLM\"],"

static int parse(const char *changes, const char *generation, struct spec *s, struct err *err)
{
    char text[4096];
    yyjson_doc *config, *other = NULL;
    snprintf(text, sizeof text, "{%s%s%s}", BASE, *changes ? "," : "", changes);
    assert_int_equal(json_parse(text, strlen(text), sizeof text, &config, err), 0);
    if (generation)
        assert_int_equal(json_parse(generation, strlen(generation), 4096, &other, err), 0);
    int rc = spec_from_config(yyjson_doc_get_root(config), yyjson_doc_get_root(other), s, err);
    yyjson_doc_free(config);
    yyjson_doc_free(other);
    return rc;
}

static struct spec good(const char *changes, const char *generation)
{
    struct spec s;
    struct err err;
    if (parse(changes, generation, &s, &err) < 0)
        fail_msg("%s: %s", changes, err.msg);
    return s;
}

static void reads_sizes(void **state)
{
    (void)state;
    struct spec s = good("", NULL);
    assert_string_equal(s.arch, "LlamaForCausalLM");
    assert_true(s.layers == 4 && s.d_model == 64 && s.d_ff == 128 && s.heads == 4);
    assert_true(s.kv_heads == 2 && s.head_dim == 16 && s.vocab == 100 && s.context == 2048);
    assert_true(s.norm_eps == 1e-6 && s.attention_scale == 0.25 && !s.tied && s.window == 0);
    assert_true(s.rope.kind == ROPE_DEFAULT && s.rope.base == 10000 && s.rope.dims == 16);
    assert_true(s.rope.style == SV_ROPE_HALF && s.has[T_HEAD] && !s.has[T_Q_BIAS]);
    s = good("\"head_dim\":32,\"tie_word_embeddings\":true,\"rms_norm_eps\":1e-5", NULL);
    assert_true(s.head_dim == 32 && s.rope.dims == 32 && s.tied && s.norm_eps == 1e-5);
    assert_false(s.has[T_HEAD]);
    s = good("\"num_key_value_heads\":null,\"head_dim\":null", NULL);
    assert_true(s.kv_heads == 4 && s.head_dim == 16);
    s = good(QWEN2 "\"num_key_value_heads\":null", NULL);
    assert_int_equal(s.kv_heads, 4);
    s = good(QWEN3 "\"num_attention_heads\":8", NULL);
    assert_true(s.head_dim == 128 && s.has[T_Q_NORM] && s.has[T_K_NORM] && !s.has[T_Q_BIAS]);
}

static void reads_biases(void **state)
{
    (void)state;
    struct spec s = good("\"attention_bias\":true", NULL);
    assert_true(s.has[T_Q_BIAS] && s.has[T_O_BIAS] && !s.has[T_GATE_BIAS]);
    s = good("\"mlp_bias\":true", NULL);
    assert_true(!s.has[T_Q_BIAS] && s.has[T_GATE_BIAS] && s.has[T_UP_BIAS] && s.has[T_DOWN_BIAS]);
    s = good(QWEN2 "\"attention_bias\":false,\"mlp_bias\":true", NULL);
    assert_true(s.has[T_Q_BIAS] && s.has[T_K_BIAS] && s.has[T_V_BIAS] && !s.has[T_O_BIAS]);
    assert_true(!s.has[T_DOWN_BIAS] && !s.has[T_Q_NORM]);
    s = good("\"architectures\":[\"MistralForCausalLM\"],\"attention_bias\":true", NULL);
    assert_false(s.has[T_Q_BIAS] || s.has[T_O_BIAS]);
}

static void reads_windows(void **state)
{
    (void)state;
    static const struct {
        const char *changes;
        uint32_t window;
        const char *layers; // 'w' or '-'
    } rows[] = {
        {"\"sliding_window\":8", 0, "----"}, // Llama has none
        {"\"architectures\":[\"MistralForCausalLM\"],\"sliding_window\":8", 8, "wwww"},
        {"\"architectures\":[\"MistralForCausalLM\"],\"sliding_window\":null", 0, "----"},
        {"\"architectures\":[\"MistralForCausalLM\"]", 4096, "wwww"},
        {QWEN2 "\"sliding_window\":8", 0, "----"},
        {QWEN2 "\"sliding_window\":8,\"use_sliding_window\":true", 8, "----"},
        {QWEN2 "\"sliding_window\":8,\"use_sliding_window\":true,\"max_window_layers\":1", 8,
         "-www"},
        {QWEN2 "\"sliding_window\":8,\"use_sliding_window\":true,\"max_window_layers\":9", 8,
         "----"},
        {QWEN3 "\"sliding_window\":8,\"use_sliding_window\":true,\"layer_types\":[\"sliding_"
               "attention\",\"full_attention\",\"full_attention\",\"sliding_attention\"]",
         8, "w--w"},
        {QWEN3 "\"sliding_window\":8,\"use_sliding_window\":false,\"layer_types\":[\"sliding_"
               "attention\",\"full_attention\",\"full_attention\",\"sliding_attention\"]",
         0, "----"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct spec s = good(rows[i].changes, NULL);
        char layers[5] = "";
        for (uint32_t k = 0; k < 4; k++)
            layers[k] = s.windowed[k] ? 'w' : '-';
        assert_int_equal(s.window, rows[i].window);
        assert_string_equal(layers, rows[i].layers);
    }
}

#define YARN "\"rope_type\":\"yarn\",\"factor\":4"

static void reads_rope(void **state)
{
    (void)state;
    struct spec s =
        good("\"rope_theta\":5e5,\"rope_scaling\":{\"type\":\"linear\",\"factor\":2}", NULL);
    assert_true(s.rope.kind == ROPE_LINEAR && s.rope.factor == 2 && s.rope.base == 5e5);
    s = good("\"rope_parameters\":{\"rope_type\":\"default\",\"rope_theta\":7}", NULL);
    assert_true(s.rope.kind == ROPE_DEFAULT && s.rope.base == 7);
    s = good("\"rope_scaling\":null,\"rope_theta\":8", NULL);
    assert_true(s.rope.kind == ROPE_DEFAULT && s.rope.base == 8);
    s = good("\"rope_scaling\":{" YARN "}", NULL);
    assert_true(s.rope.kind == ROPE_YARN && s.rope.original_context == 2048);
    assert_true(s.rope.beta_fast == 32 && s.rope.beta_slow == 1 && s.rope.truncate);
    s = good("\"rope_scaling\":{" YARN ",\"original_max_position_embeddings\":512}", NULL);
    assert_true(s.rope.original_context == 512 && s.rope.factor == 4);
    s = good("\"rope_scaling\":{\"type\":\"yarn\",\"factor\":null,"
             "\"original_max_position_embeddings\":512}",
             NULL);
    assert_true(s.rope.factor == 4);
    s = good("\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8,\"low_freq_factor\":1,"
             "\"high_freq_factor\":4,\"original_max_position_embeddings\":1024}",
             NULL);
    assert_true(s.rope.kind == ROPE_LLAMA3 && s.rope.high_freq_factor == 4);
    assert_true(s.rope.original_context == 1024);
}

static void reads_generation(void **state)
{
    (void)state;
    struct spec s = good("\"bos_token_id\":1", NULL);
    assert_true(s.bos == 1 && s.n_eos == 1 && s.eos[0] == 2);
    assert_true(s.temperature < 0 && s.top_p < 0 && s.top_k < 0 && s.min_p < 0);
    assert_true(s.repetition_penalty < 0);
    s = good("\"bos_token_id\":1",
             "{\"eos_token_id\":[7,9,7],\"bos_token_id\":5,\"temperature\":0.6,"
             "\"top_k\":20,\"top_p\":0.9,\"repetition_penalty\":1.05}");
    assert_true(s.bos == 5 && s.n_eos == 2 && s.eos[0] == 7 && s.eos[1] == 9);
    assert_true(s.temperature == 0.6 && s.top_k == 20 && s.top_p == 0.9);
    assert_true(s.repetition_penalty == 1.05);
    s = good("\"eos_token_id\":[3,4]", "{\"eos_token_id\":null}");
    assert_true(s.bos == -1 && s.n_eos == 2 && s.eos[1] == 4);
}

static void refuses(void **state)
{
    (void)state;
    static const struct {
        const char *changes, *says;
    } rows[] = {
        {"\"architectures\":[\"GPT2LMHeadModel\"]",
         "architecture 'GPT2LMHeadModel' is not supported; known are: LlamaForCausalLM, "
         "MistralForCausalLM, Qwen2ForCausalLM, Qwen3ForCausalLM"},
        {"\"architectures\":[]", "'architectures' is missing"},
        {"\"architectures\":null", "'architectures' is missing"},
        {"\"architectures\":\"LlamaForCausalLM\"", "'architectures' is missing"},
        {"\"quantization_config\":{\"quant_method\":\"gptq\"}", "'quantization_config' is not"},
        {"\"num_local_experts\":8", "'num_local_experts' is not supported"},
        {"\"hidden_act\":\"gelu\"", "'hidden_act' is 'gelu'; only silu"},
        {"\"hidden_size\":null", "'hidden_size' is missing"},
        {"\"hidden_size\":-64", "'hidden_size' is no whole number"},
        {"\"hidden_size\":64.0", "'hidden_size' is no whole number"},
        {"\"hidden_size\":\"64\"", "'hidden_size' is no whole number"},
        {"\"hidden_size\":4294967296", "'hidden_size' is no whole number"},
        {"\"hidden_size\":0,\"head_dim\":16", "0 columns (hidden_size"},
        {"\"hidden_size\":1048577", "1048577 columns (hidden_size, embedding_length); allowed"},
        {"\"num_hidden_layers\":0", "0 layers; allowed are 1 to 1024"},
        {"\"num_hidden_layers\":1025", "1025 layers"},
        {"\"num_attention_heads\":0", "0 heads"},
        {"\"num_attention_heads\":4000000000", "heads; allowed"},
        {"\"num_key_value_heads\":3", "3 key-value heads don't divide the 4 heads"},
        {"\"num_key_value_heads\":0", "0 key-value heads"},
        {"\"head_dim\":15", "4 heads of 15 columns"},
        {"\"head_dim\":2048", "2048 columns of a head"},
        {"\"vocab_size\":4294967295", "words in its vocabulary"},
        {"\"max_position_embeddings\":0", "tokens of context"},
        {"\"rms_norm_eps\":\"x\"", "'rms_norm_eps' is no number"},
        {"\"rms_norm_eps\":2", "its epsilon is 2"},
        {"\"tie_word_embeddings\":1", "'tie_word_embeddings' is neither true nor false"},
        {"\"attention_bias\":\"yes\"", "'attention_bias' is neither"},
        {"\"partial_rotary_factor\":0.5", "'partial_rotary_factor' is 0.5"},
        {"\"rope_theta\":0", "RoPE: its base (rope_theta, rope.freq_base) is 0"},
        {"\"rope_scaling\":[]", "'rope_scaling' is no object"},
        {"\"rope_scaling\":{\"type\":\"dynamic\",\"factor\":2}",
         "'rope_scaling': 'rope_type' 'dynamic' is not supported; known are: default, linear"},
        {"\"rope_scaling\":{\"type\":\"linear\"}", "'rope_scaling': 'factor' is missing"},
        {"\"rope_scaling\":{\"type\":\"linear\",\"factor\":0}", "RoPE: its factor is 0"},
        {"\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8}",
         "'low_freq_factor' is missing"},
        {"\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8,\"low_freq_factor\":4,"
         "\"high_freq_factor\":4}",
         "high_freq_factor 4 is not above"},
        {"\"rope_scaling\":{" YARN ",\"beta_fast\":-1}", "its beta_fast is -1"},
        {"\"rope_parameters\":{\"full_attention\":{},\"sliding_attention\":{}}",
         "'rope_parameters': one RoPE for each kind of layer"},
        {QWEN2 "\"sliding_window\":8,\"use_sliding_window\":true,\"layer_types\":[]",
         "'layer_types'"},
        {QWEN2 "\"layer_types\":[\"full_attention\",\"full_attention\",\"full_attention\",\"ssm\"]",
         "'layer_types' has a kind other than"},
        {QWEN2 "\"sliding_window\":4000000000,\"use_sliding_window\":true", "a sliding window of"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct spec s;
        struct err err = {0};
        int rc = parse(rows[i].changes, NULL, &s, &err);
        if (rc >= 0 || !strstr(err.msg, rows[i].says))
            fail_msg("%s: wanted \"%s\", got %d \"%s\"", rows[i].changes, rows[i].says, rc,
                     err.msg);
    }
}

static void check_rope(yyjson_val *row)
{
    char changes[2048], *parameters = yyjson_val_write(json_get(row, "rope_parameters"), 0, NULL);
    yyjson_val *want = json_get(row, "inv_freq");
    float got[128];
    snprintf(changes, sizeof changes,
             "\"max_position_embeddings\":131072,\"head_dim\":%d,"
             "\"rope_parameters\":%s",
             (int)json_int(row, "head_dim", 0), parameters);
    struct spec s = good(changes, NULL);
    assert_int_equal(yyjson_arr_size(want), s.rope.dims / 2);
    rope_frequencies(&s.rope, got);
    for (size_t i = 0; i < s.rope.dims / 2; i++) {
        double w = yyjson_get_num(yyjson_arr_get(want, i));
        if (fabs(got[i] - w) > 3e-7 * w)
            fail_msg("%s: [%zu] is %.9g, not %.9g", changes, i, (double)got[i], w);
    }
    assert_float_equal(rope_scale(&s.rope), json_num(row, "scale", 0), 1e-7);
    free(parameters);
}

static void computes_rope(void **state)
{
    (void)state;
    struct buf text = {0};
    yyjson_doc *doc;
    size_t i, n;
    yyjson_val *row;
    assert_int_equal(file_read(LLM_DATA "/rope.json", 1 << 20, &text, NULL), 0);
    assert_int_equal(json_parse(buf_cstr(&text), buf_len(&text), 1 << 20, &doc, NULL), 0);
    assert_int_equal(yyjson_arr_size(yyjson_doc_get_root(doc)), 8);
    yyjson_arr_foreach(yyjson_doc_get_root(doc), i, n, row) check_rope(row);
    yyjson_doc_free(doc);
    buf_finish(&text);
}

static void reads_gguf(void **state)
{
    (void)state;
    static const struct {
        const char *file;
        uint32_t style;
        enum rope_kind kind;
        bool tied, qkv_bias, mlp_bias, qk_norm, factors;
        uint32_t window;
    } rows[] = {
        {"tiny-llama", SV_ROPE_PAIRS, ROPE_DEFAULT, true, false, false, false, false, 0},
        {"tiny-llama-bias", SV_ROPE_PAIRS, ROPE_LINEAR, false, true, true, false, false, 0},
        {"tiny-llama3", SV_ROPE_PAIRS, ROPE_DEFAULT, true, false, false, false, true, 0},
        {"tiny-mistral", SV_ROPE_PAIRS, ROPE_DEFAULT, false, false, false, false, false, 24},
        {"tiny-qwen2-yarn", SV_ROPE_HALF, ROPE_YARN, true, true, false, false, false, 0},
        {"tiny-qwen3", SV_ROPE_HALF, ROPE_DEFAULT, true, false, false, true, false, 0},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char path[512];
        struct gguf *g;
        struct spec s;
        struct err err = {0};
        snprintf(path, sizeof path, "%s/%s.gguf", LLM_DATA, rows[i].file);
        assert_int_equal(gguf_open(path, &g, &err), 0);
        if (spec_from_gguf(g, &s, &err) < 0)
            fail_msg("%s: %s", rows[i].file, err.msg);
        assert_true(s.layers == 2 && s.d_model == 32 && s.heads == 4 && s.kv_heads == 2);
        assert_true(s.vocab == 320 && s.context == 8192 && s.n_eos == 1 && s.eos[0] == 2);
        assert_true(s.rope.style == rows[i].style && s.rope.kind == rows[i].kind);
        assert_true(s.rope.dims == s.head_dim && s.tied == rows[i].tied);
        assert_true(s.has[T_Q_BIAS] == rows[i].qkv_bias && s.has[T_UP_BIAS] == rows[i].mlp_bias);
        assert_true(s.has[T_K_NORM] == rows[i].qk_norm && !!s.rope.factors == rows[i].factors);
        assert_true(s.window == rows[i].window && s.windowed[1] == (rows[i].window > 0));
        gguf_close(g);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_sizes),   cmocka_unit_test(reads_biases),
        cmocka_unit_test(reads_windows), cmocka_unit_test(reads_rope),
        cmocka_unit_test(refuses),       cmocka_unit_test(reads_generation),
        cmocka_unit_test(computes_rope), cmocka_unit_test(reads_gguf),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
