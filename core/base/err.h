// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * err - the one shape of a failure: a negative code and a whole sentence.
 *
 * Codes   the ABI's SV_E_* (negated HTTP statuses), inside the binary too; see abi/plugin.h.
 * Text    the callee says what went wrong (value, limit, what to do); each caller may put
 *         "doing what to which" before it with err_ctx. Whoever returns an err does not log it.
 * Bounds  ERR_MSG_MAX bytes, fixed: reporting a failure must not be able to fail. Cut, never grown.
 * Thread  plain data, no statics.
 */
enum { ERR_MSG_MAX = 512 };

struct err {
    int code; // 0 or SV_E_*
    char msg[ERR_MSG_MAX];
};

// Both return `code` (err_ctx: e->code), so that `return err_set(...)` is one step.
// `e` may be NULL: then only the code is returned.
__attribute__((format(printf, 3, 4))) int err_set(struct err *e, int code, const char *fmt, ...);
__attribute__((format(printf, 2, 3))) int err_ctx(struct err *e, const char *fmt, ...);

// Text of errno `errnum`, thread-safe, never NULL.
const char *err_errno(int errnum);
