// SPDX-License-Identifier: Apache-2.0
#include "base/err.h"

#include "abi/plugin.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

int err_set(struct err *e, int code, const char *fmt, ...)
{
    if (!e)
        return code;
    char text[ERR_MSG_MAX]; // the arguments may point into e->msg
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    memcpy(e->msg, text, sizeof text);
    e->code = code;
    return code;
}

int err_ctx(struct err *e, const char *fmt, ...)
{
    if (!e)
        return SV_E_INTERNAL;
    char text[2 * ERR_MSG_MAX + 2];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(text, ERR_MSG_MAX, fmt, ap);
    va_end(ap);
    size_t used = n < 0 ? 0 : (size_t)n < ERR_MSG_MAX ? (size_t)n : ERR_MSG_MAX - 1;
    snprintf(text + used, sizeof text - used, ": %s", e->msg);
    text[ERR_MSG_MAX - 1] = '\0';
    memcpy(e->msg, text, ERR_MSG_MAX);
    return e->code;
}

const char *err_errno(int errnum)
{
    const char *text = strerrordesc_np(errnum);
    return text ? text : "unknown error";
}
