// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * worker - the process behind one replica: `salver worker <spec name>`.
 *
 * Descriptors as in wire/channel.h. Exit status: 0 after a drain, else one of these; why is in the
 * page's last words and in the log.
 */
enum {
    WORKER_EXIT_FAILED = 1,   // create, load or warm failed
    WORKER_EXIT_PROTOCOL = 3, // the supervisor and this program don't understand each other
    WORKER_EXIT_FATAL = 4,    // SV_E_FATAL, or health() < 0
    WORKER_EXIT_STALLED = 5,  // no sign of life
};

int worker_main(const char *name);
