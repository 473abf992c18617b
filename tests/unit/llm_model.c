// SPDX-License-Identifier: Apache-2.0
// Opening, checking and planning a model; loading it into a backend made here, which counts, notes
// what is recorded and fails on demand. Numbers are llm_parity's business.
#include "abi/plugin.h"
#include "base/buf.h"
#include "base/err.h"
#include "base/mem.h"
#include "common/file.h"
#include "common/tensors.h"
#include "kernels/kernels.h"
#include "llm/model.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

/* a backend that counts */

static struct {
    uint64_t taken;       // bytes of weights
    uint32_t calls, fail; // the call of that number fails; 0: none
    uint32_t refuse_type; // SV_DTYPES: none
    struct buf log;       // what the first program records
    sv_limits limits;
    sv_program *first;
    float inv_freq_1;
} fake;

static int counted(char *why)
{
    if (++fake.calls != fake.fail)
        return 0;
    snprintf(why, SV_WHY_MAX, "call %u failed", (unsigned)fake.calls);
    return SV_E_NOMEM;
}

static uint64_t f_weight_bytes(const sv_dev_options *o, const sv_weight_desc *d)
{
    uint64_t n = 0;
    (void)o;
    for (uint32_t i = 0; i < d->n_parts; i++) {
        sv_dtype_info t = sv_dtype(d->part[i].dtype);
        if (d->part[i].dtype == fake.refuse_type && d->part[i].rows > 1)
            return 0;
        n += d->part[i].rows * d->cols / t.elements * t.bytes + (d->part[i].bias ? 4 : 0);
    }
    return n;
}

static uint64_t f_block_bytes(const sv_dev_options *o, const sv_limits *l)
{
    (void)o;
    return l->kv_dtype == SV_BF16 ? 0 : (uint64_t)l->layers * l->kv_heads * l->head_dim * SV_BLOCK;
}

static uint64_t f_session_bytes(const sv_dev_options *o, const sv_limits *l)
{
    return 1000 + l->n_blocks * f_block_bytes(o, l);
}

static int f_weight(sv_dev *dev, const sv_weight_desc *d, sv_weight **ret, char *why)
{
    sv_weight_desc *copy = (sv_weight_desc *)(void *)dev + fake.calls;
    int rc = counted(why);
    for (uint32_t i = 0; i < d->n_parts; i++)
        if ((uintptr_t)d->part[i].data % 4)
            fail_msg("data at an odd address");
    fake.taken += f_weight_bytes(NULL, d);
    *copy = *d;
    *ret = (sv_weight *)(void *)copy;
    return rc;
}

static int f_session(sv_dev *dev, const sv_limits *l, sv_session **ret, char *why)
{
    fake.limits = *l;
    *ret = (sv_session *)(void *)dev;
    return counted(why);
}

static int f_buffer(sv_session *s, uint64_t cols, sv_buf **ret, char *why)
{
    (void)s;
    fake.limits.widths -= cols;
    *ret = (sv_buf *)(uintptr_t)cols;
    return counted(why);
}

static uint32_t f_buckets(const sv_session *s, uint32_t tokens[SV_BUCKETS_MAX])
{
    (void)s;
    tokens[0] = 1;
    tokens[1] = 8;
    tokens[2] = fake.limits.max_tokens;
    return 3;
}

static int f_record(sv_session *s, uint32_t max, sv_program **ret, char *why)
{
    (void)s;
    *ret = (sv_program *)(uintptr_t)max;
    if (!fake.first)
        fake.first = *ret;
    return counted(why);
}

static bool noted(const sv_program *p)
{
    return p == fake.first;
}

static unsigned width(const sv_buf *b)
{
    return (unsigned)(uintptr_t)b;
}

static const char *shape(const sv_weight *w)
{
    static char text[4][64];
    static unsigned at;
    const sv_weight_desc *d = (const sv_weight_desc *)(const void *)w;
    if (!w)
        return "-";
    snprintf(text[++at % 4], 64, "%u:%ux%u%s", (unsigned)d->role, (unsigned)d->part[0].rows,
             (unsigned)d->cols, d->part[0].bias ? "+b" : "");
    return text[at % 4];
}

