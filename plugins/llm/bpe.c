// SPDX-License-Identifier: Apache-2.0
#include "llm/bpe.h"

#include "abi/plugin.h"
#include "base/check.h"
#include "base/err.h"
#include "base/mem.h"
#include "llm/bytelevel.h"
#include "llm/unicode.h"

#include <stdio.h>
#include <string.h>
#include <sys/random.h>

static const uint64_t FREE_PAIR = UINT64_MAX;
static const uint32_t NO_RANK = UINT32_MAX, NONE = UINT32_MAX;
enum { RANK_BITS = 24, ID_BITS = 20 };

void bpe_init(struct bpe *b, uint32_t merges)
{
    uint32_t bits = 6;
    CHECK(merges <= BPE_MERGES);
    while (bits < 26 && (1u << bits) < merges * 2)
        bits++;
    *b = (struct bpe){.shift = 64 - bits, .room = merges, .unknown = -1};
    if (getrandom(&b->factor, sizeof b->factor, 0) < 0)
        b->factor = 0;
    b->factor = (b->factor ^ 0x9e3779b97f4a7c15u) | 1;
    size_t size = (size_t)1 << bits;
    b->pairs = xrealloc(NULL, size * sizeof *b->pairs);
    memset(b->pairs, 0xff, size * sizeof *b->pairs);
    b->made = xrealloc(NULL, (merges + 1) * sizeof *b->made);
    memset(b->byte, 0xff, sizeof b->byte);
}

void bpe_finish(struct bpe *b)
{
    xfree(b->pairs);
    xfree(b->made);
    xfree(b->prefix);
    xfree(b->suffix);
    *b = (struct bpe){0};
}

static uint64_t key_of(int32_t left, int32_t right)
{
    return (uint64_t)left << ID_BITS | (uint64_t)right;
}

static uint64_t *first_slot(const struct bpe *b, int32_t left, int32_t right)
{
    uint64_t key = left < 0 || right < 0 ? 0 : key_of(left, right);
    return &b->pairs[(size_t)((key * b->factor) >> b->shift)];
}

static uint64_t *slot_of(const struct bpe *b, int32_t left, int32_t right)
{
    uint64_t key = key_of(left, right);
    uint64_t *last = b->pairs + ((size_t)1 << (64 - b->shift)) - 1;
    uint64_t *at = first_slot(b, left, right);
    while (*at != FREE_PAIR && *at >> RANK_BITS != key)
        at = at == last ? b->pairs : at + 1;
    return at;
}

static uint32_t rank_in(uint64_t pair)
{
    return (uint32_t)(pair & ((1u << RANK_BITS) - 1));
}

static uint32_t rank_of(const struct bpe *b, int32_t left, int32_t right)
{
    if (left < 0 || right < 0)
        return NO_RANK;
    uint64_t pair = *slot_of(b, left, right);
    return pair == FREE_PAIR ? NO_RANK : rank_in(pair);
}

static bool is_joined(const struct vocab *v, int32_t id, struct bytes left, struct bytes right)
{
    struct bytes t = vocab_text(v, id);
    return t.n == left.n + right.n && memcmp(t.p, left.p, left.n) == 0 &&
           memcmp(t.p + left.n, right.p, right.n) == 0;
}

// Vocabularies mostly list tokens in the order in which they were made, so the id after the last
// one is tried before the hash table.
static int32_t find_joined(const struct bpe *b, const struct vocab *v, struct bytes left,
                           struct bytes right)
{
    int32_t guess = b->n ? b->made[b->n - 1] + 1 : -1;
    size_t skip = b->prefix ? strlen(b->prefix) : 0;
    if (skip > right.n)
        return -1;
    right = (struct bytes){right.p + skip, right.n - skip};
    if (vocab_has(v, guess, VOCAB_SET) && is_joined(v, guess, left, right))
        return guess;
    char text[256];
    if (left.n + right.n <= sizeof text) {
        memcpy(text, left.p, left.n);
        memcpy(text + left.n, right.p, right.n);
        return vocab_find(v, text, left.n + right.n);
    }
    struct buf joined = {0};
    buf_put(&joined, left.p, left.n);
    buf_put(&joined, right.p, right.n);
    int32_t id = vocab_find(v, buf_head(&joined), buf_len(&joined));
    buf_finish(&joined);
    return id;
}

