// SPDX-License-Identifier: Apache-2.0
#include "worker/mail.h"

#include "abi/plugin.h"
#include "base/clock.h"
#include "base/mem.h"

#include <time.h>

void inbox_init(struct inbox *in)
{
    *in = (struct inbox){0};
    sem_init(&in->wake, 0, 0);
    pthread_mutex_init(&in->lock, NULL);
    list_init(&in->mails);
}

// Moves all of `from` behind what is on `to`.
static void move_all(struct list *to, struct list *from)
{
    if (!from || list_empty(from))
        return;
    from->next->prev = to->prev;
    to->prev->next = from->next;
    from->prev->next = to;
    to->prev = from->prev;
    list_init(from);
}

// Unlocks; whoever sleeps is woken after that, so that it finds the lock free.
static void unlock_and_wake(struct inbox *in)
{
    bool wake = in->sleeping;
    in->sleeping = false;
    pthread_mutex_unlock(&in->lock);
    if (wake)
        sem_post(&in->wake);
}

void inbox_put(struct inbox *in, struct list *mails)
{
    if (list_empty(mails))
        return;
    pthread_mutex_lock(&in->lock);
    move_all(&in->mails, mails);
    unlock_and_wake(in);
}

static bool earlier(const struct mail_timer *a, const struct mail_timer *b)
{
    return a->due_ns != b->due_ns ? a->due_ns < b->due_ns : a->seq < b->seq;
}

static void swap(struct mail_timer *a, struct mail_timer *b)
{
    struct mail_timer t = *a;
    *a = *b;
    *b = t;
}

int inbox_timer(struct inbox *in, const struct mail_timer *t)
{
    pthread_mutex_lock(&in->lock);
    if (in->n_timers == MAIL_TIMERS) {
        pthread_mutex_unlock(&in->lock);
        return SV_E_OVERLOADED;
    }
    if (in->n_timers == in->cap_timers) {
        in->cap_timers = in->cap_timers ? in->cap_timers * 2 : 16;
        in->timers = xrealloc(in->timers, in->cap_timers * sizeof *in->timers);
    }
    uint32_t at = in->n_timers++;
    in->timers[at] = *t;
    in->timers[at].seq = in->seq++;
    for (; at > 0 && earlier(&in->timers[at], &in->timers[(at - 1) / 2]); at = (at - 1) / 2)
        swap(&in->timers[at], &in->timers[(at - 1) / 2]);
    unlock_and_wake(in);
    return SV_OK;
}

bool inbox_due(struct inbox *in, uint64_t now, struct mail_timer *ret)
{
    pthread_mutex_lock(&in->lock);
    bool due = in->n_timers && in->timers[0].due_ns <= now;
    if (due) {
        *ret = in->timers[0];
        in->timers[0] = in->timers[--in->n_timers];
        for (uint32_t at = 0, child; (child = 2 * at + 1) < in->n_timers; at = child) {
            if (child + 1 < in->n_timers && earlier(&in->timers[child + 1], &in->timers[child]))
                child++;
            if (!earlier(&in->timers[child], &in->timers[at]))
                break;
            swap(&in->timers[child], &in->timers[at]);
        }
    }
    pthread_mutex_unlock(&in->lock);
    return due;
}

// The lock is held before and after. A wake that came too late for its sleep ends the next one, so
// the caller looks again.
static void sleep_until(struct inbox *in, uint64_t until_ns)
{
    struct timespec t = {.tv_sec = (time_t)(until_ns / NS_PER_S),
                         .tv_nsec = (long)(until_ns % NS_PER_S)};
    in->sleeping = true;
    pthread_mutex_unlock(&in->lock);
    if (until_ns == UINT64_MAX)
        sem_wait(&in->wake);
    else
        sem_clockwait(&in->wake, CLOCK_MONOTONIC, &t);
    pthread_mutex_lock(&in->lock);
    in->sleeping = false;
}

bool inbox_take(struct inbox *in, uint64_t until_ns, struct list *ret)
{
    bool due = false;
    pthread_mutex_lock(&in->lock);
    while (list_empty(&in->mails)) {
        uint64_t next = in->n_timers ? in->timers[0].due_ns : UINT64_MAX;
        uint64_t until = next < until_ns ? next : until_ns;
        if (until == 0 || (until != UINT64_MAX && clock_now_ns() >= until))
            break;
        sleep_until(in, until);
    }
    due = in->n_timers && in->timers[0].due_ns <= clock_now_ns();
    move_all(ret, &in->mails);
    pthread_mutex_unlock(&in->lock);
    return due;
}

void outbox_init(struct outbox *out, uv_async_t *async)
{
    *out = (struct outbox){.async = async};
    pthread_mutex_init(&out->lock, NULL);
    list_init(&out->requests);
    list_init(&out->events);
}

void outbox_put(struct outbox *out, struct list *requests, struct list *events)
{
    pthread_mutex_lock(&out->lock);
    move_all(&out->requests, requests);
    move_all(&out->events, events);
    pthread_mutex_unlock(&out->lock);
    outbox_wake(out);
}

void outbox_wake(struct outbox *out)
{
    if (atomic_load(&out->sleeping))
        uv_async_send(out->async);
}

bool outbox_take(struct outbox *out, struct list *requests, struct list *events)
{
    pthread_mutex_lock(&out->lock);
    bool some = !list_empty(&out->requests) || !list_empty(&out->events);
    move_all(requests, &out->requests);
    move_all(events, &out->events);
    pthread_mutex_unlock(&out->lock);
    return some;
}

bool outbox_empty(struct outbox *out)
{
    pthread_mutex_lock(&out->lock);
    bool empty = list_empty(&out->requests) && list_empty(&out->events);
    pthread_mutex_unlock(&out->lock);
    return empty;
}