static int f_embed(sv_program *p, const sv_weight *w, float scale, sv_buf *x)
{
    if (noted(p))
        buf_printf(&fake.log, "embed %s *%g > %u\n", shape(w), (double)scale, width(x));
    return 0;
}

static int f_qkv(sv_program *p, const sv_qkv *b)
{
    if (noted(p))
        buf_printf(&fake.log, "qkv%u %s %s q %s k %s rope %u/%u *%.4g %u > %u\n", b->layer,
                   shape(b->norm.w), shape(b->w), shape(b->q_norm.w), shape(b->k_norm.w),
                   b->rope->style, b->rope->dims, (double)b->rope->scale, width(b->x), width(b->q));
    fake.inv_freq_1 = b->rope->inv_freq[1];
    return 0;
}

static int f_attend(sv_program *p, const sv_attend *b)
{
    if (noted(p))
        buf_printf(&fake.log, "attend%u window %u *%.4g %u > %u\n", b->layer, b->window,
                   (double)b->scale, width(b->q), width(b->out));
    return 0;
}

static int f_project(sv_program *p, const sv_project *b)
{
    if (noted(p))
        buf_printf(&fake.log, "project %s %u > %u\n", shape(b->w), width(b->x), width(b->y));
    return 0;
}

static int f_gate_up(sv_program *p, const sv_gate_up *b)
{
    if (noted(p))
        buf_printf(&fake.log, "gate_up %s %s act %u %u > %u\n", shape(b->norm.w), shape(b->w),
                   b->activation, width(b->x), width(b->y));
    return 0;
}

static int f_head(sv_program *p, const sv_head *b)
{
    if (noted(p))
        buf_printf(&fake.log, "head %s eps %g %s %u\n", shape(b->norm.w), (double)b->norm.eps,
                   shape(b->w), width(b->x));
    return 0;
}

static int f_ready(sv_program *p, char *why)
{
    (void)p;
    return counted(why);
}

static const sv_kernels kernels = {.size = sizeof kernels,
                                   .version = SV_KERNELS_VERSION,
                                   .name = "fake",
                                   .depth = 1,
                                   .weight_bytes = f_weight_bytes,
                                   .session_bytes = f_session_bytes,
                                   .block_bytes = f_block_bytes,
                                   .weight = f_weight,
                                   .session = f_session,
                                   .buffer = f_buffer,
                                   .buckets = f_buckets,
                                   .record = f_record,
                                   .embed = f_embed,
                                   .qkv = f_qkv,
                                   .attend = f_attend,
                                   .project = f_project,
                                   .gate_up = f_gate_up,
                                   .head = f_head,
                                   .ready = f_ready};

static struct model_limits limits = {.max_tokens = 64,
                                     .max_seqs = 4,
                                     .max_rows = 8,
                                     .max_context = 256,
                                     .kv_dtype = SV_F32,
                                     .kv_bytes = 1 << 20};

struct told {
    double last;
    uint32_t calls;
};

static void progress(void *arg, double done, const char *what)
{
    struct told *t = arg;
    assert_true(done >= t->last && done <= 1 && *what);
    t->last = done;
    t->calls++;
}

static void reset(uint32_t fail)
{
    buf_finish(&fake.log);
    memset(&fake, 0, sizeof fake);
    fake.fail = fail;
    fake.refuse_type = SV_DTYPES;
}

static struct model *open_model(const char *name)
{
    char path[512];
    struct model *m;
    struct err err;
    snprintf(path, sizeof path, "%s/%s", LLM_DATA, name);
    if (model_open(path, &m, &err) < 0 || model_check(m, &err) < 0)
        fail_msg("%s", err.msg);
    assert_string_equal(model_path(m), path);
    return m;
}

