// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * ingress - the process that clients talk to.
 *
 * Descriptors 3, 4, 5 and 7 as in ARCHITECTURE.md. It starts with BOOT, accepts once it has a
 * listener and a snapshot (control's, or the last good one when control has not come within
 * INGRESS_ALONE_MS), says READY to control then, and ends with 0 when its drain is over.
 *
 * Drain    DRAIN (it is being replaced): no new connections; the ones it has go on, each answer
 * says `Connection: close`, and what is left at the deadline is ended with an error. STOP (the
 * server ends): the same, but new requests are refused and idle connections closed at once. After
 * the supervisor's end it serves on for orphan_timeout_s, then stops, unless a new one comes.
 */
enum {
    INGRESS_ALONE_MS = 200, // from BOOT to the last good snapshot
    INGRESS_TICK_MS = 1000, // heartbeat
    INGRESS_SWEEP_MS = 50,  // a stop closes what has become idle
    INGRESS_LAST_MS = 500,  // for the last bytes after a drain's deadline
};

int ingress_main(const char *name); // of its spec; the exit code
