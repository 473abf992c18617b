// SPDX-License-Identifier: Apache-2.0
/*
 * kernels.h - what model code asks of a compute backend: blocks, recorded once, launched each step.
 *
 * Backend  one .so (kernels_cpu.so, kernels_cuda.so) that exports sv_kernels_v1, a table of
 *          functions; found by name beside the plugin, loaded with dlopen. C11, no dependencies.
 * Shape    sv_dev       the device and its threads
 *          sv_weight    a matrix or vector in the backend's own packing, handed over once
 *          sv_session   all that steps write: activations, KV blocks, page table, sampling state
 *          sv_program   a recorded list of blocks; on CUDA a graph
 *          sv_batch     the numbers of one step, read by launch(), one copy to the device
 *          sv_result    what a step sampled, seen by the host at collect()
 * Rules    launch() allocates nothing, waits for nothing and takes no host length that shapes the
 *          program: counts, tokens, positions, page-table edits are all in the batch. A sampled
 *          token stays on the device: a later batch names it as SV_SAMPLED. So launch(n + 1) may
 *          come before collect(n), up to `depth` launches deep.
 * Numbers  weights as stored; activations, sums and logits f32 unless a backend says otherwise in
 *          `about`. On the CPU each output is summed in one fixed order, whatever the batch: logits
 *          of a row are bit-equal alone and batched, in one chunk or in many.
 * KV       blocks of SV_BLOCK tokens; block b of a sequence's page table holds positions
 *          [b * SV_BLOCK, (b + 1) * SV_BLOCK). One block spans all layers. Block numbers are the
 *          caller's business: the backend never allocates one. Sequences may share blocks that
 *          earlier launches have filled; what this launch writes, its own sequence alone reads.
 * Slots    [0, max_seqs): a running sequence's place; page table row and sampling state live there.
 * Owner    everything hangs on its sv_dev; close() frees what is left. Weight data (mmapped files)
 *          must stay until weight() returns, or until close() if sv_weight_desc.keep is set.
 * Threads  one caller at a time for a device and all it owns.
 * Codes    0 or a negated HTTP status as in plugin.h: -400 a shape or type that this backend
 *          does not have, -507 no memory, -599 the device is lost. `why` takes SV_WHY_MAX bytes of
 *          text on failure; NULL is fine.
 */
#ifndef SV_KERNELS_H
#define SV_KERNELS_H

#include <stddef.h>
#include <stdint.h>

enum {
    SV_KERNELS_VERSION = 1,
    SV_BLOCK = 16,      // tokens of a KV block
    SV_WHY_MAX = 512,   // bytes
    SV_TOP_MAX = 20,    // logprobs of alternatives a row can give
    SV_PARTS_MAX = 3,   // matrices of one weight
    SV_BUCKETS_MAX = 64 // programs of different size for one model
};

// How the elements of a weight are stored: GGML's block formats (ggml-common.h of llama.cpp).
enum {
    SV_F32 = 0,
    SV_F16,
    SV_BF16,
    SV_Q4_0, // 32 elements: f16 d, 16 bytes of nibbles; w = d * (q - 8)
    SV_Q4_1, // 32: f16 d, f16 m, 16 bytes; w = d * q + m
    SV_Q5_0, // 32: f16 d, 4 bytes of fifth bits, 16 bytes; w = d * (q - 16)
    SV_Q5_1, // 32: f16 d, f16 m, 4 bytes, 16 bytes; w = d * q + m
    SV_Q8_0, // 32: f16 d, 32 int8; w = d * q
    SV_Q4_K, // 256: f16 d, f16 dmin, 12 bytes of 6-bit scales and mins, 128 bytes of nibbles
    SV_Q5_K, // 256: f16 d, f16 dmin, 12 bytes, 32 bytes of fifth bits, 128 bytes
    SV_Q6_K, // 256: 128 bytes of low nibbles, 64 bytes of high bits, 16 int8 scales, f16 d
    SV_DTYPES
};

typedef struct sv_dtype_info {
    const char *name;
    uint32_t elements, bytes; // of a block
} sv_dtype_info;

static inline sv_dtype_info sv_dtype(uint32_t dtype)
{
    static const sv_dtype_info table[SV_DTYPES] = {
        {"F32", 1, 4},      {"F16", 1, 2},      {"BF16", 1, 2},     {"Q4_0", 32, 18},
        {"Q4_1", 32, 20},   {"Q5_0", 32, 22},   {"Q5_1", 32, 24},   {"Q8_0", 32, 34},
        {"Q4_K", 256, 144}, {"Q5_K", 256, 176}, {"Q6_K", 256, 210},
    };
    return dtype < SV_DTYPES ? table[dtype] : (sv_dtype_info){"?", 0, 0};
}

