// SPDX-License-Identifier: Apache-2.0
#include "base/sha256.h"

#include "abi/plugin.h"
#include "base/check.h"
#include "base/err.h"
#include "base/mem.h"

#include <errno.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <unistd.h>

enum { SHA256_READ = 64 << 10 }; // bytes a read

struct sha256 {
    EVP_MD_CTX *md; // owned
};

struct sha256 *sha256_create(void)
{
    struct sha256 *h = xcalloc(1, sizeof *h);
    h->md = EVP_MD_CTX_new();
    CHECK(h->md && EVP_DigestInit_ex(h->md, EVP_sha256(), NULL) == 1);
    return h;
}

void sha256_add(struct sha256 *h, const void *p, size_t n)
{
    CHECK(EVP_DigestUpdate(h->md, p, n) == 1);
}

int sha256_add_fd(struct sha256 *h, int fd, struct err *err)
{
    char *chunk = xrealloc(NULL, SHA256_READ);
    ssize_t n;
    int rc = 0;
    while ((n = read(fd, chunk, SHA256_READ)) != 0) {
        if (n > 0)
            sha256_add(h, chunk, (size_t)n);
        else if (errno != EINTR)
            break;
    }
    if (n < 0)
        rc = err_set(err, SV_E_INTERNAL, "reading the file to hash: %s", err_errno(errno));
    xfree(chunk);
    return rc;
}

void sha256_destroy(struct sha256 *h, char ret_hex[SHA256_HEX])
{
    if (!h)
        return;
    unsigned char sum[EVP_MAX_MD_SIZE];
    unsigned n = 0;
    CHECK(EVP_DigestFinal_ex(h->md, sum, &n) == 1 && n * 2 + 1 == SHA256_HEX);
    for (size_t i = 0; ret_hex && i < n; i++)
        snprintf(ret_hex + i * 2, 3, "%02x", sum[i]);
    EVP_MD_CTX_free(h->md);
    xfree(h);
}
