// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * child - one process of the server: this executable again, with a role and a name.
 *
 * It gets the descriptors that ARCHITECTURE.md lists, and HELLO and BOOT on its channel. Its end is
 * seen by pidfd, and by EOF on the channel: a process that closed its channel and does not end
 * within CHILD_MUTE_MS is killed. on_end comes once, after the process was reaped and what it had
 * left in its output pipe was read.
 *
 * Owner   the holder, until child_close; the memory is freed some turns later.
 * Thread  the loop's.
 */
#include "base/buf.h"
#include "base/list.h"
#include "wire/link.h"
#include "wire/page.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

enum {
    CHILD_NAME_MAX = 128,
    CHILD_MUTE_MS = 2000,
    CHILD_OUTPUT_MAX = 64 << 10, // bytes
    CHILD_PIPE_MAX = 1 << 20     // bytes that a pipe holds at most (fs.pipe-max-size)
};

struct child;
struct child_ops {
    void (*on_frame)(struct child *, struct wire_frame *); // the fds are closed, but of a guest's
    void (*on_end)(struct child *);                        // status, signal and output are set
    void (*on_gone)(struct child *); // a guest's connection has ended; it may still live
};

struct child {
    struct list node; // the holder's
    void *ctx;        // the holder's
    const struct child_ops *ops;
    uint64_t id, started_ns;
    uint32_t generation;
    enum wire_role role;
    char name[CHILD_NAME_MAX];
    uint32_t place; // of an ingress
    pid_t pid;
    int pidfd, page_fd, output_fd; // owned; output_fd -1 unless a worker
    struct page *page;             // owned mapping
    struct link link;
    uv_poll_t watch;
    uv_timer_t mute;
    unsigned handles; // that are not closed yet
    bool ended, closing, retired;
    bool guest;        // an orphan that is not ours yet: frames come with their descriptors
    bool adopted;      // from an earlier supervisor: not our child, so its status is not to be had
    struct buf peers;  // of an adopted ingress: the child ids that it is connected with already
    int status;        // exit status, when it ended by itself
    uint32_t signal;   // that ended it, 0: none
    struct buf output; // its last bytes on stdout and stderr that nobody had read
};

struct child_start {
    uv_loop_t *loop;
    struct turn *turn;
    const char *exe, *name;
    enum wire_role role;
    uint64_t id;
    uint32_t generation, place;
    const char *state_dir;
    struct bytes orders;
    int fold_fd, kin_fd; // lent
    const struct child_ops *ops;
    void *ctx;
};

// Starts the process and sends BOOT.
int child_create(const struct child_start *start, struct child **ret, struct err *err);
// A process of an earlier supervisor has connected by own_socket. It is a guest until child_adopt.
int child_greet(const struct child_start *start, int own_socket, pid_t pid, int own_pidfd,
                struct child **ret, struct err *err);
// It said who it is: takes the page, and the output pipe or -1, on success.
int child_introduce(struct child *guest, const struct wire_orphan *m, int own_page, int own_output,
                    struct err *err);
void child_adopt(struct child *guest, const struct child_ops *ops, void *ctx); // says ADOPTED
void child_forget(struct child *guest); // closes it without its end

// A child of ours, as the program that was in our place before wrote it down. Takes its
// descriptors.
int child_resume(const struct child_start *start, const struct wire_living *m, struct child **ret,
                 struct err *err);

void child_kill(struct child *c, int sig); // SIGKILL goes to its whole process group
void child_close(struct child *c);         // after on_end
