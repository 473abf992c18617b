// SPDX-License-Identifier: Apache-2.0
/*
 * cpu - the table of the CPU backend.
 */
#include "cpu/step.h"

static int cpu_open(const sv_dev_options *o, sv_dev **ret, char *why)
{
    return device_open(o, ret, why);
}

static void cpu_close(sv_dev *d)
{
    while (d && d->sessions) {
        sv_session *s = d->sessions;
        d->sessions = s->next;
        session_free(s);
    }
    device_close(d);
}

static const char *cpu_about(const sv_dev *d)
{
    return d->about;
}

static uint64_t cpu_weight_bytes(const sv_dev_options *o, const sv_weight_desc *w)
{
    struct device_config c;
    return device_config(o, &c, NULL) < 0 ? 0 : weight_bytes(&c, w, NULL);
}

static uint64_t cpu_session_bytes(const sv_dev_options *o, const sv_limits *l)
{
    struct device_config c;
    return device_config(o, &c, NULL) < 0 ? 0 : session_bytes(&c, l, NULL);
}

static uint64_t cpu_block_bytes(const sv_dev_options *o, const sv_limits *l)
{
    return cpu_session_bytes(o, l) ? session_block_bytes(l) : 0;
}

// What a step computes follows from its batch: one program fits all.
static uint32_t cpu_buckets(const sv_session *s, uint32_t tokens[SV_BUCKETS_MAX])
{
    tokens[0] = s->l.max_tokens;
    return 1;
}

static sv_batch *cpu_batch(sv_session *s)
{
    return &s->batch;
}

static int cpu_idle(sv_dev *d)
{
    (void)d;
    return 0;
}

static uint64_t cpu_room(const sv_dev *d)
{
    (void)d;
    return UINT64_MAX;
}

SV_KERNELS_EXPORT const sv_kernels sv_kernels_v1 = {
    .size = sizeof(sv_kernels),
    .version = SV_KERNELS_VERSION,
    .name = "cpu",
    .depth = 1,
    .open = cpu_open,
    .close = cpu_close,
    .about = cpu_about,
    .weight_bytes = cpu_weight_bytes,
    .session_bytes = cpu_session_bytes,
    .block_bytes = cpu_block_bytes,
    .weight = weight_make,
    .session = session_make,
    .buffer = session_buffer,
    .buckets = cpu_buckets,
    .record = program_record,
    .embed = program_embed,
    .qkv = program_qkv,
    .attend = program_attend,
    .project = program_project,
    .gate_up = program_gate_up,
    .head = program_head,
    .ready = program_ready,
    .slot = session_slot,
    .batch = cpu_batch,
    .launch = step_launch,
    .collect = session_collect,
    .logits = session_logits,
    .idle = cpu_idle,
    .room = cpu_room,
};
