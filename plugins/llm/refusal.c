// SPDX-License-Identifier: Apache-2.0
#include "llm/refusal.h"

#include "base/buf.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const char *type_of(int status)
{
    switch (status) {
    case 400:
        return "BadRequestError";
    case 404:
        return "NotFoundError";
    case 405:
        return "MethodNotAllowedError";
    case 413:
        return "RequestTooLargeError";
    case 501:
        return "NotImplementedError";
    case 503:
        return "ServiceUnavailableError";
    default:
        return status < 500 ? "BadRequestError" : "InternalServerError";
    }
}

__attribute__((format(printf, 5, 0))) static int fill(struct refusal *r, int status,
                                                      const char *type, const char *param,
                                                      const char *fmt, va_list ap)
{
    r->status = status;
    r->type = type;
    snprintf(r->param, sizeof r->param, "%s", param ? param : "");
    vsnprintf(r->message, sizeof r->message, fmt, ap);
    return -status;
}

int refuse_schema(struct refusal *r, const char *param, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int rc = fill(r, 400, "Bad Request", param, fmt, ap);
    va_end(ap);
    return rc;
}

int refuse_value(struct refusal *r, const char *param, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int rc = fill(r, 400, "BadRequestError", param, fmt, ap);
    va_end(ap);
    return rc;
}

int refuse(struct refusal *r, int status, const char *param, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int rc = fill(r, status, type_of(status), param, fmt, ap);
    va_end(ap);
    return rc;
}

void refusal_render(const struct refusal *r, struct buf *out)
{
    buf_puts(out, "{\"error\":{\"message\":");
    buf_put_json(out, r->message, strlen(r->message));
    buf_printf(out, ",\"type\":\"%s\",\"param\":", r->type);
    if (*r->param)
        buf_put_json(out, r->param, strlen(r->param));
    else
        buf_puts(out, "null");
    buf_printf(out, ",\"code\":%d}}", r->status);
}