static int add_merge(struct bpe *b, const struct vocab *v, const struct bpe_merge *m,
                     struct err *err)
{
    struct bytes left = m->left, right = m->right;
    int32_t l = m->left_id, r = m->right_id;
    int32_t joined = l < 0 || r < 0 ? -1 : find_joined(b, v, left, right);
    if (joined < 0)
        return err_set(
            err, SV_E_INVALID, "merge %u, '%.*s' and '%.*s': %s is not in the vocabulary", b->n,
            (int)(left.n < 60 ? left.n : 60), left.p, (int)(right.n < 60 ? right.n : 60), right.p,
            l < 0   ? "the first"
            : r < 0 ? "the second"
                    : "what they make");
    uint64_t *slot = slot_of(b, l, r);
    if (*slot == FREE_PAIR || !b->keep_first)
        *slot = key_of(l, r) << RANK_BITS | b->n;
    b->made[b->n++] = joined;
    return 0;
}

// Each step of all before the next step of any, so that the waits for memory overlap.
static int add_batch(struct bpe *b, const struct vocab *v, struct err *err)
{
    struct bpe_merge *m = b->batch;
    int rc = 0;
    for (uint32_t i = 0; i < b->n_batch; i++) {
        vocab_prefetch_text(v, m[i].left_hash);
        vocab_prefetch_text(v, m[i].right_hash);
    }
    for (uint32_t i = 0; i < b->n_batch; i++) {
        m[i].left_id = vocab_find_hashed(v, m[i].left_hash, m[i].left.p, m[i].left.n);
        m[i].right_id = vocab_find_hashed(v, m[i].right_hash, m[i].right.p, m[i].right.n);
        __builtin_prefetch(first_slot(b, m[i].left_id, m[i].right_id));
    }
    for (uint32_t i = 0; rc == 0 && i < b->n_batch; i++)
        rc = add_merge(b, v, &m[i], err);
    b->n_batch = 0;
    return rc;
}

int bpe_add_merge(struct bpe *b, const struct vocab *v, struct bytes left, struct bytes right,
                  struct err *err)
{
    CHECK(b->n + b->n_batch < b->room);
    struct bpe_merge *m = &b->batch[b->n_batch++];
    *m = (struct bpe_merge){.left = left, .right = right};
    m->left_hash = vocab_hash(v, left.p, left.n);
    m->right_hash = vocab_hash(v, right.p, right.n);
    vocab_prefetch_slot(v, m->left_hash);
    vocab_prefetch_slot(v, m->right_hash);
    return b->n_batch == BPE_BATCH ? add_batch(b, v, err) : 0;
}

int bpe_end_merges(struct bpe *b, const struct vocab *v, struct err *err)
{
    return add_batch(b, v, err);
}

void bpe_find_bytes(struct bpe *b, const struct vocab *v)
{
    for (unsigned i = 0; i < 256; i++) {
        char text[8];
        size_t n = b->bytes ? unicode_encode(bytelevel_char((uint8_t)i), text)
                            : (size_t)snprintf(text, sizeof text, "<0x%02X>", i);
        b->byte[i] = vocab_find(v, text, n);
    }
}

void bpe_forget_special(struct bpe *b, const struct vocab *v)
{
    size_t size = (size_t)1 << (64 - b->shift);
    bool any = false;
    for (uint32_t i = 0; i < b->n; i++)
        any |= vocab_has(v, b->made[i], VOCAB_SPECIAL);
    if (!any)
        return;
    uint64_t *old = b->pairs;
    b->pairs = xrealloc(NULL, size * sizeof *b->pairs);
    memset(b->pairs, 0xff, size * sizeof *b->pairs);
    for (size_t i = 0; i < size; i++) {
        if (old[i] == FREE_PAIR || vocab_has(v, b->made[rank_in(old[i])], VOCAB_SPECIAL))
            continue;
        uint64_t key = old[i] >> RANK_BITS;
        *slot_of(b, (int32_t)(key >> ID_BITS), (int32_t)(key & ((1u << ID_BITS) - 1))) = old[i];
    }
    xfree(old);
}

