// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * mega_ring - the ring of a CTA, and the warp that fills it through all operations of a step.
 *
 * Granule  8 rows of 64 columns, 1 KB, by the bulk tensor copy engine: piece p of 16 bytes of row r
 *          lies at p ^ r (its 128-byte swizzle), so that no product's operand has a conflict of
 *          banks
 * Slot     16 granules, one of each warp; of attention some tiles of 16 keys, each K [panels of 64
 *          columns, 16 rows], then V. Filled and given back as a whole: a barrier counts bytes, one
 *          warps
 * Order    of a projection: the CTA's units of rows, each unit's blocks of columns in sixteens. Of
 *          attention: the CTA's tiles
 */
#include "cuda/attend.h"
#include "cuda/gemm_parts.h"
#include "cuda/mega.h"
#include "cuda/roles.h"

enum {
    MEGA_TILES_LEAST = MEGA_WARPS / 2, // of a range: below, merging costs more than reading
    MEGA_SLOTS = 11,
    MEGA_GRANULE = MEGA_UNIT * BOX_COLUMNS * 2, // bytes
    MEGA_SLOT = MEGA_WARPS * MEGA_GRANULE,
    MEGA_WORKERS = MEGA_WARPS * WARP,  // threads
    MEGA_THREADS = MEGA_WORKERS + WARP // and the warp that fills
};

// This CTA's place in an operation that begins with another one.
static __device__ __forceinline__ uint32_t mega_place(uint32_t start)
{
    return blockIdx.x >= start ? blockIdx.x - start : blockIdx.x + gridDim.x - start;
}

// The step's token.
struct mega_token {
    bool there;
    uint32_t pos;
    const int32_t *pages; // of its sequence
    uint32_t page;        // its own
};

static __device__ __forceinline__ mega_token mega_token_of(const session_view &v)
{
    mega_token t = {};
    t.there = __ldcg(v.counts) > 0;
    t.pages = v.page_table;
    if (t.there) {
        t.pos = (uint32_t)__ldcg(v.pos);
        t.pages += (uint64_t)(uint32_t)__ldcg(v.token_slot) * v.max_pages;
        t.page = (uint32_t)__ldcg(t.pages + t.pos / SV_BLOCK);
    }
    return t;
}

// How the keys of the token, its own included, are dealt out: in tiles of a KV block.
struct mega_keys {
    uint32_t begin, first, tiles, each, ranges; // first key, its tile; all tiles; of a range

    __device__ __forceinline__ mega_keys(const session_view &v, uint32_t pos, uint32_t window)
    {
        begin = first_key(pos, window);
        first = begin / SV_BLOCK;
        tiles = pos / SV_BLOCK + 1 - first;
        const uint32_t most = min(gridDim.x / v.kv_heads, (uint32_t)MEGA_RANGES);
        const uint32_t direct = min(most, (uint32_t)MEGA_DIRECT);
        // Up to two tiles a warp, as long as the next projection can put the ranges together.
        each = max((tiles + direct - 1) / direct, (uint32_t)MEGA_TILES_LEAST);
        if (each > 2 * MEGA_WARPS)
            each = max((tiles + most - 1) / most, 2u * MEGA_WARPS);
        ranges = (tiles + each - 1) / each;
    }
};

// A CTA's range: tiles [tile, tile + count) of the sequence, of one kv head. Tile i of it is of
// warp i % MEGA_WARPS.
struct mega_range {
    uint32_t head, number, tile, count; // number: of the ranges

    __device__ __forceinline__ mega_range(const session_view &v, const mega_keys &k, uint32_t start)
    {
        const uint32_t place = mega_place(start);
        number = place / v.kv_heads;
        head = place - number * v.kv_heads;
        const uint32_t from = number * k.each;
        tile = k.first + from;
        count = number < k.ranges ? min(k.each, k.tiles - from) : 0;
    }
};

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

static __device__ __forceinline__ void sync_workers()
{
    meet(1, MEGA_WORKERS);
}

/*
 * A store that has been done at the L2 when it returns: an exchange, whose old number is waited
 * for. Then a barrier of this CTA and any arrival that others look for say that it can be read
 * there, and no fence is needed: that one takes 1 us, half of the way from a product to the next
 * operation's x. `seen` is a place in shared memory for what is waited for.
 */
static __device__ __forceinline__ void settle(void *to, uint32_t x, volatile uint32_t *seen)
{
    uint32_t old;
    asm volatile("atom.relaxed.gpu.global.exch.b32 %0, [%1], %2;"
                 : "=r"(old)
                 : "l"(to), "r"(x)
                 : "memory");
    *seen = old;
}

static __device__ __forceinline__ void settle(void *to, float2 x, volatile uint32_t *seen)
{
    uint64_t old, two = (uint64_t)__float_as_uint(x.y) << 32 | __float_as_uint(x.x);
    asm volatile("atom.relaxed.gpu.global.exch.b64 %0, [%1], %2;"
                 : "=l"(old)
                 : "l"(to), "l"(two)
                 : "memory");
    *seen = (uint32_t)old ^ (uint32_t)(old >> 32);
}

static __device__ __forceinline__ void settle(float *to, float4 x, volatile uint32_t *seen)
{
    settle(to, make_float2(x.x, x.y), seen);
    settle(to + 2, make_float2(x.z, x.w), seen);
}

// The barriers of a ring: of each slot one that counts bytes, one that counts warps.
struct mega_barriers {
    uint64_t filled[MEGA_SLOTS], free[MEGA_SLOTS];

    __device__ __forceinline__ void make()
    {
        for (uint32_t i = 0; i < MEGA_SLOTS; i++) {
            phase_init(&filled[i], 1);
            phase_init(&free[i], MEGA_WARPS);
        }
        phases_publish();
    }
};

