// SPDX-License-Identifier: Apache-2.0
// A page as a process gone wrong may leave it: what is read of it stays within it, and what
// /metrics shows stays readable.
#include "base/buf.h"
#include "base/check.h"
#include "base/str.h"
#include "obs/metrics.h"

#include <string.h>

enum { METRICS_USED = 6 };

static struct page page, fold;

// The input is a list of pieces: u8 where, u16 offset, u16 length, bytes.
static size_t put_piece(const uint8_t *data, size_t n)
{
    uint16_t at, len;
    const struct {
        void *to;
        size_t room;
    } places[] = {{&page, offsetof(struct page, threads)},
                  {page.requests, sizeof page.requests[0] * 4},
                  {&page.log_next, sizeof page.log_next},
                  {page.log, sizeof page.log},
                  {&page.n_metrics, sizeof page.n_metrics},
                  {page.metrics, sizeof page.metrics[0] * METRICS_USED}};
    if (n < 5)
        return n;
    memcpy(&at, data + 1, 2);
    memcpy(&len, data + 3, 2);
    len = len < n - 5 ? len : (uint16_t)(n - 5);
    size_t place = data[0] % ARRAY_LEN(places), room = places[place].room;
    if (at < room)
        memcpy((char *)places[place].to + at, data + 5, len < room - at ? len : room - at);
    return 5 + (size_t)len;
}

static void clear(void)
{
    memset(&page, 0, offsetof(struct page, threads));
    memset(page.requests, 0, sizeof page.requests[0] * 4);
    memset(page.log, 0, sizeof page.log);
    memset(page.metrics, 0, sizeof page.metrics[0] * METRICS_USED);
    page.log_next = page.n_requests = page.n_metrics = 0;
    fold.n_metrics = fold.seq = 0;
}

// Every line is a comment of ours, or a name, perhaps labels, and one number.
static void check_text(struct buf *out)
{
    const char *text = buf_cstr(out);
    CHECK(str_valid_utf8(text, buf_len(out)) && strlen(text) == buf_len(out));
    while (*text) {
        const char *end = strchr(text, '\n'), *number;
        CHECK(end && end > text);
        number = memrchr(text, ' ', (size_t)(end - text));
        CHECK(number);
        if (*text == '#')
            CHECK(strncmp(text, "# HELP ", 7) == 0 || strncmp(text, "# TYPE ", 7) == 0);
        else
            CHECK(strspn(number + 1, "+-.0123456789eINanf") == (size_t)(end - number - 1));
        text = end + 1;
    }
}

static void expose(const struct page *const *pages, size_t n)
{
    struct buf out = {0};
    metrics_expose(&out, pages, n, &fold);
    check_text(&out);
    buf_finish(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    const struct page *pages[] = {&page, NULL, &page};
    char line[PAGE_LOG_LINE];
    uint64_t ids[4];
    clear();
    for (size_t used; n; data += used, n -= used)
        used = put_piece(data, n);
    for (uint32_t i = 0; page_log_line(&page, i, line); i++)
        CHECK(strlen(line) < sizeof line && i < PAGE_LOG_LINES);
    page_request_state_of(&page, 1);
    page_request_ids(&page, PR_GIVEN, ids, ARRAY_LEN(ids));
    expose(pages, ARRAY_LEN(pages));
    metrics_fold(&fold, &page);
    expose(pages, ARRAY_LEN(pages));
    return 0;
}
