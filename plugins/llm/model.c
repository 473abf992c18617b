// SPDX-License-Identifier: Apache-2.0
#include "llm/model.h"

#include "abi/plugin.h"
#include "base/err.h"
#include "base/mem.h"
#include "base/str.h"
#include "common/gguf.h"
#include "llm/hf.h"
#include "llm/model_parts.h"
#include "llm/template.h"
#include "llm/tokenizer.h"

#include <string.h>

static int open_config(struct model *m, struct err *err)
{
    m->format = FORMAT_HF;
    int rc = hf_spec(m->path, &m->spec, err);
    return rc < 0 ? rc : hf_template(m->path, &m->template, err);
}

static int open_folder(struct model *m, struct err *err)
{
    int rc = open_config(m, err);
    if (rc == 0)
        rc = tensors_open_safetensors(m->path, &m->folder, err);
    m->files = m->folder;
    return rc;
}

static int open_gguf(struct model *m, struct err *err)
{
    m->format = FORMAT_GGUF;
    int rc = gguf_open(m->path, &m->gguf, err);
    if (rc < 0)
        return rc;
    m->files = gguf_tensors(m->gguf);
    rc = spec_from_gguf(m->gguf, &m->spec, err);
    struct bytes text = model_template(m);
    if (rc == 0 && (text.n > TEMPLATE_SOURCE_MAX || !str_valid_utf8(text.p, text.n)))
        rc = err_set(err, SV_E_INVALID,
                     "key 'tokenizer.chat_template' is not valid UTF-8 of at most %d bytes",
                     TEMPLATE_SOURCE_MAX);
    return rc < 0 ? err_ctx(err, "'%s'", m->path) : 0;
}

// One file of a folder, which is no model without the others.
static bool is_safetensors(const char *path)
{
    static const char end[] = ".safetensors";
    size_t n = strlen(path), m = sizeof end - 1;
    return n > m && !strcmp(path + n - m, end);
}

int model_open(const char *path, struct model **ret, struct err *err)
{
    if (is_safetensors(path))
        return err_set(err, SV_E_INVALID,
                       "'%s': name the folder with config.json and the tokenizer instead", path);
    struct model *m = xcalloc(1, sizeof *m);
    m->path = xstrdup(path);
    int rc = hf_is_folder(path) ? open_folder(m, err) : open_gguf(m, err);
    if (rc < 0) {
        model_close(m);
        return rc;
    }
    *ret = m;
    return 0;
}

int model_open_dummy(const char *path, struct model **ret, struct err *err)
{
    if (!hf_is_folder(path))
        return err_set(err, SV_E_INVALID,
                       "'%s': dummy weights want a folder with config.json and a tokenizer", path);
    struct model *m = xcalloc(1, sizeof *m);
    m->path = xstrdup(path);
    int rc = open_config(m, err);
    if (rc < 0) {
        model_close(m);
        return rc;
    }
    *ret = m;
    return 0;
}

void model_close(struct model *m)
{
    if (!m)
        return;
    gguf_close(m->gguf);
    tensors_close(m->folder);
    buf_finish(&m->template);
    xfree(m->weight);
    xfree((float *)(uintptr_t)m->rope.inv_freq);
    xfree(m->path);
    xfree(m);
}

const struct spec *model_spec(const struct model *m)
{
    return &m->spec;
}

const char *model_path(const struct model *m)
{
    return m->path;
}

int model_tokenizer(const struct model *m, struct tokenizer **ret, struct err *err)
{
    if (m->format == FORMAT_HF)
        return tokenizer_from_folder(m->path, ret, err);
    int rc = tokenizer_from_gguf(m->gguf, ret, err);
    return rc < 0 ? err_ctx(err, "'%s'", m->path) : 0;
}

struct bytes model_template(const struct model *m)
{
    struct bytes text = {"", 0};
    if (m->format == FORMAT_HF)
        return (struct bytes){buf_head(&m->template), buf_len(&m->template)};
    gguf_str(m->gguf, "tokenizer.chat_template", &text);
    return text;
}

int model_check(const struct model *m, struct err *err)
{
    int rc = weights_check(&m->spec, m->format, m->files, err);
    return rc < 0 ? err_ctx(err, "'%s'", m->path) : 0;
}
