// SPDX-License-Identifier: Apache-2.0
#include "worker/crash.h"

#include "base/check.h"
#include "base/mem.h"
#include "base/os.h"
#include "wire/page.h"

#include <dlfcn.h>
#include <errno.h>
#include <execinfo.h>
#include <semaphore.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

enum { STACK_BYTES = 64 << 10, FRAMES_MAX = 48, PATIENCE_S = 2 };

static struct page *last_page; // written once, before other threads
static _Atomic int dying;      // tid of the thread that fell first
static sem_t dumped;

static const struct {
    int sig;
    const char *name;
} fatal[] = {
    {SIGSEGV, "SIGSEGV"}, {SIGBUS, "SIGBUS"},   {SIGILL, "SIGILL"},   {SIGFPE, "SIGFPE"},
    {SIGABRT, "SIGABRT"}, {SIGTRAP, "SIGTRAP"}, {SIGSYS, "SIGSYS"},   {SIGKILL, "SIGKILL"},
    {SIGTERM, "SIGTERM"}, {SIGXCPU, "SIGXCPU"}, {SIGPIPE, "SIGPIPE"},
};

const char *crash_signal_name(int sig)
{
    for (size_t i = 0; i < ARRAY_LEN(fatal); i++)
        if (fatal[i].sig == sig)
            return fatal[i].name;
    return NULL;
}

/* ---- text without stdio: what runs here runs in a signal handler ---- */

struct text {
    char *to;
    size_t n, cap;
};

static void put(struct text *t, const char *s)
{
    while (*s && t->n + 1 < t->cap)
        t->to[t->n++] = *s++;
    t->to[t->n] = '\0';
}

static void put_hex(struct text *t, uintptr_t v)
{
    char digits[2 * sizeof v + 1];
    size_t at = sizeof digits - 1;
    digits[at] = '\0';
    do
        digits[--at] = "0123456789abcdef"[v & 15];
    while (v >>= 4);
    put(t, "0x");
    put(t, digits + at);
}

static void put_frame(struct text *t, void *address)
{
    Dl_info info = {0};
    put_hex(t, (uintptr_t)address);
    if (dladdr(address, &info) && info.dli_fname) {
        const char *file = strrchr(info.dli_fname, '/');
        put(t, " ");
        put(t, file ? file + 1 : info.dli_fname);
        if (info.dli_sname) {
            put(t, " ");
            put(t, info.dli_sname);
            put(t, "+");
            put_hex(t, (uintptr_t)address - (uintptr_t)info.dli_saddr);
        } else {
            put(t, " +");
            put_hex(t, (uintptr_t)address - (uintptr_t)info.dli_fbase);
        }
    }
    put(t, "\n");
}

static void put_backtrace(struct page *p)
{
    void *frames[FRAMES_MAX];
    struct text t = {.to = p->last.backtrace, .cap = sizeof p->last.backtrace};
    int n = backtrace(frames, FRAMES_MAX);
    for (int i = 2; i < n; i++) // not this function nor the handler
        put_frame(&t, frames[i]);
}

static uint32_t doing_of(const struct page *p, uint32_t tid)
{
    for (uint32_t i = 0; i < PAGE_THREADS; i++)
        if (atomic_load(&p->threads[i].tid) == tid)
            return atomic_load(&p->threads[i].doing);
    return PD_IDLE;
}

static void on_fatal(int sig, siginfo_t *info, void *context)
{
    (void)context;
    int tid = (int)os_thread_id(), none = 0;
    struct page *p = last_page;
    signal(sig, SIG_DFL);
    if (!atomic_compare_exchange_strong(&dying, &none, tid)) {
        while (none != tid) // another thread is at its last words: let it finish
            pause();
        raise(sig); // we fell while writing ours
        return;
    }
    signal(SIGALRM, SIG_DFL);
    alarm(PATIENCE_S); // the words below take locks of the loader: they may hang
    p->last.code = info->si_code;
    p->last.address = (uint64_t)(uintptr_t)info->si_addr;
    p->last.tid = (uint32_t)tid;
    p->last.doing = doing_of(p, (uint32_t)tid);
    struct text why = {.to = p->last.why, .cap = sizeof p->last.why};
    const char *name = crash_signal_name(sig);
    put(&why, name ? name : "a fatal signal");
    if (p->last.doing != PD_IDLE) {
        put(&why, " in ");
        put(&why, page_doing_names[p->last.doing]);
        put(&why, "()");
    }
    atomic_store(&p->last.signal, (uint32_t)sig);
    put_backtrace(p);
    raise(sig); // pending until this handler returns, then the default action
}

static void on_dump(int sig)
{
    (void)sig;
    int saved = errno;
    put_backtrace(last_page);
    sem_post(&dumped);
    errno = saved;
}

static int dump_signal(void)
{
    return SIGRTMIN + 5;
}

void crash_init(struct page *page)
{
    static const int caught[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGTRAP, SIGSYS};
    void *warm[2];
    last_page = page;
    backtrace(warm, 2); // loads what it needs now, not in the handler
    sem_init(&dumped, 0, 0);
    setrlimit(RLIMIT_CORE, &(struct rlimit){0});
    crash_thread_init();
    struct sigaction on = {.sa_sigaction = on_fatal, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    sigfillset(&on.sa_mask);
    sigdelset(&on.sa_mask, SIGALRM);
    for (size_t i = 0; i < ARRAY_LEN(caught); i++)
        sigaction(caught[i], &on, NULL);
    struct sigaction dump = {.sa_handler = on_dump, .sa_flags = SA_ONSTACK | SA_RESTART};
    sigaction(dump_signal(), &dump, NULL);
    signal(SIGPIPE, SIG_IGN);
}

void crash_thread_init(void)
{
    void *mem = mmap(NULL, STACK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mem != MAP_FAILED)
        sigaltstack(&(stack_t){.ss_sp = mem, .ss_size = STACK_BYTES}, NULL);
}

void crash_why(struct page *page, const char *fmt, ...)
{
    va_list ap;
    if (atomic_load(&page->last.signal))
        return;
    va_start(ap, fmt);
    vsnprintf(page->last.why, sizeof page->last.why, fmt, ap);
    va_end(ap);
}

bool crash_dump(pthread_t thread)
{
    struct timespec until;
    if (pthread_kill(thread, dump_signal()) != 0)
        return false;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += 500000000;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    while (sem_timedwait(&dumped, &until) < 0)
        if (errno != EINTR)
            return false;
    return true;
}
