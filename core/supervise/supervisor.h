// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * supervisor - the process that owns listeners, pids and descriptors, and decides nothing.
 *
 * Runs what control's specs say (keep.c), starts it again by restart.c, connects everybody with
 * everybody (mesh.c), obeys control's frames (obey.c), stops in order (stop.c). It never blocks and
 * parses nothing: its own settings are plain arguments, written by `salver serve`.
 *
 *   salver supervisor --state DIR --host H --port P --ingress N --grace-ms MS --orders TEXT
 *   salver supervisor --check FD     could it go on from that table? (upgrade.h)
 *   salver supervisor --resume FD    goes on from it
 *
 * Life    control is its own spec and is started first; control's specs bring the rest. With
 *         control dead it goes on with what it has. SIGTERM and SIGINT stop the server in order, a
 *         second one at once; SIGHUP is handed to control.
 * Ready   when control's page says WS_READY it prints one line on stdout.
 * Silent  a control whose heartbeat is older than SUPERVISOR_SILENT_S is killed; it watches the
 *         others.
 * Alone   should it die, its children serve on for orphan_timeout_s and look for the next one on
 * the same state folder, which takes them over (adopt.h) before it starts control.
 */
#include "base/list.h"
#include "base/turn.h"
#include "supervise/listener.h"

#include <stdbool.h>
#include <stdint.h>

enum { SUPERVISOR_EXE_MAX = 4096, SUPERVISOR_SILENT_S = 30 };

enum supervisor_phase {
    SP_ADOPT,
    SP_RUN,
    SP_STOP_INGRESS,
    SP_STOP_WORKERS,
    SP_STOP_CONTROL,
    SP_DONE
};

struct adopt;
struct child;
struct upgrade;
struct supervisor {
    uv_loop_t loop;
    struct turn turn;
    char exe[SUPERVISOR_EXE_MAX];
    const char *state_dir, *host, *orders; // borrowed from argv
    uint16_t want_port;                    // 0: any
    uint32_t want_ingress, grace_ms;
    struct listeners listeners;
    int fold_fd, lock_fd, kin_fd;
    bool orphans;            // of an earlier supervisor were there when we started
    struct adopt *adopt;     // while phase is SP_ADOPT, and orphans are awaited
    bool stop_wanted;        // came meanwhile
    struct upgrade *upgrade; // another executable is being asked, or NULL
    bool ready_said;
    struct list specs, children, graves, jobs;
    uint64_t next_child_id;
    struct child *control; // the running one, or NULL
    bool control_listed;   // it asked for the list: from then on it is told of each end
    enum supervisor_phase phase;
    uint64_t stop_ns; // when the stop began
    uv_signal_t sigterm, sigint, sighup;
    uv_timer_t stop_timer, ready_timer, mesh_timer, silent_timer, control_timer;
};

int supervisor_main(int argc, char **argv); // exit status