// One side's way around the ring.
struct mega_ring {
    uint32_t data; // shared address
    mega_barriers *barriers;
    uint32_t slot, parity;

    __device__ __forceinline__ mega_ring(const void *slots, mega_barriers *barriers)
        : data(shared_address(slots)), barriers(barriers), slot(0), parity(0)
    {
    }

    __device__ __forceinline__ uint32_t at() const
    {
        return data + slot * MEGA_SLOT;
    }

    __device__ __forceinline__ uint64_t *filled() const
    {
        return &barriers->filled[slot];
    }

    // A worker's warp: until the slot is filled; it is done with the slot.
    __device__ __forceinline__ void take() const
    {
        phase_wait(filled(), parity);
    }

    __device__ __forceinline__ void give()
    {
        __syncwarp();
        if (threadIdx.x % WARP == 0)
            phase_arrive(&barriers->free[slot]);
        next();
    }

    // The filling warp: until the slot is free; so many bytes will come.
    __device__ __forceinline__ void begin(uint32_t bytes) const
    {
        phase_wait(&barriers->free[slot], parity ^ 1);
        if (threadIdx.x % WARP == 0)
            phase_arrive_expecting(filled(), bytes);
        __syncwarp();
    }

    __device__ __forceinline__ void next()
    {
        if (++slot == MEGA_SLOTS) {
            slot = 0;
            parity ^= 1;
        }
    }

    __device__ __forceinline__ mega_ring after() const
    {
        mega_ring r = *this;
        r.next();
        return r;
    }
};

// A CTA's units of a projection: an equal share, and to the first places what is left over.
struct mega_units {
    uint32_t from, count;

    __device__ __forceinline__ mega_units(const mega_op &op)
    {
        const uint32_t all = op.project.units, place = mega_place(op.start);
        const uint32_t each = all / gridDim.x, larger = all - each * gridDim.x;
        from = each * place + min(larger, place);
        count = each + (place < larger);
    }
};

// A box a granule. All of a slot in one box come in a burst that holds up all other loads.
static __device__ __forceinline__ void fill_weights(const mega_op &op, const CUtensorMap *map,
                                                    uint64_t policy, mega_ring *ring)
{
    const mega_project &p = op.project;
    const mega_units units(op);
    const uint32_t lane = threadIdx.x % WARP;
    const uint32_t rows = p.end == GEMM_GATE_UP ? MEGA_UNIT / 2 : MEGA_UNIT;
    box_ahead(map);
#pragma unroll 1
    for (uint32_t unit = units.from; unit < units.from + units.count; unit++) {
#pragma unroll 1
        for (uint32_t block = 0; block < p.blocks; block += MEGA_WARPS) {
            const uint32_t n = min(p.blocks - block, (uint32_t)MEGA_WARPS);
            ring->begin(n * MEGA_GRANULE);
            if (lane < n)
                box_copy(ring->at() + lane * MEGA_GRANULE, map, (block + lane) * BOX_COLUMNS,
                         unit * rows, 0, ring->filled(), policy);
            ring->next();
        }
    }
}

template <int D> struct mega_tile {
    enum {
        PANELS = D / BOX_COLUMNS,
        PANEL = SV_BLOCK * BOX_COLUMNS * 2, // bytes; two granules
        BYTES = 2 * PANELS * PANEL,
        OF_SLOT = MEGA_SLOT / BYTES
    };
};

template <int D>
static __device__ __forceinline__ void fill_keys(const mega_args &a, const mega_op &op,
                                                 const mega_token &token, uint64_t policy,
                                                 mega_ring *ring)
{
    using shape = mega_tile<D>;
    const session_view &v = a.v;
    const mega_keys k(v, token.pos, op.attend.window);
    const mega_range r(v, k, op.start);
    const uint32_t lane = threadIdx.x % WARP, copies = 2 * shape::PANELS;
    int32_t pages = 0; // lane i: of tile i of the next 32
#pragma unroll 1
    for (uint32_t i = 0; i < r.count; i += shape::OF_SLOT) {
        if (i % WARP == 0)
            pages = i + lane < r.count ? __ldcg(token.pages + r.tile + i + lane) : 0;
        const uint32_t n = min(r.count - i, (uint32_t)shape::OF_SLOT);
        const uint32_t tile = min(lane / copies, shape::OF_SLOT - 1u), part = lane % copies;
        const uint32_t page = (uint32_t)__shfl_sync(~0u, pages, (i + tile) % WARP);
        const uint32_t row = (op.attend.layer * v.n_blocks + page) * SV_BLOCK;
        ring->begin(n * shape::BYTES);
        if (lane < n * copies)
            box_copy(ring->at() + lane * shape::PANEL, a.maps + part / shape::PANELS, // K, V
                     part % shape::PANELS * BOX_COLUMNS, r.head, row, ring->filled(), policy);
        ring->next();
    }
}

// All that this CTA will need, by one warp. What a step before has written is there once the
// kernel before this one has ended.
template <int D> static __device__ __forceinline__ void fill(const mega_args &a, mega_ring ring)
{
    const uint64_t policy = read_once();
    mega_token token = {};
#pragma unroll 1
    for (uint32_t i = 0; i < a.n_ops; i++) {
        const mega_op &op = a.op[i];
        if (op.kind == MEGA_PROJECT) {
            fill_weights(op, a.maps + 2 + i, policy, &ring);
            continue;
        }
        if (!token.pages) {
            wait_previous();
            token = mega_token_of(a.v);
        }
        if (token.there)
            fill_keys<D>(a, op, token, policy, &ring);
    }
}

#endif
