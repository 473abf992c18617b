// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * upgrade - the supervisor becomes another executable, in place: same pid, same descriptors, same
 * children.
 *
 * First the other one is asked, as `PATH supervisor --check FD`, whether it can go on from our
 * table (table.h): it must say its version and end with 0 within UPGRADE_CHECK_MS. Then the table
 * is written into a sealed memfd and PATH executed with `--resume FD` (resume.h). Whatever fails
 * before that is told to control with UPGRADED, and all goes on as it was; the success is told by
 * the new one, which then starts control anew. The rest is control's.
 *
 * Thread  the loop's, which never waits: the answer comes by pidfd.
 */
#include "supervise/supervisor.h"

enum {
    UPGRADE_CHECK_MS = 5000,
    UPGRADE_ANSWER_MAX = 512, // bytes of the other's output that are looked at
    UPGRADE_PATH_MAX = 4096
};

// path "": the executable where ours came from. Refuses with err; else control hears of it later.
int upgrade_begin(struct supervisor *s, const char *path, struct err *err);
void upgrade_answer(struct supervisor *s, int code, const char *text); // UPGRADED to control
void upgrade_close(struct supervisor *s); // at the end: nothing comes of it
