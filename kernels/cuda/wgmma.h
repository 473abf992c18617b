// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * wgmma - sm_90a's product of a warpgroup: 64 rows, 16 deep, both or the second operand from
 * shared memory, asynchronous.
 *
 * Tiles    panels of 64 columns of 2 bytes; row r of a panel is 128 bytes, its 16-byte pieces lie
 *          at piece ^ (r & 7) (the 128-byte swizzle); panels begin at multiples of 1024 bytes.
 * Sums     of a lane: [n / 8][4] as attend.h's multiply(): rows lane / 4 and that + 8 of its
 *          warp's 16.
 * Order    wgmma_begin() before products that read registers written since; between a product and
 *          wgmma_wait() its registers belong to it, and wgmma_own() after that tells the compiler
 *          so.
 */
#include "cuda/attend.h"

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

static __device__ __forceinline__ void wgmma_begin()
{
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}

static __device__ __forceinline__ void wgmma_commit()
{
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

template <int N> static __device__ __forceinline__ void wgmma_wait()
{
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory");
}

template <int N> static __device__ __forceinline__ void wgmma_own(float (&x)[N][4])
{
#pragma unroll
    for (int i = 0; i < N; i++)
        asm volatile("" : "+f"(x[i][0]), "+f"(x[i][1]), "+f"(x[i][2]), "+f"(x[i][3])::"memory");
}

template <int N> static __device__ __forceinline__ void wgmma_own(uint32_t (&x)[N][4])
{
#pragma unroll
    for (int i = 0; i < N; i++)
        asm volatile("" : "+r"(x[i][0]), "+r"(x[i][1]), "+r"(x[i][2]), "+r"(x[i][3])::"memory");
}

// What generic stores and cp.async of this thread wrote to shared memory, for products to read.
static __device__ __forceinline__ void wgmma_publish()
{
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

/*
 * Operand at a shared-memory address. Rows of 16 columns (K-major): `beside` is not used, the
 * columns begin anywhere in the panel. Columns of 16 rows (a transposed second operand): its 64
 * columns' panels are `beside` bytes apart.
 */
static __device__ __forceinline__ uint64_t wgmma_operand(uint32_t at, uint32_t beside)
{
    constexpr uint64_t SWIZZLE_128 = 1ull << 62, EIGHT_ROWS = 1024 >> 4;
    constexpr uint32_t OWN = 0x3ffff; // above: which CTA of its cluster
    return SWIZZLE_128 | EIGHT_ROWS << 32 | (uint64_t)(beside >> 4) << 16 | (at & OWN) >> 4;
}

// clang-format off
#define SUMS4(c, i) "+f"(c[i][0]), "+f"(c[i][1]), "+f"(c[i][2]), "+f"(c[i][3])
#define SUMS32(c, i)                                                                               \
    SUMS4(c, i), SUMS4(c, i + 1), SUMS4(c, i + 2), SUMS4(c, i + 3), SUMS4(c, i + 4),               \
        SUMS4(c, i + 5), SUMS4(c, i + 6), SUMS4(c, i + 7)
#define NAMES32                                                                                    \
    "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "                       \
    "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define NAMES64                                                                                    \
    NAMES32 ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "   \
    "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"

// c = a b^T, or c += it: rows of a and of b are 16 deep in shared memory.
#define WGMMA_ROWS(TYPE, NAME)                                                                     \
    template <>                                                                                    \
    __device__ __forceinline__ void wgmma_rows<TYPE>(float(&c)[16][4], uint64_t a, uint64_t b,     \
                                                     bool add)                                     \
    {                                                                                              \
        asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %66, 0;\n"                                  \
                     "wgmma.mma_async.sync.aligned.m64n128k16.f32." NAME "." NAME " {" NAMES64     \
                     "}, %64, %65, p, 1, 1, 0, 0;\n}\n"                                            \
                     : SUMS32(c, 0), SUMS32(c, 8)                                                  \
                     : "l"(a), "l"(b), "r"((int)add));                                             \
    }                                                                                              \
    template <>                                                                                    \
    __device__ __forceinline__ void wgmma_rows<TYPE>(float(&c)[8][4], uint64_t a, uint64_t b,      \
                                                     bool add)                                     \
    {                                                                                              \
        asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %34, 0;\n"                                  \
                     "wgmma.mma_async.sync.aligned.m64n64k16.f32." NAME "." NAME " {" NAMES32      \
                     "}, %32, %33, p, 1, 1, 0, 0;\n}\n"                                            \
                     : SUMS32(c, 0)                                                                \
                     : "l"(a), "l"(b), "r"((int)add));                                             \
    }
#define WGMMA_OWN_ROWS(TYPE, NAME)                                                                 \
    template <>                                                                                    \
    __device__ __forceinline__ void wgmma_rows<TYPE>(float(&c)[16][4], const uint32_t(&a)[4],      \
                                                     uint64_t b, bool add)                         \
    {                                                                                              \
        asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %69, 0;\n"                                  \
                     "wgmma.mma_async.sync.aligned.m64n128k16.f32." NAME "." NAME " {" NAMES64     \
                     "}, {%64, %65, %66, %67}, %68, p, 1, 1, 0;\n}\n"                              \
                     : SUMS32(c, 0), SUMS32(c, 8)                                                  \
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"((int)add));         \
    }
template <class T>
static __device__ __forceinline__ void wgmma_rows(float (&c)[16][4], uint64_t a, uint64_t b, bool add);
template <class T>
static __device__ __forceinline__ void wgmma_rows(float (&c)[8][4], uint64_t a, uint64_t b, bool add);
WGMMA_ROWS(bf16, "bf16")
WGMMA_ROWS(__half, "f16")
// The same with a of this lane's registers.
template <class T>
static __device__ __forceinline__ void wgmma_rows(float (&c)[16][4], const uint32_t (&a)[4], uint64_t b, bool add);
WGMMA_OWN_ROWS(bf16, "bf16")
WGMMA_OWN_ROWS(__half, "f16")

// c += a b: a of this lane's registers, 16 rows of b in shared memory.
#define WGMMA_COLUMNS(TYPE, NAME)                                                                  \
    template <>                                                                                    \
    __device__ __forceinline__ void wgmma_columns<TYPE>(float(&c)[16][4], const uint32_t(&a)[4],   \
                                                        uint64_t b)                                \
    {                                                                                              \
        asm volatile("wgmma.mma_async.sync.aligned.m64n128k16.f32." NAME "." NAME " {" NAMES64     \
                     "}, {%64, %65, %66, %67}, %68, 1, 1, 1, 1;\n"                                 \
                     : SUMS32(c, 0), SUMS32(c, 8)                                                  \
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));                        \
    }                                                                                              \
    template <>                                                                                    \
    __device__ __forceinline__ void wgmma_columns<TYPE>(float(&c)[8][4], const uint32_t(&a)[4],    \
                                                        uint64_t b)                                \
    {                                                                                              \
        asm volatile("wgmma.mma_async.sync.aligned.m64n64k16.f32." NAME "." NAME " {" NAMES32      \
                     "}, {%32, %33, %34, %35}, %36, 1, 1, 1, 1;\n"                                 \
                     : SUMS32(c, 0)                                                                \
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));                        \
    }
template <class T>
static __device__ __forceinline__ void wgmma_columns(float (&c)[16][4], const uint32_t (&a)[4], uint64_t b);
template <class T>
static __device__ __forceinline__ void wgmma_columns(float (&c)[8][4], const uint32_t (&a)[4], uint64_t b);
WGMMA_COLUMNS(bf16, "bf16")
WGMMA_COLUMNS(__half, "f16")
// clang-format on

#endif
