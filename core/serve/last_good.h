// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * last_good - the last snapshot that an ingress understood, as a file in the state folder, for one
 * that starts while control is away.
 *
 * Written as a whole or not at all (a new file, renamed over the old one). Several ingresses write the
 * same text; whoever is last wins. Blocks for as long as the disk takes; that is once a deployment.
 */
#include "base/buf.h"

struct err;

int last_good_write(const char *state_dir, struct bytes json, struct err *err);
int last_good_read(const char *state_dir, struct buf *out, struct err *err); // SV_E_NOT_FOUND: none
