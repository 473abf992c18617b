// SPDX-License-Identifier: Apache-2.0
// Bytes in the place of a supervisor's table: refused, or a table that comes back as it was.
#include "base/check.h"
#include "base/err.h"
#include "supervise/table.h"

#include <stdint.h>
#include <string.h>

static void see(void *ctx, int fd)
{
    *(int *)ctx += fd >= 3;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct table t, back;
    struct err err = {.code = 0};
    struct buf first = {0}, second = {0};
    int fds = 0, again = 0;
    if (table_parse((struct bytes){(const char *)data, n}, &t, &err) < 0) {
        CHECK(err.code < 0 && err.msg[0]);
        return 0;
    }
    table_each_fd(&t, see, &fds);
    table_put(&t, &first);
    CHECK(table_parse((struct bytes){buf_head(&first), buf_len(&first)}, &back, &err) == 0);
    table_each_fd(&back, see, &again);
    CHECK(fds == again && fds >= 4); // lock, kin, fold, one listener
    table_put(&back, &second);
    CHECK(buf_len(&first) == buf_len(&second));
    CHECK(memcmp(buf_head(&first), buf_head(&second), buf_len(&first)) == 0);
    table_finish(&t);
    table_finish(&back);
    buf_finish(&first);
    buf_finish(&second);
    return 0;
}
