// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * sample - what a session makes room for on behalf of the sampler.
 *
 * On sm_90 a row is worked on in the shared memory of a cluster. Elsewhere, and for vocabularies
 * that don't fit there, a CTA copies it to session_view.work, SAMPLE_ROWS rows at a time.
 */
#include "cuda/device.h"

enum { SAMPLE_ROWS = 32, SAMPLE_VOCAB = 1 << 22 };

uint64_t sample_work_bytes(const sv_limits *);
