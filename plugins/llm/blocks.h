// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * blocks - the pool of KV blocks: who holds which, and what is still in those that nobody holds.
 *
 * Holders  a block has one reference for each sequence whose page table names it; a block without
 *          one is free. Full blocks alone are ever shared, so nobody writes to a shared block.
 * Free     a list by time of release, least recently used first; taken from the front. What is
 *          released goes to the back, the last block of a sequence first, so that of a prefix the
 *          tail is lost before the head. A block without a name goes to the front instead: reusing
 *          it loses nothing.
 * Name     a full block is found by (the serial of the named block before it, its 16 tokens); a
 *          first block by (the salt, its tokens). Serials are never used twice, so a name stands
 *          for one run of tokens from the start. It is compared in full: the hash, keyed anew in
 *          each process, finds the place alone, and no collision can serve another's KV.
 * Order    launches are carried out one after another, so a block released while a launch under way
 *          still writes to it may be handed to a later launch.
 * Bounds   n blocks of about 128 bytes each, allocated at init; no call allocates or walks more
 *          than a hash chain, but blocks_check.
 */
#include "kernels/kernels.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BLOCK_NONE UINT32_MAX

enum block_state {
    BLOCK_PLAIN,   // no name
    BLOCK_PENDING, // named; its holder is about to compute it
    BLOCK_STALLED, // as PENDING, but its holder is paused: not worth waiting for
    BLOCK_READY    // named; every later launch may read it
};

// What comes before a block: for the first one the salt, for others the serial of the one before.
struct chain {
    uint64_t before[2];
    uint32_t index; // of the next block in its sequence
};

struct block {
    uint64_t serial; // of its content while it is named
    struct chain at;
    int32_t token[SV_BLOCK];
    uint32_t hash, next;           // next: in its hash chain
    uint32_t prev_free, next_free; // neighbours in the free list; to itself: in none
    uint32_t refs;
    enum block_state state;
};

struct blocks {
    struct block *block; // owned [n + 1]; the last one is the head of the free list
    uint32_t *bucket;    // owned [mask + 1]
    uint32_t n, mask, free, named;
    uint64_t serial, key;
};

void blocks_init(struct blocks *p, uint32_t n);
void blocks_finish(struct blocks *p);

uint32_t blocks_take(struct blocks *p);          // there must be a free one; its name is lost
void blocks_share(struct blocks *p, uint32_t b); // one more holder
// Gives up a sequence's blocks. Those that were not computed lose their names.
void blocks_release(struct blocks *p, const uint32_t *b, uint32_t n);

struct chain blocks_root(const uint64_t salt[2]);
// The block of that name, in whatever state, or BLOCK_NONE. On success *at goes one block further.
uint32_t blocks_find(const struct blocks *p, struct chain *at, const int32_t token[SV_BLOCK]);
// Names block b, unless another has the name and is not stalled. *at goes one block further either
// way.
void blocks_name(struct blocks *p, uint32_t b, struct chain *at, const int32_t token[SV_BLOCK],
                 enum block_state state);
void blocks_forget(struct blocks *p, uint32_t b); // takes the name away, if it has one

// CHECKs everything that must hold; refs[n]: how many holders each block should have.
void blocks_check(const struct blocks *p, const uint32_t *refs);
