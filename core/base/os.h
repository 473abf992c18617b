// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * os - what differs between operating systems. os_linux.c is the only implementation; nothing
 * else in core/ may use #ifdef for a system.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct err;

// A memory file of exactly `size` bytes, sealed against resizing, close-on-exec. fd or SV_E_*.
int os_memfd(const char *name, size_t size, struct err *err);
// Maps a whole memfd read-write and shared after checking that its size is `size` and sealed.
int os_memfd_map(int fd, size_t size, void **ret, struct err *err);

// A memory file with that content, sealed against every change, close-on-exec.
int os_sealed(const char *name, const void *p, size_t n, struct err *err);

int os_socketpair(int fds[2], struct err *err); // SOCK_STREAM, non-blocking, close-on-exec
int os_pipe(int fds[2], struct err *err);       // non-blocking reading end, close-on-exec both
// A Unix stream socket `name` in the folder `dir`, whose path may be longer than an address holds.
// Non-blocking, close-on-exec; listen: mode 0600, in the place of what was there.
int os_unix_listen(const char *dir, const char *name, int backlog, struct err *err);
int os_unix_connect(const char *dir, const char *name, struct err *err);
int os_unix_peer(int fd, uid_t *ret_uid, pid_t *ret_pid,
                 struct err *err); // who connected, or listens

// Processes whose descriptor `as` is the same open file as our `fd`, and that lead a process group;
// at most max are written: how many there are in all.
size_t os_find_holders(int fd, int as, pid_t *ret_pids, size_t max);
bool os_is_holder(pid_t pid, int fd, int as);

int os_pidfd_open(pid_t pid, struct err *err); // close-on-exec; readable when the process ended
// The signal to that very process (never to one that has its number now), or to its whole group.
int os_pidfd_kill(int pidfd, pid_t pid, int sig, bool group);
bool os_pidfd_ended(int pidfd);

// One descriptor of a child: `fd` here becomes `as` there. Everything else is closed
// there; of 0, 1 and 2 what is not mapped is /dev/null.
struct os_fdmap {
    int fd, as;
};
// posix_spawn of `path` with argv and envp (NULL: ours); the child leads its own process group,
// has default signal handlers and an empty mask. Returns the pid.
int os_spawn(const char *path, char *const argv[], char *const envp[], const struct os_fdmap *fds,
             size_t n_fds, pid_t *ret_pid, struct err *err);

int os_self_path(char *out, size_t cap, struct err *err); // this executable
// What the linker wrote into this executable to tell builds apart, in hex; "" when there is
// nothing.
enum { OS_BUILD_ID = 65 };
void os_build_id(char out[OS_BUILD_ID]);
uint64_t os_random(void); // from the kernel
uint32_t os_thread_id(void);
void os_thread_name(const char *name); // at most 15 bytes are kept
int os_nofile_raise(void);             // soft limit of open files up to the hard one; the limit
int os_die_with_parent(int sig);       // not for children of the supervisor (orphans serve on)
// Ends this process without the libraries' cleaning up, which takes from other threads what they
// still use, and waits for those of the loop's pool.
_Noreturn void os_leave(int status);
int os_mkdirs(const char *path, unsigned mode, struct err *err); // like mkdir -p