static void plans_what_it_takes(void **state)
{
    (void)state;
    static const char *const names[] = {"tiny-llama", "tiny-llama-bias", "tiny-qwen3.gguf"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct model *m = open_model(names[i]);
        struct model_memory plan;
        struct told told = {0};
        sv_weight_desc *dev = xcalloc(64, sizeof *dev);
        reset(0);
        assert_int_equal(model_plan(m, &kernels, NULL, &limits, &plan, NULL), 0);
        assert_int_equal(plan.block, 2 * 2 * 16 * 16);
        assert_int_equal(plan.n_blocks, (1 << 20) / plan.block);
        assert_int_equal(plan.kv, plan.n_blocks * plan.block);
        assert_int_equal(plan.state, 1000);
        assert_int_equal(fake.calls, 0);
        assert_int_equal(
            model_load(m, &kernels, (sv_dev *)(void *)dev, NULL, &limits, progress, &told, NULL),
            0);
        assert_int_equal(plan.weights, fake.taken);
        assert_true(told.last == 1 && told.calls > 10);
        assert_int_equal(model_blocks(m), plan.n_blocks);
        assert_int_equal(fake.limits.n_blocks, plan.n_blocks);
        assert_int_equal(fake.limits.widths, 0); // the buffers are those announced
        model_close(m);
        xfree(dev);
    }
}

static void check_program(const char *name, const char *want)
{
    struct model *m = open_model(name);
    sv_weight_desc *dev = xcalloc(64, sizeof *dev);
    reset(0);
    assert_int_equal(
        model_load(m, &kernels, (sv_dev *)(void *)dev, NULL, &limits, NULL, NULL, NULL), 0);
    assert_int_equal(buf_len(&fake.log), 0); // programs are recorded when they are needed
    assert_ptr_equal(model_program(m, 1, 1), (sv_program *)(uintptr_t)1);
    assert_string_equal(buf_cstr(&fake.log), want);
    assert_ptr_equal(model_program(m, 2, 1), (sv_program *)(uintptr_t)8);
    assert_ptr_equal(model_program(m, 8, 0), (sv_program *)(uintptr_t)8);
    assert_ptr_equal(model_program(m, 1, 2), (sv_program *)(uintptr_t)8);
    uint32_t calls = fake.calls;
    assert_ptr_equal(model_program(m, 3, 1), (sv_program *)(uintptr_t)8);
    assert_int_equal(fake.calls, calls);       // and once
    assert_int_equal(model_record_next(m), 1); // what nobody has asked for
    assert_int_equal(fake.calls, calls + 2);
    assert_int_equal(model_record_next(m), 0);
    assert_ptr_equal(model_program(m, 9, 1), (sv_program *)(uintptr_t)64);
    assert_int_equal(fake.calls, calls + 2);
    model_close(m);
    xfree(dev);
}

static void tells_why_recording_failed(void **state)
{
    (void)state;
    sv_weight_desc *dev = xcalloc(64, sizeof *dev);
    for (uint32_t at = 1; at <= 2; at++) { // record(), ready()
        struct model *m = open_model("tiny-llama");
        char want[32];
        reset(0);
        assert_int_equal(
            model_load(m, &kernels, (sv_dev *)(void *)dev, NULL, &limits, NULL, NULL, NULL), 0);
        fake.fail = fake.calls + at;
        snprintf(want, sizeof want, "call %u failed", (unsigned)fake.fail);
        if (at == 1)
            assert_null(model_program(m, 1, 1));
        else
            assert_int_equal(model_record_next(m), SV_E_NOMEM);
        assert_string_equal(model_why(m), want);
        assert_non_null(model_program(m, 1, 1)); // it may work the next time
        model_close(m);
    }
    xfree(dev);
}

