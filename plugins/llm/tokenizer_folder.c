// SPDX-License-Identifier: Apache-2.0
/*
 * A model's folder: tokenizer.json, and tokenizer_config.json for the names of bos and eos.
 */
#include "llm/tokenizer_parts.h"

#include "base/err.h"
#include "base/mem.h"
#include "common/file.h"
#include "common/json.h"

#include <unistd.h>

enum { CONFIG_MAX = 16 << 20 };

// A name, or an added token's object.
static int32_t find_named(const struct tokenizer *t, yyjson_val *root, const char *key)
{
    yyjson_val *v = json_get(root, key);
    struct bytes s = tokenizer_json_text(yyjson_is_obj(v) ? json_get(v, "content") : v);
    return s.p ? vocab_find(&t->vocab, s.p, s.n) : -1;
}

static int read_config(struct tokenizer *t, const char *path, struct err *err)
{
    struct buf text = {0};
    yyjson_doc *doc = NULL;
    if (access(path, F_OK) < 0)
        return 0; // a folder without one is whole
    int rc = file_read(path, CONFIG_MAX, &text, err);
    if (rc == 0)
        rc = json_parse(buf_head(&text), buf_len(&text), CONFIG_MAX, &doc, err);
    buf_finish(&text);
    if (rc < 0)
        return err_ctx(err, "reading '%s'", path);
    t->bos = find_named(t, yyjson_doc_get_root(doc), "bos_token");
    t->eos = find_named(t, yyjson_doc_get_root(doc), "eos_token");
    yyjson_doc_free(doc);
    return 0;
}

int tokenizer_from_folder(const char *folder, struct tokenizer **ret, struct err *err)
{
    char *path = xasprintf("%s/tokenizer.json", folder);
    char *config = xasprintf("%s/tokenizer_config.json", folder);
    struct buf text = {0};
    struct tokenizer *t = NULL;
    int rc = file_read(path, TOKENIZER_JSON_MAX, &text, err);
    if (rc == 0)
        rc = tokenizer_from_json(buf_head(&text), buf_len(&text), path, &t, err);
    buf_finish(&text);
    if (rc == 0)
        rc = read_config(t, config, err);
    xfree(path);
    xfree(config);
    if (rc < 0) {
        tokenizer_destroy(t);
        return rc;
    }
    *ret = t;
    return 0;
}
