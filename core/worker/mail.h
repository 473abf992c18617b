// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * mail - the two queues between the I/O thread and the instance threads.
 *
 * inbox   I/O thread (and post, resume) -> one instance thread. The I/O thread collects in a list
 * of its own and delivers once a turn; the thread is woken only if it sleeps. outbox  every thread
 * -> I/O thread: requests that have something to send, and events. The I/O thread is woken only if
 * it said that it is about to sleep. Cost    a wake costs as much as dozens of entries (2.5-5 us),
 * so nobody wakes who is awake, and whoever is awake takes all there is. Bounds  requests are
 * bounded by slots, pieces of input by windows, timers by MAIL_TIMERS.
 */
#include "base/list.h"

#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdint.h>
#include <uv.h>

enum { MAIL_TIMERS = 65536 };

enum mail_kind { MAIL_REQUEST, MAIL_RUN, MAIL_CALL };
struct mail {
    struct list node;
    enum mail_kind kind; // says what contains this: struct request, run or call
};

struct mail_timer { // of host->post
    uint64_t due_ns, seq;
    void (*fn)(void *self, void *arg);
    void *arg;
};

struct inbox {
    pthread_mutex_t lock;
    sem_t wake; // a condition variable would cost one more system call per wake
    struct list mails;
    struct mail_timer *timers; // owned heap, earliest first
    uint32_t n_timers, cap_timers;
    uint64_t seq;
    bool sleeping;
};

void inbox_init(struct inbox *in);
void inbox_put(struct inbox *in, struct list *mails);          // takes all over from the list
int inbox_timer(struct inbox *in, const struct mail_timer *t); // SV_E_OVERLOADED over the bound
// Moves everything to ret; sleeps until something comes or `until_ns` (0: don't, UINT64_MAX: for
// ever). True: a timer is due.
bool inbox_take(struct inbox *in, uint64_t until_ns, struct list *ret);
bool inbox_due(struct inbox *in, uint64_t now, struct mail_timer *ret); // takes a due timer

struct outbox {
    pthread_mutex_t lock;
    struct list requests, events;
    _Atomic bool sleeping; // the I/O thread is in poll, or on its way
    uv_async_t *async;     // borrowed from the I/O thread
};

void outbox_init(struct outbox *out, uv_async_t *async);
// Appends whole lists (either may be NULL or empty), then wakes the I/O thread if it sleeps.
void outbox_put(struct outbox *out, struct list *requests, struct list *events);
bool outbox_take(struct outbox *out, struct list *requests, struct list *events); // false: empty
bool outbox_empty(struct outbox *out);
void outbox_wake(struct outbox *out);