#ifdef __CUDACC__
#define SV_HOST_DEVICE __host__ __device__
#else
#define SV_HOST_DEVICE
#endif

// A number in [-1, 1) for element i of a weight that is made up (SplitMix64's finish).
SV_HOST_DEVICE static inline float sv_made_up(uint64_t seed, uint64_t i)
{
    uint64_t z = seed * 0x9e3779b97f4a7c15u + i * 0xd1342543de82ef95u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return (float)((int32_t)((z ^ (z >> 31)) >> 40) - (1 << 23)) * 0x1p-23f;
}

typedef struct sv_dev sv_dev;
typedef struct sv_weight sv_weight;
typedef struct sv_session sv_session;
typedef struct sv_buf sv_buf; // activations of every token of a step: f32 or what the backend uses
typedef struct sv_program sv_program;

enum {
    SV_ACT_AUTO = 0, // what keeps answers as f32 activations would give them
    SV_ACT_F32,      // f32 throughout: the reference
    SV_ACT_INT8      // activations rounded to 8 bit in blocks of 32: faster, coarser
};

typedef struct sv_dev_options {
    uint32_t size;
    int32_t index;        // device, as the vendor's API counts
    uint32_t threads;     // CPU: the caller's included; 0 = as many as the process may run on
    uint32_t activations; // SV_ACT_*: with quantised weights
    const char *isa;      // CPU: "scalar", "avx2", "avx512", "neon"; NULL = the best there is
    void (*tick)(void *); // called now and then during launch(), on the caller's thread; may be
    void *tick_arg;       // NULL. For heartbeats: a step of a large model can take seconds
    uint32_t by_block; // CUDA: 1: blocks run one by one and each is waited for. Slow, but an error
                       // names its block
} sv_dev_options;

/*
 * A weight: up to SV_PARTS_MAX matrices [rows, cols] with the same cols, stacked (q over k over v;
 * gate over up), row-major in their own dtype, and a bias [rows] of f32, f16 or bf16 for each or
 * NULL. A vector (norm) is rows = 1, F32, F16 or BF16.
 * Data NULL: BF16 that the backend makes up, so that speed can be measured without files. Element i
 * of all parts in turn is sv_made_up times sqrt(3 / cols); a vector's is 1 and a tenth of it; a
 * bias that is not NULL is 0.
 */
enum {
    SV_MATRIX = 0,
    SV_QKV = 1,     // three parts
    SV_GATE_UP = 2, // two parts with equal rows
    SV_TABLE = 3,   // one part, for embed() and, when tied, for head() as well
    SV_VECTOR = 4
};

typedef struct sv_part {
    const void *data;
    uint64_t rows;
    uint32_t dtype;
    uint32_t bias_dtype;
    const void *bias;
} sv_part_desc;

typedef struct sv_weight_desc {
    uint32_t size, role;    // SV_MATRIX ...
    uint32_t n_parts, keep; // keep: data stays mapped until close(), the backend may refer to it
    uint64_t cols;
    sv_part_desc part[SV_PARTS_MAX];
    uint64_t seed; // of numbers that are made up; the weight's own
} sv_weight_desc;

// What a session is made for; every size is an upper bound.
typedef struct sv_limits {
    uint32_t size;
    uint32_t max_tokens;  // of a step, over all sequences
    uint32_t max_seqs;    // slots
    uint32_t max_rows;    // logits of a step
    uint32_t max_context; // tokens of a sequence
    uint32_t n_blocks;    // KV blocks
    uint32_t layers, heads, kv_heads, head_dim;
    uint32_t vocab;
    uint32_t kv_dtype; // SV_F32, SV_F16 or SV_BF16
    uint64_t widths;   // sum of the columns of all buffers that buffer() will be asked for
} sv_limits;

enum {
    SV_ROPE_NONE = 0,
    SV_ROPE_HALF = 1,
    SV_ROPE_PAIRS = 2
}; // i with i + n/2 (NeoX), 2i with 2i + 1

typedef struct sv_rope {
    uint32_t style;
    uint32_t dims;         // rotated dimensions of a head, even; the rest passes through
    const float *inv_freq; // [dims / 2], copied
    float scale;           // of cos and sin (yarn's attention factor), 1
} sv_rope;