static void records_blocks(void **state)
{
    (void)state;
    check_program("tiny-llama", "embed 3:320x32 *1 > 32\n"
                                "qkv0 4:1x32 1:64x32 q - k - rope 1/16 *1 32 > 64\n"
                                "attend0 window 0 *0.25 64 > 64\n"
                                "project 0:32x64 64 > 32\n"
                                "gate_up 4:1x32 2:64x32 act 0 32 > 64\n"
                                "project 0:32x64 64 > 32\n"
                                "qkv1 4:1x32 1:64x32 q - k - rope 1/16 *1 32 > 64\n"
                                "attend1 window 0 *0.25 64 > 64\n"
                                "project 0:32x64 64 > 32\n"
                                "gate_up 4:1x32 2:64x32 act 0 32 > 64\n"
                                "project 0:32x64 64 > 32\n"
                                "head 4:1x32 eps 1e-05 3:320x32 32\n");
    assert_true(fabsf(fake.inv_freq_1 - 0.316227766f) < 1e-6f); // 10000^(-2/16)
    check_program("tiny-llama-bias.gguf", "embed 3:320x32 *1 > 32\n"
                                          "qkv0 4:1x32 1:64x32+b q - k - rope 2/16 *1 32 > 64\n"
                                          "attend0 window 0 *0.25 64 > 64\n"
                                          "project 0:32x64+b 64 > 32\n"
                                          "gate_up 4:1x32 2:64x32+b act 0 32 > 64\n"
                                          "project 0:32x64+b 64 > 32\n"
                                          "qkv1 4:1x32 1:64x32+b q - k - rope 2/16 *1 32 > 64\n"
                                          "attend1 window 0 *0.25 64 > 64\n"
                                          "project 0:32x64+b 64 > 32\n"
                                          "gate_up 4:1x32 2:64x32+b act 0 32 > 64\n"
                                          "project 0:32x64+b 64 > 32\n"
                                          "head 4:1x32 eps 1e-05 0:320x32 32\n");
    check_program("tiny-qwen2", "embed 3:320x32 *1 > 32\n"
                                "qkv0 4:1x32 1:32x32+b q - k - rope 1/8 *1 32 > 32\n"
                                "attend0 window 0 *0.3536 32 > 32\n"
                                "project 0:32x32 32 > 32\n"
                                "gate_up 4:1x32 2:64x32 act 0 32 > 64\n"
                                "project 0:32x64 64 > 32\n"
                                "qkv1 4:1x32 1:32x32+b q - k - rope 1/8 *1 32 > 32\n"
                                "attend1 window 24 *0.3536 32 > 32\n"
                                "project 0:32x32 32 > 32\n"
                                "gate_up 4:1x32 2:64x32 act 0 32 > 64\n"
                                "project 0:32x64 64 > 32\n"
                                "head 4:1x32 eps 1e-05 0:320x32 32\n");
    check_program("tiny-qwen3", "embed 3:320x32 *1 > 32\n"
                                "qkv0 4:1x32 1:64x32 q 4:1x16 k 4:1x16 rope 1/16 *1 32 > 64\n"
                                "attend0 window 0 *0.25 64 > 64\n"
                                "project 0:32x64 64 > 32\n"
                                "gate_up 4:1x32 2:64x32 act 0 32 > 64\n"
                                "project 0:32x64 64 > 32\n"
                                "qkv1 4:1x32 1:64x32 q 4:1x16 k 4:1x16 rope 1/16 *1 32 > 64\n"
                                "attend1 window 0 *0.25 64 > 64\n"
                                "project 0:32x64 64 > 32\n"
                                "gate_up 4:1x32 2:64x32 act 0 32 > 64\n"
                                "project 0:32x64 64 > 32\n"
                                "head 4:1x32 eps 1e-06 3:320x32 32\n");
}

// Whatever call of the backend fails, its text and code come back and nothing is leaked.
static void survives_failures(void **state)
{
    (void)state;
    uint32_t calls;
    sv_weight_desc *dev = xcalloc(64, sizeof *dev);
    for (uint32_t at = 1, n = 1; at <= n; at++) {
        struct model *m = open_model("tiny-qwen3");
        struct err err = {0};
        char want[32];
        snprintf(want, sizeof want, "call %u failed", (unsigned)at);
        reset(at);
        int rc = model_load(m, &kernels, (sv_dev *)(void *)dev, NULL, &limits, NULL, NULL, &err);
        if (rc != SV_E_NOMEM || !strstr(err.msg, want) || !strstr(err.msg, "tiny-qwen3' on fake"))
            fail_msg("call %u: %d \"%s\"", (unsigned)at, rc, err.msg);
        model_close(m);
        if (at > 1)
            continue;
        m = open_model("tiny-qwen3");
        reset(0);
        assert_int_equal(
            model_load(m, &kernels, (sv_dev *)(void *)dev, NULL, &limits, NULL, NULL, &err), 0);
        n = fake.calls;
        model_close(m);
    }
    calls = fake.calls;
    assert_true(calls > 20);
    xfree(dev);
}

