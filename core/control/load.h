// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * load - what the ingresses say waits and runs for each application, summed over them.
 *
 * An ingress that is gone counts for nothing: its requests have ended with it.
 */
#include "control/control.h"

struct wire_load;

void load_take(struct member *m, const struct wire_load *l); // of an ingress
void load_forget(struct member *m);                          // it is gone
