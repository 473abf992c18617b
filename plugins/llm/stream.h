// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * stream - the events of a streamed answer, framed here: "data: {...}\n\n".
 *
 * Order   chat: one chunk with the role for each choice; then chunks as tokens come; the last of a
 *         choice has its finish_reason; then, if wanted, one with usage and no choices; [DONE].
 * Cost    what is the same in all chunks of a choice is rendered once.
 */
#include <stddef.h>

struct choice;
struct exchange;
struct refusal;

void stream_open(struct exchange *x);
// n bytes of the choice's text, and what it has of logprobs and ids.
void stream_chunk(struct choice *c, size_t n);
void stream_close(struct exchange *x);
void stream_fail(struct exchange *x, const struct refusal *why);