typedef struct sv_norm { // RMSNorm: x * rsqrt(mean(x^2) + eps) * (w + offset)
    const sv_weight *w;  // vector; NULL: no norm
    float eps, offset;   // offset 0; 1 for Gemma
} sv_norm;

// norm + projection + bias + norm of each head + RoPE; k and v go into the KV blocks.
typedef struct sv_qkv {
    uint32_t layer;
    sv_norm norm;
    const sv_weight *w;     // SV_QKV: heads * head_dim, then twice kv_heads * head_dim rows
    sv_norm q_norm, k_norm; // over head_dim
    const sv_rope *rope;
    const sv_buf *x;
    sv_buf *q;
} sv_qkv;

// Causal attention of each token over the KV of its own sequence up to itself.
typedef struct sv_attend {
    uint32_t layer;
    uint32_t window; // keys a query sees, itself included; 0 = all
    float scale;     // of q . k
    const sv_buf *q;
    sv_buf *out;
} sv_attend;

// y += w x (+ bias)
typedef struct sv_project {
    const sv_weight *w; // SV_MATRIX
    const sv_buf *x;
    sv_buf *y;
} sv_project;

enum { SV_SILU = 0, SV_GELU_TANH = 1 };

// norm + gate and up + activation: y = act(gate x) * (up x)
typedef struct sv_gate_up {
    sv_norm norm;
    const sv_weight *w; // SV_GATE_UP
    uint32_t activation;
    const sv_buf *x;
    sv_buf *y;
} sv_gate_up;

// norm + logits + sampling, of the batch's rows alone
typedef struct sv_head {
    sv_norm norm;
    const sv_weight *w; // SV_MATRIX or SV_TABLE, [vocab, cols]
    const sv_buf *x;
} sv_head;

/*
 * How one slot samples. Order of effects (vLLM v1/sample/sampler.py): allowed ids, bad words, stop
 * ids below min_tokens, bias, repetition / frequency / presence penalty; greedy ends here; then
 * temperature, min_p, top_k, top_p, one draw. Logprobs are of the raw logits. Bad words are looked
 * for in the output alone; top_k keeps all that equal the k-th; top_p keeps the one that crosses
 * it. The draw is a pure function of (logits, seed, number of the output token), so it does not
 * depend on the batch or on preemption.
 */
typedef struct sv_sampling {
    uint32_t size;
    float temperature;                     // 0 = greedy
    float top_p, min_p;                    // 1 and 0 = off
    uint32_t top_k;                        // 0 = off
    float repetition, frequency, presence; // 1, 0, 0 = off
    uint64_t seed;
    uint32_t logprobs; // 0 = none; 1 + k: the token's own and k alternatives
    uint32_t min_tokens;
    // The tokens so far. history[0, prompt_len) is the prompt; the rest was generated before a
    // preemption. The device appends what it embeds and samples from then on.
    const int32_t *history;
    uint32_t n_history, prompt_len;
    uint32_t n_stop, n_bias, n_allowed, n_bad; // lengths of the arrays below
    const int32_t *stop;                       // ids that cannot be sampled before min_tokens
    const int32_t *bias_id;                    // with `bias`, added to the logit; -INFINITY bans
    const float *bias;
    const int32_t *allowed; // n_allowed 0: every id
    const int32_t *bad;     // sequences, each as its length and then its ids, n_bad numbers in all
} sv_sampling;

enum { SV_SAMPLED = -1, SV_DRAW = -1 };

/*
 * One step. Arrays belong to the backend (batch()), hold up to the session's limits and are free
 * to be written again as soon as launch() has returned.
 * Edits of the page table come first; a table entry stays until it is edited again.
 */
typedef struct sv_batch {
    uint32_t n_tokens, n_seqs, n_rows, n_edits;
    int32_t *token;      // [n_tokens] id, or SV_SAMPLED: what the slot sampled last
    int32_t *pos;        // [n_tokens] position in its sequence; ascending by one within a sequence
    int32_t *seq_slot;   // [n_seqs] sequences in the order of their tokens
    int32_t *seq_tokens; // [n_seqs] how many tokens of it are in this step, >= 1
    int32_t *row_token;  // [n_rows] index of the token whose logits are wanted
    int32_t *row_slot;   // [n_rows]
    int32_t *row_want;   // [n_rows] SV_DRAW: sample; else the id whose logprob is asked for
    int32_t *edit_slot, *edit_index, *edit_block; // [n_edits <= sv_edits_max]
} sv_batch;

