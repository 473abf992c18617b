// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * reply - answers in one piece: the whole of an exchange, errors, and the parts that streams have
 * in common with them.
 */
#include "abi/plugin.h"

#include "base/buf.h"

struct choice;
struct exchange;
struct refusal;

void reply_exchange(struct exchange *x);                        // sends and ends it
void reply_json(sv_req *r, int status, const struct buf *body); // likewise
void reply_refusal(sv_req *r, const struct refusal *why);       // likewise

void reply_put_ids(struct buf *out, const int32_t *ids, size_t n); // a JSON list
void reply_put_reason(struct buf *out,
                      const struct choice *c); // "finish_reason":..,"stop_reason":..
void reply_put_usage(struct buf *out, const struct exchange *x, uint64_t prompt, uint64_t output,
                     bool details);
