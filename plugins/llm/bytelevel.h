// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * bytelevel - GPT-2's writing of bytes as printable characters (openai/gpt-2: encoder.py,
 * bytes_to_unicode): '!'..'~', U+A1..U+AC and U+AE..U+FF stand for themselves, the other 68 bytes
 * are U+0100 and up in order.
 */
#include "base/buf.h"

#include <stdbool.h>
#include <stdint.h>

enum { BYTELEVEL_END = 0x144 }; // one more than the highest character

uint32_t bytelevel_char(uint8_t byte);
int bytelevel_byte(uint32_t c); // -1: no byte is written so

void bytelevel_put(struct buf *out, const char *text, size_t n); // bytes as characters
// Characters as bytes; false, and nothing put, when one of text's characters stands for no byte.
bool bytelevel_get(struct buf *out, const char *text, size_t n);