void bpe_work_finish(struct bpe_work *w)
{
    xfree(w->symbols);
    xfree(w->heap);
    buf_finish(&w->text);
    *w = (struct bpe_work){0};
}

static void add_symbol(struct bpe_work *w, int32_t id)
{
    if (w->n == w->room) {
        w->room = w->room ? 2 * w->room : 256;
        w->symbols = xrealloc(w->symbols, w->room * sizeof *w->symbols);
    }
    w->symbols[w->n++].id = id;
}

static bool add_fallback(const struct bpe *b, struct bpe_work *w, struct bytes c)
{
    for (size_t i = 0; i < c.n; i++)
        if (b->byte[(uint8_t)c.p[i]] < 0)
            return false;
    for (size_t i = 0; i < c.n; i++)
        add_symbol(w, b->byte[(uint8_t)c.p[i]]);
    return true;
}

// The character as the vocabulary writes it at this place of the word.
static struct bytes decorate(const struct bpe *b, struct bpe_work *w, struct bytes c, bool first,
                             bool last)
{
    bool prefix = b->prefix && !first, suffix = b->suffix && last;
    if (!prefix && !suffix)
        return c;
    buf_clear(&w->text);
    if (prefix)
        buf_puts(&w->text, b->prefix);
    buf_put(&w->text, c.p, c.n);
    if (suffix)
        buf_puts(&w->text, b->suffix);
    return (struct bytes){buf_head(&w->text), buf_len(&w->text)};
}

static void split_characters(const struct bpe *b, const struct vocab *v, struct bpe_work *w,
                             const char *word, size_t n)
{
    bool unknown = false; // one is held back, to be fused with those after it
    for (size_t i = 0, len; i < n; i += len) {
        unicode_get(word + i, n - i, &len);
        struct bytes c = decorate(b, w, (struct bytes){word + i, len}, i == 0, i + len == n);
        int32_t id = vocab_find_piece(v, c.p, c.n);
        if (id < 0 && b->byte_fallback && add_fallback(b, w, c))
            continue; // the reference does not end a held back unknown here either
        if (unknown && (id >= 0 || !b->fuse_unknown)) {
            add_symbol(w, b->unknown);
            unknown = false;
        }
        if (id >= 0)
            add_symbol(w, id);
        else
            unknown = b->unknown >= 0;
    }
    if (unknown)
        add_symbol(w, b->unknown);
}

static void split_bytes(const struct bpe *b, struct bpe_work *w, const char *word, size_t n)
{
    bool unknown = false;
    for (size_t i = 0; i < n; i++) {
        int32_t id = b->byte[(uint8_t)word[i]];
        if (unknown && (id >= 0 || !b->fuse_unknown)) {
            add_symbol(w, b->unknown);
            unknown = false;
        }
        if (id >= 0)
            add_symbol(w, id);
        else
            unknown = b->unknown >= 0;
    }
    if (unknown)
        add_symbol(w, b->unknown);
}

static void merge_short(const struct bpe *b, struct bpe_work *w, struct ids *out)
{
    int32_t id[BPE_SHORT];
    uint32_t rank[BPE_SHORT]; // of the pair (i, i + 1)
    size_t n = w->n;
    for (size_t i = 0; i < n; i++)
        id[i] = w->symbols[i].id;
    for (size_t i = 0; i + 1 < n; i++)
        rank[i] = rank_of(b, id[i], id[i + 1]);
    while (n > 1) {
        size_t best = 0;
        for (size_t i = 1; i + 1 < n; i++)
            if (rank[i] < rank[best])
                best = i;
        if (rank[best] == NO_RANK)
            break;
        id[best] = b->made[rank[best]];
        n--;
        memmove(&id[best + 1], &id[best + 2], (n - best - 1) * sizeof *id);
        if (best + 1 < n) {
            memmove(&rank[best], &rank[best + 1], (n - best - 1) * sizeof *rank);
            rank[best] = rank_of(b, id[best], id[best + 1]);
        }
        if (best > 0)
            rank[best - 1] = rank_of(b, id[best - 1], id[best]);
    }
    for (size_t i = 0; i < n; i++)
        ids_push(out, id[i]);
}

