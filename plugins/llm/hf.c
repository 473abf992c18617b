// SPDX-License-Identifier: Apache-2.0
#include "llm/hf.h"

#include "abi/plugin.h"
#include "base/buf.h"
#include "base/err.h"
#include "base/mem.h"
#include "base/str.h"
#include "common/file.h"
#include "common/json.h"
#include "llm/spec.h"
#include "llm/template.h"

#include <string.h>
#include <sys/stat.h>

bool hf_is_folder(const char *path)
{
    struct stat s;
    return stat(path, &s) == 0 && S_ISDIR(s.st_mode);
}

// *ret NULL: there is no such file, which is fine where it is optional.
static int read_json(const char *folder, const char *name, bool optional, yyjson_doc **ret,
                     struct err *err)
{
    struct buf text = {0};
    struct err why;
    char *path = xasprintf("%s/%s", folder, name);
    *ret = NULL;
    int rc = file_read(path, HF_CONFIG_MAX, &text, &why);
    if (rc == SV_E_NOT_FOUND && optional)
        rc = 0;
    else if (rc == 0 &&
             (rc = json_parse(buf_cstr(&text), buf_len(&text), HF_CONFIG_MAX, ret, &why)) < 0)
        err_ctx(&why, "'%s'", path);
    if (rc < 0)
        err_set(err, why.code, "%s", why.msg);
    buf_finish(&text);
    xfree(path);
    return rc;
}

int hf_spec(const char *folder, struct spec *ret, struct err *err)
{
    yyjson_doc *config = NULL, *generation = NULL;
    int rc = read_json(folder, "config.json", false, &config, err);
    if (rc == 0)
        rc = read_json(folder, "generation_config.json", true, &generation, err);
    if (rc == 0) {
        rc = spec_from_config(yyjson_doc_get_root(config), yyjson_doc_get_root(generation), ret,
                              err);
        if (rc < 0)
            err_ctx(err, "'%s/config.json'", folder);
    }
    yyjson_doc_free(config);
    yyjson_doc_free(generation);
    return rc;
}

// A text, or a list of objects with name and template.
static yyjson_val *pick_template(yyjson_val *v)
{
    yyjson_arr_iter it;
    yyjson_val *named;
    if (!yyjson_is_arr(v))
        return v;
    yyjson_arr_iter_init(v, &it);
    while ((named = yyjson_arr_iter_next(&it)))
        if (!strcmp(json_str(named, "name", ""), "default"))
            return json_get(named, "template");
    return NULL;
}

static int from_config(const char *folder, struct buf *out, struct err *err)
{
    yyjson_doc *doc;
    int rc = read_json(folder, "tokenizer_config.json", true, &doc, err);
    if (rc < 0 || !doc)
        return rc;
    yyjson_val *v = pick_template(json_get(yyjson_doc_get_root(doc), "chat_template"));
    if (v && !yyjson_is_null(v) && !yyjson_is_str(v))
        rc = err_set(err, SV_E_INVALID, "'%s/tokenizer_config.json': 'chat_template' is no text",
                     folder);
    else if (yyjson_is_str(v))
        buf_put(out, yyjson_get_str(v), yyjson_get_len(v));
    yyjson_doc_free(doc);
    return rc;
}

int hf_template(const char *folder, struct buf *out, struct err *err)
{
    struct err why;
    char *path = xasprintf("%s/chat_template.jinja", folder);
    int rc = file_read(path, TEMPLATE_SOURCE_MAX, out, &why);
    xfree(path);
    if (rc == SV_E_NOT_FOUND)
        rc = from_config(folder, out, err);
    else if (rc < 0)
        err_set(err, why.code, "%s", why.msg);
    if (rc == 0 && buf_len(out) > TEMPLATE_SOURCE_MAX)
        rc = err_set(err, SV_E_TOO_LARGE, "'%s': a chat template of %zu bytes; at most %d", folder,
                     buf_len(out), TEMPLATE_SOURCE_MAX);
    if (rc == 0 && !str_valid_utf8(buf_head(out), buf_len(out)))
        rc = err_set(err, SV_E_INVALID, "'%s': the chat template is not valid UTF-8", folder);
    return rc;
}