static void refuses_plans(void **state)
{
    (void)state;
    struct model *m = open_model("tiny-qwen3.gguf");
    struct model_memory plan;
    struct model_limits l = limits;
    struct err err;
    reset(0);
    fake.refuse_type = SV_Q5_1;
    assert_int_equal(model_plan(m, &kernels, NULL, &l, &plan, &err), SV_E_UNSUPPORTED);
    assert_non_null(strstr(err.msg, "tiny-qwen3.gguf': tensor 'blk.0.ffn_down.weight': the backend "
                                    "fake does not have Q5_1 with 64 columns"));
    reset(0);
    l.kv_bytes = 1023;
    assert_int_equal(model_plan(m, &kernels, NULL, &l, &plan, &err), SV_E_INVALID);
    assert_non_null(strstr(err.msg, "a KV cache of 1023 bytes has 0 blocks of 1024 bytes"));
    l.kv_dtype = SV_BF16;
    assert_int_equal(model_plan(m, &kernels, NULL, &l, &plan, &err), SV_E_UNSUPPORTED);
    assert_non_null(strstr(err.msg, "with BF16 in its KV cache"));
    model_close(m);
}

/* files */

static void reads_templates(void **state)
{
    (void)state;
    static const char *const names[] = {"tiny-llama", "tiny-llama.gguf", "tiny-llama3",
                                        "tiny-llama-bias", "tiny-qwen3.gguf"};
    struct buf want = {0};
    assert_int_equal(file_read(LLM_DATA "/tiny-llama/chat_template.jinja", 4096, &want, NULL), 0);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct model *m = open_model(names[i]);
        struct bytes t = model_template(m);
        assert_int_equal(t.n, buf_len(&want));
        assert_memory_equal(t.p, buf_head(&want), t.n);
        model_close(m);
    }
    buf_finish(&want);
}

static char folder[64];

// A copy of a checkpoint with one file replaced; NULL: left out.
static void copy_model(const char *name, const char *file, const char *text)
{
    char command[1024], path[512];
    snprintf(command, sizeof command, "rm -rf %s/m && cp -r %s/%s %s/m && rm -f %s/m/%s", folder,
             LLM_DATA, name, folder, folder, file);
    assert_int_equal(system(command), 0);
    snprintf(path, sizeof path, "%s/m/%s", folder, file);
    FILE *f = text ? fopen(path, "w") : NULL;
    if (f && fputs(text, f) >= 0)
        fclose(f);
}

static void expect(const char *says)
{
    char path[128];
    struct model *m = NULL;
    struct err err = {0};
    snprintf(path, sizeof path, "%s/m", folder);
    int rc = model_open(path, &m, &err);
    if (rc == 0)
        rc = model_check(m, &err);
    if (says ? rc >= 0 || !strstr(err.msg, says) : rc < 0)
        fail_msg("wanted \"%s\", got %d \"%s\"", says ? says : "success", rc, err.msg);
    if (m && !says)
        assert_int_equal(model_template(m).n, 0);
    model_close(m);
}

static void opens_folders(void **state)
{
    (void)state;
    static const struct {
        const char *file, *text, *says;
    } rows[] = {
        {"config.json", NULL, "/m/config.json': No such file"},
        {"config.json", "{", "/m/config.json': not valid JSON"},
        {"config.json", "[]", "/m/config.json': no JSON object"},
        {"config.json", "{\"architectures\":[\"X\"]}",
         "/m/config.json': architecture 'X' is not supported"},
        {"generation_config.json", "x", "/m/generation_config.json': not valid JSON"},
        {"model.safetensors", NULL, "has neither model.safetensors nor"},
        {"model.safetensors", "x", "/m/model.safetensors': not a safetensors file"},
        {"chat_template.jinja", "\xff", "the chat template is not valid UTF-8"},
        {"chat_template.jinja", NULL, NULL}, // tokenizer_config.json has none either
        {"generation_config.json", NULL, ""},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        copy_model("tiny-llama", rows[i].file, rows[i].text);
        if (rows[i].says && !*rows[i].says) {
            struct model *m;
            char path[128];
            snprintf(path, sizeof path, "%s/m", folder);
            assert_int_equal(model_open(path, &m, NULL), 0);
            assert_true(model_spec(m)->n_eos == 1 && model_spec(m)->temperature < 0);
            model_close(m);
        } else {
            expect(rows[i].says);
        }
    }
    copy_model("tiny-llama-bias", "tokenizer_config.json", "{\"chat_template\":7}");
    expect("'chat_template' is no text");
    copy_model("tiny-llama-bias", "tokenizer_config.json",
               "{\"chat_template\":[{\"name\":\"rag\"}]}");
    expect(NULL);
}

