// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * crash - the last words of a process that dies by a signal, and the stack of a thread that hangs.
 *
 * Words   signal, address, thread, callback and backtrace go into page->last; then the default
 *         action takes its course, so that whoever waits sees the true signal.
 * Stack   handlers run on an alternate stack, one for each thread that called crash_thread_init
 *         (a stack that overflowed cannot be used).
 * Core    files are switched off: a worker with a model in it would write it all to the disk.
 */
#include <pthread.h>
#include <stdbool.h>

struct page;

void crash_init(struct page *page); // once, before other threads
void crash_thread_init(void);

// Text of page->last.why, unless a signal has written there.
__attribute__((format(printf, 2, 3))) void crash_why(struct page *page, const char *fmt, ...);

// Has the thread write its backtrace into page->last; false: it did not within 0.5 s.
bool crash_dump(pthread_t thread);
const char *crash_signal_name(int sig); // "SIGSEGV"; "signal N" is written by the caller: NULL
