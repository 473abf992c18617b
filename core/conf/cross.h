// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * cross - what no single key can tell: names and prefixes that collide, bounds that cross, which
 * deployment of an application counts. Fills in what follows from several keys.
 */
#include "conf/app.h"

// Works on what was read, also when some of it was wrong; adds to f->report.
void cross_check(struct conf_file *f);

// A legal name made of any text: at most CONF_NAME_MAX bytes, '-' for what no name may have.
const char *cross_name(struct arena *arena, const char *text);
