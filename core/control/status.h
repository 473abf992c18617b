// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * status - everything control knows, as JSON: what `salver status` prints. Names as in Ray Serve's
 * ServeInstanceDetails where it has them.
 */
#include "control/control.h"

char *status_text(struct control *c); // the caller's, xfree