static bool before(const struct bpe_candidate *a, const struct bpe_candidate *b)
{
    return a->rank < b->rank || (a->rank == b->rank && a->at < b->at);
}

static void heap_push(const struct bpe *b, struct bpe_work *w, uint32_t at)
{
    const struct bpe_symbol *s = &w->symbols[at];
    if (s->next == NONE)
        return;
    struct bpe_candidate c = {0, at, s->id, w->symbols[s->next].id};
    c.rank = rank_of(b, c.left, c.right);
    if (c.rank == NO_RANK)
        return;
    if (w->heap_n == w->heap_room) {
        w->heap_room = w->heap_room ? 2 * w->heap_room : 256;
        w->heap = xrealloc(w->heap, w->heap_room * sizeof *w->heap);
    }
    size_t i = w->heap_n++;
    for (size_t up; i > 0 && before(&c, &w->heap[up = (i - 1) / 2]); i = up)
        w->heap[i] = w->heap[up];
    w->heap[i] = c;
}

static struct bpe_candidate heap_pop(struct bpe_work *w)
{
    struct bpe_candidate top = w->heap[0], last = w->heap[--w->heap_n];
    size_t i = 0;
    for (size_t down = 1; down < w->heap_n; down = 2 * i + 1) {
        if (down + 1 < w->heap_n && before(&w->heap[down + 1], &w->heap[down]))
            down++;
        if (!before(&w->heap[down], &last))
            break;
        w->heap[i] = w->heap[down];
        i = down;
    }
    w->heap[i] = last;
    return top;
}

static const int32_t GONE = -2;

static void apply(const struct bpe *b, struct bpe_work *w, const struct bpe_candidate *c)
{
    struct bpe_symbol *s = &w->symbols[c->at];
    if (s->id != c->left || s->next == NONE || w->symbols[s->next].id != c->right)
        return; // one of the two was merged meanwhile
    struct bpe_symbol *right = &w->symbols[s->next];
    s->id = b->made[c->rank];
    s->next = right->next;
    right->id = GONE;
    if (s->next != NONE)
        w->symbols[s->next].prev = c->at;
    if (s->prev != NONE)
        heap_push(b, w, s->prev);
    heap_push(b, w, c->at);
}

static void merge_long(const struct bpe *b, struct bpe_work *w, struct ids *out)
{
    w->heap_n = 0;
    for (size_t i = 0; i < w->n; i++) {
        w->symbols[i].prev = i ? (uint32_t)i - 1 : NONE;
        w->symbols[i].next = i + 1 < w->n ? (uint32_t)i + 1 : NONE;
    }
    for (size_t i = 0; i + 1 < w->n; i++)
        heap_push(b, w, (uint32_t)i);
    while (w->heap_n > 0) {
        struct bpe_candidate c = heap_pop(w);
        apply(b, w, &c);
    }
    for (uint32_t i = 0; i != NONE; i = w->symbols[i].next)
        ids_push(out, w->symbols[i].id);
}

// The whole word's id, if that is enough.
static int32_t find_whole(const struct bpe *b, const struct vocab *v, struct bpe_work *w,
                          const char *word, size_t n)
{
    if (!b->ignore_merges || n > v->longest)
        return -1;
    if (!b->bytes)
        return vocab_find_piece(v, word, n);
    buf_clear(&w->text);
    bytelevel_put(&w->text, word, n);
    return vocab_find_piece(v, buf_head(&w->text), buf_len(&w->text));
}

void bpe_encode(const struct bpe *b, const struct vocab *v, struct bpe_work *w, const char *word,
                size_t n, struct ids *out)
{
    int32_t whole = find_whole(b, v, w, word, n);
    if (whole >= 0) {
        ids_push(out, whole);
        return;
    }
    w->n = 0;
    if (b->bytes)
        split_bytes(b, w, word, n);
    else
        split_characters(b, v, w, word, n);
    if (w->n == 0)
        return;
    if (w->n <= BPE_SHORT)
        merge_short(b, w, out);
    else
        merge_long(b, w, out);
}
