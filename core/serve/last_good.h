// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * last_good - the last snapshot that control pushed, as it keeps it in the state folder: for an
 * ingress that starts while control is away.
 */
#include "base/buf.h"

struct err;

int last_good_read(const char *state_dir, struct buf *out, struct err *err); // SV_E_NOT_FOUND: none
