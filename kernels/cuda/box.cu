// SPDX-License-Identifier: Apache-2.0
#include "cuda/box.h"

#include <cuda_runtime.h>

typedef decltype(&cuTensorMapEncodeTiled) encoder;

// The driver's, without linking it.
static encoder find_encoder()
{
    void *f = NULL;
    cudaDriverEntryPointQueryResult found;
    const cudaError_t e = cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &f, 12000,
                                                           cudaEnableDefault, &found);
    return e == cudaSuccess && found == cudaDriverEntryPointSuccess ? (encoder)f : NULL;
}

bool box_describe(const box_tensor &t, CUtensorMap *ret)
{
    static const encoder encode = find_encoder();
    const cuuint64_t size[3] = {t.size[0], t.size[1], t.size[2]},
                     stride[2] = {t.stride[0], t.stride[1]};
    const cuuint32_t box[3] = {BOX_COLUMNS, t.box[0], t.box[1]}, step[3] = {1, 1, 1};
    return encode && size[1] <= INT32_MAX && size[2] <= INT32_MAX &&
           encode(ret, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 3, (void *)t.data, size, stride, box, step,
                  CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                  CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                  CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) == CUDA_SUCCESS;
}
