// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * hf - the JSON and template files of a folder in Hugging Face's layout.
 */
#include <stdbool.h>

struct buf;
struct err;
struct spec;

enum { HF_CONFIG_MAX = 16 << 20 }; // bytes of a file

int hf_spec(const char *folder, struct spec *ret, struct err *err);
// Appends the chat template; nothing where there is none.
int hf_template(const char *folder, struct buf *out, struct err *err);
bool hf_is_folder(const char *path);
