// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * sample - the two ways of sampling, which give the same tokens, and the room that one needs.
 *
 * On sm_90 a row is worked on in the shared memory of a cluster. Elsewhere, and for vocabularies
 * that don't fit there, a CTA copies it to session_view.work, SAMPLE_ROWS rows at a time.
 */
#include "cuda/session.h"

enum : uint32_t { SAMPLE_ROWS = 32, SAMPLE_VOCAB = 1 << 22 };

uint64_t sample_work_bytes(const sv_limits *);
bool sample_fits_cluster(uint32_t vocab); // on this device
void sample_run_clusters(const session_view &, uint32_t rows, cudaStream_t);
void sample_run_ctas(const session_view &, uint32_t rows, cudaStream_t);
