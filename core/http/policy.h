// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * policy - what a request that parses must still satisfy before anybody acts on it (RFC 9110,
 * 9112): one meaning only, no doubt about framing, nothing that another hop may read differently.
 *
 * Input   a message whose method, target, headers and n_headers are set (names in lower case,
 *         strings that may be cut in place).
 * Output  the other fields of the message that come from the head, and *ret_chunked.
 * Thread  pure: no clock, no I/O, no allocation.
 */
#include <stdbool.h>
#include <stddef.h>

struct err;
struct http_msg;

// `room` holds the paths: 2 * (strlen(target) + 2) bytes. 0 or the negated status, with its text.
int policy_check(struct http_msg *m, unsigned major, unsigned minor, char *room, bool *ret_chunked,
                 struct err *err);

bool policy_token(const char *s, size_t n);                 // RFC 9110 section 5.6.2, not empty
bool policy_value(const char *s);                           // a field value without controls
bool policy_has_token(const char *list, const char *token); // in a comma-separated list
