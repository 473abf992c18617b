// SPDX-License-Identifier: Apache-2.0
#include "llm/spm.h"

#include "base/mem.h"
#include "llm/unicode.h"

static const uint32_t NONE = UINT32_MAX;

void spm_finish(struct spm *s)
{
    xfree(s->score);
    *s = (struct spm){0};
}

void spm_work_finish(struct spm_work *w)
{
    xfree(w->symbols);
    xfree(w->heap);
    *w = (struct spm_work){0};
}

static void split(struct spm_work *w, const char *text, size_t n)
{
    w->n = 0;
    for (size_t i = 0, len; i < n; i += len) {
        unicode_get(text + i, n - i, &len);
        if (w->n == w->room) {
            w->room = w->room ? 2 * w->room : 256;
            w->symbols = xrealloc(w->symbols, w->room * sizeof *w->symbols);
        }
        uint32_t at = (uint32_t)w->n++;
        w->symbols[at] = (struct spm_symbol){(uint32_t)i, (uint32_t)len, at ? at - 1 : NONE,
                                             i + len < n ? at + 1 : NONE};
    }
}

static bool before(const struct spm_candidate *a, const struct spm_candidate *b)
{
    return a->score > b->score || (a->score == b->score && a->left < b->left);
}

static void push(const struct spm *s, const struct vocab *v, struct spm_work *w, const char *text,
                 uint32_t left)
{
    const struct spm_symbol *l = left == NONE ? NULL : &w->symbols[left];
    if (!l || l->next == NONE)
        return;
    struct spm_candidate c = {0, left, l->n + w->symbols[l->next].n};
    int32_t id = c.n <= v->longest ? vocab_find_piece(v, text + l->begin, c.n) : -1;
    if (id < 0)
        return;
    c.score = s->score[id];
    if (w->heap_n == w->heap_room) {
        w->heap_room = w->heap_room ? 2 * w->heap_room : 256;
        w->heap = xrealloc(w->heap, w->heap_room * sizeof *w->heap);
    }
    size_t i = w->heap_n++;
    for (size_t up; i > 0 && before(&c, &w->heap[up = (i - 1) / 2]); i = up)
        w->heap[i] = w->heap[up];
    w->heap[i] = c;
}

static struct spm_candidate pop(struct spm_work *w)
{
    struct spm_candidate top = w->heap[0], last = w->heap[--w->heap_n];
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

static void join(const struct spm *s, const struct vocab *v, struct spm_work *w, const char *text,
                 const struct spm_candidate *c)
{
    struct spm_symbol *l = &w->symbols[c->left];
    if (l->n == 0 || l->next == NONE || l->n + w->symbols[l->next].n != c->n)
        return; // one of the two was joined meanwhile
    struct spm_symbol *r = &w->symbols[l->next];
    l->n = c->n;
    l->next = r->next;
    r->n = 0;
    if (l->next != NONE)
        w->symbols[l->next].prev = c->left;
    push(s, v, w, text, l->prev);
    push(s, v, w, text, c->left);
}

static bool put_bytes(const struct spm *s, const char *text, size_t n, struct ids *out)
{
    for (size_t i = 0; i < n; i++)
        if (s->byte[(uint8_t)text[i]] < 0)
            return false;
    for (size_t i = 0; i < n; i++)
        ids_push(out, s->byte[(uint8_t)text[i]]);
    return true;
}

void spm_encode(const struct spm *s, const struct vocab *v, struct spm_work *w, const char *text,
                size_t n, struct ids *out)
{
    bool unknown = false; // the last id stands for a run of unknown ones
    split(w, text, n);
    w->heap_n = 0;
    for (uint32_t i = 0; i < w->n; i++)
        push(s, v, w, text, i);
    while (w->heap_n > 0) {
        struct spm_candidate c = pop(w);
        join(s, v, w, text, &c);
    }
    for (uint32_t i = w->n ? 0 : NONE; i != NONE; i = w->symbols[i].next) {
        const char *piece = text + w->symbols[i].begin;
        int32_t id = vocab_find_piece(v, piece, w->symbols[i].n);
        if (id >= 0)
            ids_push(out, id);
        else if (!put_bytes(s, piece, w->symbols[i].n, out) && !unknown && s->unknown >= 0)
            ids_push(out, s->unknown);
        unknown = id < 0 && s->byte[(uint8_t)piece[0]] < 0;
    }
}
