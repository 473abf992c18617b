// SPDX-License-Identifier: Apache-2.0
#include "llm/weights.h"

#include "abi/plugin.h"
#include "base/check.h"
#include "base/err.h"
#include "base/mem.h"
#include "common/tensors.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static const struct {
    uint32_t role, n_parts; // SV_MATRIX ...
    enum tensor_role part[SV_PARTS_MAX];
    bool biased;
    enum tensor_role bias[SV_PARTS_MAX];
} table[WEIGHT_SLOTS] = {
    [W_TABLE] = {SV_TABLE, 1, {T_EMBED}, false, {0}},
    [W_OUT_NORM] = {SV_VECTOR, 1, {T_OUT_NORM}, false, {0}},
    [W_HEAD] = {SV_MATRIX, 1, {T_HEAD}, false, {0}},
    [W_ATTN_NORM] = {SV_VECTOR, 1, {T_ATTN_NORM}, false, {0}},
    [W_QKV] = {SV_QKV, 3, {T_Q, T_K, T_V}, true, {T_Q_BIAS, T_K_BIAS, T_V_BIAS}},
    [W_Q_NORM] = {SV_VECTOR, 1, {T_Q_NORM}, false, {0}},
    [W_K_NORM] = {SV_VECTOR, 1, {T_K_NORM}, false, {0}},
    [W_O] = {SV_MATRIX, 1, {T_O}, true, {T_O_BIAS}},
    [W_FF_NORM] = {SV_VECTOR, 1, {T_FF_NORM}, false, {0}},
    [W_GATE_UP] = {SV_GATE_UP, 2, {T_GATE, T_UP}, true, {T_GATE_BIAS, T_UP_BIAS}},
    [W_DOWN] = {SV_MATRIX, 1, {T_DOWN}, true, {T_DOWN_BIAS}},
};

struct shape {
    uint64_t rows, cols; // rows 0: a vector of cols
};

static struct shape shape_of(const struct spec *s, enum tensor_role role)
{
    uint64_t d = s->d_model, ff = s->d_ff, head = s->head_dim;
    uint64_t q = s->heads * head, kv = s->kv_heads * head;
    switch (role) {
    case T_EMBED:
    case T_HEAD:
        return (struct shape){s->vocab, d};
    case T_OUT_NORM:
    case T_ATTN_NORM:
    case T_FF_NORM:
    case T_O_BIAS:
    case T_DOWN_BIAS:
        return (struct shape){0, d};
    case T_Q:
        return (struct shape){q, d};
    case T_K:
    case T_V:
        return (struct shape){kv, d};
    case T_O:
        return (struct shape){d, q};
    case T_Q_BIAS:
        return (struct shape){0, q};
    case T_K_BIAS:
    case T_V_BIAS:
        return (struct shape){0, kv};
    case T_Q_NORM:
    case T_K_NORM:
        return (struct shape){0, head};
    case T_GATE:
    case T_UP:
        return (struct shape){ff, d};
    case T_DOWN:
        return (struct shape){d, ff};
    case T_GATE_BIAS:
    case T_UP_BIAS:
        return (struct shape){0, ff};
    case TENSOR_ROLES:
        break;
    }
    BUG("no tensor role %d", (int)role);
}

static int check_shape(const struct tensor *t, struct shape want, struct err *err)
{
    if (want.rows ? t->n_dims == 2 && t->dim[0] == want.rows && t->dim[1] == want.cols
                  : t->n_dims == 1 && t->dim[0] == want.cols)
        return 0;
    char has[TENSOR_DIMS * 24] = "", wanted[48];
    for (uint32_t i = 0, n = 0; i < t->n_dims; i++)
        n += (uint32_t)snprintf(has + n, sizeof has - n, "%s%" PRIu64, i ? ", " : "", t->dim[i]);
    if (want.rows)
        snprintf(wanted, sizeof wanted, "%" PRIu64 ", %" PRIu64, want.rows, want.cols);
    else
        snprintf(wanted, sizeof wanted, "%" PRIu64, want.cols);
    return err_set(err, SV_E_INVALID, "tensor '%s' is [%s]; by the model's numbers it is [%s]",
                   t->name, has, wanted);
}

static int check_type(const struct tensor *t, bool vector, struct err *err)
{
    uint32_t types = vector ? SV_BF16 + 1 : SV_DTYPES;
    if (t->dtype < types)
        return 0;
    char known[128] = "";
    for (uint32_t i = 0, n = 0; i < types; i++)
        n += (uint32_t)snprintf(known + n, sizeof known - n, "%s%s", i ? ", " : "",
                                sv_dtype(i).name);
    return err_set(err, SV_E_UNSUPPORTED, "tensor '%s' is of type %s; supported are %s", t->name,
                   t->type, known);
}

static struct tensor make_up(struct shape want)
{
    uint64_t rows = want.rows ? want.rows : 1;
    return (struct tensor){.type = "BF16",
                           .dtype = SV_BF16,
                           .n_dims = want.rows ? 2 : 1,
                           .dim = {want.rows ? want.rows : want.cols, want.rows ? want.cols : 1},
                           .bytes = rows * want.cols * 2};
}

