// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * refusal - why a request is not served, as its client reads it: vLLM's error body
 * {"error":{"message","type","param","code"}}.
 *
 * Type    "Bad Request": the body is not what the endpoint takes (JSON, types, fields that exclude
 *         each other); "BadRequestError": a value out of range; other statuses have their own.
 * Bounds  REFUSAL_TEXT bytes, cut.
 */
#include <stddef.h>

struct buf;

enum { REFUSAL_TEXT = 768, REFUSAL_PARAM = 64 };

struct refusal {
    int status; // 4xx, 5xx
    const char *type;
    char param[REFUSAL_PARAM]; // "": null
    char message[REFUSAL_TEXT];
};

// All return the negated status. param may be NULL.
__attribute__((format(printf, 3, 4))) int refuse_schema(struct refusal *r, const char *param,
                                                        const char *fmt, ...);
__attribute__((format(printf, 3, 4))) int refuse_value(struct refusal *r, const char *param,
                                                       const char *fmt, ...);
// status 400 to 599; the type is that of the status.
__attribute__((format(printf, 4, 5))) int refuse(struct refusal *r, int status, const char *param,
                                                 const char *fmt, ...);
void refusal_render(const struct refusal *r, struct buf *out);
