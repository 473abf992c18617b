// SPDX-License-Identifier: Apache-2.0
#include "abi/plugin.h"
#include "http/http.h"

#include "base/check.h"

#include <string.h>

#define ERROR(code, status, type, text) {code, status, type, text},
static const struct http_error errors[] = {
#include "http/errors.def"
};
#undef ERROR

static int status_in_range(int code)
{
    return code <= -400 && code >= -599 ? -code : 500;
}

struct http_error http_error_of(int code)
{
    for (size_t i = 0; i < ARRAY_LEN(errors); i++)
        if (errors[i].code == code)
            return errors[i];
    int status = status_in_range(code);
    if (status < 500)
        return (struct http_error){code, status, "BadRequestError", "The request is not valid."};
    return (struct http_error){code, status, "InternalServerError", "The request failed."};
}

static void put_json_or_null(struct buf *out, const char *s)
{
    if (s)
        buf_put_json(out, s, strlen(s));
    else
        buf_puts(out, "null");
}

void http_error_json(struct buf *out, int code, const char *text, const char *param)
{
    struct http_error e = http_error_of(code);
    buf_puts(out, "{\"error\":{\"message\":");
    put_json_or_null(out, text && *text ? text : e.text);
    buf_puts(out, ",\"type\":");
    put_json_or_null(out, e.type);
    buf_puts(out, ",\"param\":");
    put_json_or_null(out, param);
    buf_printf(out, ",\"code\":%d}}", e.status);
}

void http_error_doc(struct buf *out)
{
    buf_puts(out, "| code | HTTP status | type | default message |\n|---|---|---|---|\n");
    for (size_t i = 0; i < ARRAY_LEN(errors); i++)
        buf_printf(out, "| %d | %d | %s | %s |\n", errors[i].code, errors[i].status, errors[i].type,
                   errors[i].text);
}
