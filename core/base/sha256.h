// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * sha256 - the name of a plugin copy (OpenSSL's EVP underneath).
 */
#include <stddef.h>

struct err;
enum { SHA256_HEX = 65 }; // 64 digits and the NUL

struct sha256;
struct sha256 *sha256_create(void);
void sha256_add(struct sha256 *h, const void *p, size_t n);
int sha256_add_fd(struct sha256 *h, int fd, struct err *err);    // to the end of the file
void sha256_destroy(struct sha256 *h, char ret_hex[SHA256_HEX]); // ret_hex may be NULL