// config.json says something else than the tensors.
static void checks_tensors(void **state)
{
    (void)state;
    static const struct {
        const char *name, *from, *to, *says;
    } rows[] = {
        {"tiny-llama", "\"hidden_size\": 32", "\"hidden_size\": 64",
         "tensor 'model.embed_tokens.weight' is [320, 32]; by the model's numbers it is [320, 64]"},
        {"tiny-llama", "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 3",
         "tensor 'model.layers.2.input_layernorm.weight' is missing"},
        {"tiny-llama", "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 1",
         "has no place in a model of architecture LlamaForCausalLM"},
        {"tiny-llama", "\"num_key_value_heads\": 2", "\"num_key_value_heads\": 4",
         "tensor 'model.layers.0.self_attn.k_proj.weight' is [32, 32]; by the model's numbers it "
         "is "
         "[64, 32]"},
        {"tiny-llama", "\"tie_word_embeddings\": true", "\"tie_word_embeddings\": false",
         "tensor 'lm_head.weight' is missing"},
        {"tiny-llama", "\"attention_bias\": false", "\"attention_bias\": true",
         "tensor 'model.layers.0.self_attn.q_proj.bias' is missing"},
        {"tiny-llama-bias", "\"mlp_bias\": true", "\"mlp_bias\": false",
         ".bias' has no place in a model of architecture LlamaForCausalLM"},
        {"tiny-qwen3", "Qwen3ForCausalLM", "LlamaForCausalLM",
         "_norm.weight' has no place in a model of architecture LlamaForCausalLM"},
        {"tiny-llama", "LlamaForCausalLM", "Qwen3ForCausalLM",
         "tensor 'model.layers.0.self_attn.q_norm.weight' is missing"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char path[512];
        struct buf text = {0};
        snprintf(path, sizeof path, "%s/%s/config.json", LLM_DATA, rows[i].name);
        assert_int_equal(file_read(path, 1 << 16, &text, NULL), 0);
        const char *at = strstr(buf_cstr(&text), rows[i].from);
        assert_non_null(at);
        char *changed = xasprintf("%.*s%s%s", (int)(at - buf_head(&text)), buf_head(&text),
                                  rows[i].to, at + strlen(rows[i].from));
        copy_model(rows[i].name, "config.json", changed);
        expect(rows[i].says);
        xfree(changed);
        buf_finish(&text);
    }
}

// An old safetensors file may begin its data at an odd address; a type may be none for weights.
static void takes_odd_files(void **state)
{
    (void)state;
    struct buf file = {0};
    char path[128];
    struct model *m;
    assert_int_equal(file_read(LLM_DATA "/tiny-llama/model.safetensors", 1 << 20, &file, NULL), 0);
    uint64_t n;
    memcpy(&n, buf_head(&file), 8);
    copy_model("tiny-llama", "model.safetensors", NULL);
    snprintf(path, sizeof path, "%s/m/model.safetensors", folder);
    FILE *f = fopen(path, "w");
    uint64_t odd = n + 1;
    fwrite(&odd, 1, 8, f);
    fwrite(buf_head(&file) + 8, 1, n, f);
    fputc(' ', f);
    fwrite(buf_head(&file) + 8 + n, 1, buf_len(&file) - 8 - n, f);
    fclose(f);
    snprintf(path, sizeof path, "%s/m", folder);
    assert_int_equal(model_open(path, &m, NULL), 0);
    sv_weight_desc *dev = xcalloc(64, sizeof *dev);
    reset(0);
    assert_int_equal(
        model_load(m, &kernels, (sv_dev *)(void *)dev, NULL, &limits, NULL, NULL, NULL), 0);
    model_close(m);
    xfree(dev);
    for (char *p = buf_head(&file); (p = memmem(p, n, "\"F32\"", 5)); p++)
        memcpy(p, "\"I32\"", 5);
    snprintf(path, sizeof path, "%s/m/model.safetensors", folder);
    f = fopen(path, "w");
    fwrite(buf_head(&file), 1, buf_len(&file), f);
    fclose(f);
    expect("is of type I32; supported are F32, F16, BF16, Q4_0");
    buf_finish(&file);
}

// Without weights: config.json alone says what they are, and a backend makes them up.
static void makes_up_weights(void **state)
{
    (void)state;
    struct model *m;
    struct model_memory real, made;
    struct err err = {0};
    sv_weight_desc *dev = xcalloc(64, sizeof *dev);
    reset(0);
    assert_int_equal(model_open_dummy(LLM_DATA "/tiny-llama-bias", &m, &err), 0);
    assert_int_equal(model_check(m, &err), 0);
    assert_int_equal(
        model_load(m, &kernels, (sv_dev *)(void *)dev, NULL, &limits, NULL, NULL, &err), 0);
    uint64_t seed = 0;
    for (const sv_weight_desc *d = dev; d->size; d++) {
        assert_true(seed == 0 || d->seed > seed);
        seed = d->seed;
        for (uint32_t i = 0; i < d->n_parts; i++) {
            assert_null(d->part[i].data);
            assert_int_equal(d->part[i].dtype, SV_BF16);
        }
        assert_int_equal(d->part[0].bias != NULL,
                         d->role == SV_QKV || d->role == SV_GATE_UP ||
                             (d->role == SV_MATRIX && d->part[0].rows < 320));
    }
    assert_int_equal(model_plan(m, &kernels, NULL, &limits, &made, NULL), 0);
    model_close(m);
    m = open_model("tiny-llama-bias");
    assert_int_equal(model_plan(m, &kernels, NULL, &limits, &real, NULL), 0);
    assert_int_equal(real.stored, made.stored);
    model_close(m);
    xfree(dev);
    assert_true(model_open_dummy(LLM_DATA "/tiny-llama.gguf", &m, &err) < 0);
    assert_non_null(strstr(err.msg, "dummy weights want a folder"));
}

static void opens_models_alone(void **state)
{
    (void)state;
    static const struct {
        const char *path, *says;
    } rows[] = {
        {LLM_DATA "/tiny-llama/model.safetensors", "name the folder with config.json"},
        {LLM_DATA "/tiny-llama/config.json", "config.json': not a GGUF file"},
        {LLM_DATA "/nothing.gguf", "nothing.gguf': No such file"},
        {LLM_DATA, "/config.json': No such file"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct model *m;
        struct err err = {0};
        int rc = model_open(rows[i].path, &m, &err);
        if (rc >= 0 || !strstr(err.msg, rows[i].says))
            fail_msg("wanted \"%s\", got %d \"%s\"", rows[i].says, rc, err.msg);
    }
}

static int make_folder(void **state)
{
    (void)state;
    snprintf(folder, sizeof folder, "/tmp/model-XXXXXX");
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
    (void)state;
    char command[128];
    reset(0);
    snprintf(command, sizeof command, "rm -rf %s", folder);
    return system(command);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plans_what_it_takes),
        cmocka_unit_test(records_blocks),
        cmocka_unit_test(tells_why_recording_failed),
        cmocka_unit_test(survives_failures),
        cmocka_unit_test(refuses_plans),
        cmocka_unit_test(reads_templates),
        cmocka_unit_test(opens_folders),
        cmocka_unit_test(checks_tensors),
        cmocka_unit_test(takes_odd_files),
        cmocka_unit_test(opens_models_alone),
        cmocka_unit_test(makes_up_weights),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