static int find(const struct spec *s, enum arch_format format, const struct tensors *files,
                enum tensor_role role, uint32_t layer, struct tensor *ret, char name[ARCH_NAME],
                struct err *err)
{
    struct shape want = shape_of(s, role);
    arch_tensor_name(format, role, layer, name);
    if (!files) {
        *ret = make_up(want);
        return 0;
    }
    const struct tensor *t = tensors_find(files, name);
    if (!t)
        return err_set(err, SV_E_INVALID, "tensor '%s' is missing", name);
    *ret = *t;
    int rc = check_shape(t, want, err);
    return rc < 0 ? rc : check_type(t, want.rows == 0, err);
}

static bool has_slot(const struct spec *s, enum weight_slot slot)
{
    return s->has[table[slot].part[0]];
}

// Slots of one layer (or of the whole model) that this model has.
static uint32_t count(const struct spec *s, enum weight_slot begin, enum weight_slot end)
{
    uint32_t n = 0;
    for (int slot = (int)begin; slot < (int)end; slot++)
        n += has_slot(s, (enum weight_slot)slot);
    return n;
}

uint32_t weights_count(const struct spec *s)
{
    return count(s, W_TABLE, W_ATTN_NORM) + s->layers * count(s, W_ATTN_NORM, WEIGHT_SLOTS);
}

static enum weight_slot nth(const struct spec *s, int slot, uint32_t n)
{
    for (;; slot++)
        if (has_slot(s, (enum weight_slot)slot) && n-- == 0)
            return (enum weight_slot)slot;
}

static void place(const struct spec *s, uint32_t i, struct weight *w)
{
    uint32_t whole = count(s, W_TABLE, W_ATTN_NORM), each = count(s, W_ATTN_NORM, WEIGHT_SLOTS);
    CHECK(i < weights_count(s));
    w->layer = i < whole ? 0 : (i - whole) / each;
    w->slot = i < whole ? nth(s, W_TABLE, i) : nth(s, W_ATTN_NORM, (i - whole) % each);
}

static int get_part(const struct spec *s, enum arch_format format, const struct tensors *files,
                    uint32_t part, struct weight *w, struct err *err)
{
    static const char there; // data that is made up has no address, but a bias is told by its own
    struct tensor t = {.n_dims = 0}, bias = {.n_dims = 0};
    char name[ARCH_NAME];
    int rc = find(s, format, files, table[w->slot].part[part], w->layer, &t, name, err);
    if (rc == 0 && part == 0) {
        memcpy(w->name, name, sizeof name);
        w->type = t.type;
    }
    if (rc == 0 && table[w->slot].biased && s->has[table[w->slot].bias[part]])
        rc = find(s, format, files, table[w->slot].bias[part], w->layer, &bias, name, err);
    if (rc < 0)
        return rc;
    w->desc.part[part] =
        (sv_part_desc){.data = t.data, .rows = t.n_dims == 2 ? t.dim[0] : 1, .dtype = t.dtype};
    if (bias.n_dims) {
        w->desc.part[part].bias = files ? bias.data : &there;
        w->desc.part[part].bias_dtype = bias.dtype;
    }
    w->desc.cols = t.dim[t.n_dims - 1];
    w->bytes += t.bytes + bias.bytes;
    return 0;
}

int weights_get(const struct spec *s, enum arch_format format, const struct tensors *files,
                uint32_t i, struct weight *ret, struct err *err)
{
    struct weight w = {.desc = {.size = sizeof w.desc, .seed = i}};
    place(s, i, &w);
    w.desc.role = table[w.slot].role;
    w.desc.n_parts = table[w.slot].n_parts;
    for (uint32_t part = 0; part < w.desc.n_parts; part++) {
        int rc = get_part(s, format, files, part, &w, err);
        if (rc < 0)
            return rc;
    }
    *ret = w;
    return 0;
}

// Marks what a role's tensors are in the files.
static void mark(const struct spec *s, enum arch_format format, const struct tensors *files,
                 enum tensor_role role, bool *used)
{
    char name[ARCH_NAME];
    uint32_t n = arch_per_layer(role) ? s->layers : 1;
    for (uint32_t layer = 0; layer < n && s->has[role]; layer++) {
        arch_tensor_name(format, role, layer, name);
        const struct tensor *t = tensors_find(files, name);
        if (t)
            used[t - tensors_at(files, 0)] = true;
    }
}

int weights_check(const struct spec *s, enum arch_format format, const struct tensors *files,
                  struct err *err)
{
    struct weight w;
    for (uint32_t i = 0; i < weights_count(s); i++) {
        int rc = weights_get(s, format, files, i, &w, err);
        if (rc < 0)
            return rc;
    }
    if (!files)
        return 0;
    int rc = 0;
    bool *used = xcalloc(tensors_count(files), sizeof *used);
    for (int role = 0; role < TENSOR_ROLES; role++)
        mark(s, format, files, (enum tensor_role)role, used);
    for (uint32_t i = 0; i < tensors_count(files) && rc == 0; i++)
        if (!used[i] && !arch_ignores(s, format, tensors_at(files, i)->name))
            rc = err_set(err, SV_E_UNSUPPORTED,
                         "tensor '%s' has no place in a model of architecture %s",
                         tensors_at(files, i)->name, s->arch);
    xfree(used);
    return rc;
}