// A step adds a block to each sequence and what its tokens fill, and takes up some sequences with
// all the blocks that they have already: not all at once.
static inline uint64_t sv_edits_max(uint32_t max_tokens, uint32_t max_seqs, uint32_t max_context)
{
    uint64_t pages = ((uint64_t)max_context + SV_BLOCK - 1) / SV_BLOCK;
    return max_tokens / SV_BLOCK + max_seqs + pages * (max_seqs < 4 ? max_seqs : 4);
}

// What a step gave, row by row. Stays until `depth` more launches.
typedef struct sv_result {
    uint32_t n_rows;
    const int32_t *token; // sampled or asked for; -1: the logits were not numbers, nothing is drawn
    const float *logprob; // of that token; valid where the slot wants logprobs
    const int32_t *rank;  // 1 + number of ids with a higher logit; likewise
    const int32_t *top_id; // [n_rows * SV_TOP_MAX], best first, the slot's k of them
    const float *top_logprob;
} sv_result;

typedef struct sv_kernels {
    uint32_t size, version; // SV_KERNELS_VERSION
    const char *name;       // "cpu", "cuda"
    uint32_t depth;         // launches that may be under way; 1: launch() has done it all

    int (*open)(const sv_dev_options *, sv_dev **ret, char *why);
    void (*close)(sv_dev *);
    const char *(*about)(const sv_dev *); // "AVX-512 VNNI, 2 threads, ..." for the log

    // Exact bytes before anything is made; 0: this backend does not have it. No device is touched
    // and no weight is read: data and bias may be NULL (bias: any pointer that is not, where there
    // is one). Not counted: the lists of slot(), which are as long as the caller makes them, and
    // the recorded blocks (some KB a program).
    uint64_t (*weight_bytes)(const sv_dev_options *, const sv_weight_desc *);
    uint64_t (*session_bytes)(const sv_dev_options *, const sv_limits *);
    // Of these, one KV block's.
    uint64_t (*block_bytes)(const sv_dev_options *, const sv_limits *);

    int (*weight)(sv_dev *, const sv_weight_desc *, sv_weight **ret, char *why);
    int (*session)(sv_dev *, const sv_limits *, sv_session **ret, char *why);
    int (*buffer)(sv_session *, uint64_t cols, sv_buf **ret, char *why);

    // Recording. buckets() gives the sizes worth a program of their own, ascending, the last one
    // max_tokens; a batch goes to the smallest that holds n_tokens and n_rows.
    uint32_t (*buckets)(const sv_session *, uint32_t tokens[SV_BUCKETS_MAX]);
    int (*record)(sv_session *, uint32_t max_tokens, sv_program **ret, char *why);
    int (*embed)(sv_program *, const sv_weight *table, float scale, sv_buf *x);
    int (*qkv)(sv_program *, const sv_qkv *);
    int (*attend)(sv_program *, const sv_attend *);
    int (*project)(sv_program *, const sv_project *);
    int (*gate_up)(sv_program *, const sv_gate_up *);
    int (*head)(sv_program *, const sv_head *);
    int (*ready)(sv_program *, char *why); // ends recording; tells the first block that failed

    // Steps.
    int (*slot)(sv_session *, uint32_t slot,
                const sv_sampling *); // copies all; for launches to come
    sv_batch *(*batch)(sv_session *); // of the next launch; NULL: the device is lost
    // A ticket > 0, or < 0. The CPU refuses (-400) a batch that reaches beyond the limits.
    int64_t (*launch)(sv_program *, const sv_batch *);
    // Waits for that step. *ret stays the backend's.
    int (*collect)(sv_session *, int64_t ticket, const sv_result **ret, char *why);
    // Logits of a row of the step last collected, [vocab], before any processor. For tests.
    int (*logits)(sv_session *, uint32_t row, float *out);

    // When there is nothing to do for a while: a piece of what was left for later: gives back what
    // loading held; CUDA: finds faster algorithms, for as long as the process lives, so logits()
    // of steps before it are lost. 1: call again, 0: that was all, < 0: the device is lost.
    int (*idle)(sv_dev *);
    // Bytes of the device's memory that nobody has; UINT64_MAX: it is the host's, never counted.
    uint64_t (*room)(const sv_dev *);
} sv_kernels;

#if defined(__GNUC__)
#define SV_KERNELS_EXPORT __attribute__((visibility("default")))
#endif
#ifdef __cplusplus
extern "C" {
#endif
extern const sv_kernels sv_kernels_v1;
#ifdef __cplusplus
}
#endif
#endif
