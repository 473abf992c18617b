// SPDX-License-Identifier: Apache-2.0
#include "wire/link.h"

#include "abi/plugin.h"
#include "base/check.h"
#include "base/err.h"
#include "base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

enum {
    LINK_READ = 256 << 10,    // bytes asked for in one recvmsg
    LINK_SNDBUF = 512 << 10,  // bytes; what the kernel cuts this to is fine
    LINK_PIECE_MAX = 1 << 20, // bytes of one piece of what is unsent
    LINK_KEEP_MAX = 1 << 20,  // bytes of an empty buffer that are kept for the next burst
    LINK_SPARES_FROM = 16,    // lower numbers have a meaning in a child
    LINK_IN_FDS = ARRAY_LEN(((struct link *)0)->in_fds),
};

struct link_fds {
    uint64_t at; // position in the stream of the frame they travel with
    int fds[WIRE_FDS_MAX], n;
};

static void on_poll(uv_poll_t *h, int status, int events);
static void on_turn_item(struct turn_item *it);

static void close_all(int *fds, int n)
{
    for (int i = 0; i < n; i++)
        close(fds[i]);
}

static const char *peer(const struct link *l)
{
    return l->greeted ? l->peer_name : "the peer";
}

static void drop_fds(struct link *l)
{
    close_all(l->in_fds, l->n_in_fds);
    l->n_in_fds = 0;
    close_all(l->spares, l->n_spares);
    l->n_spares = 0;
    for (size_t i = 0; i < l->n_out_fds; i++)
        close_all(l->out_fds[i].fds, l->out_fds[i].n);
    l->n_out_fds = 0;
}

static void watch(struct link *l, int events)
{
    if (l->events == events)
        return;
    l->events = events;
    if (l->starved)
        return;
    CHECK(uv_poll_start(&l->poll, events, on_poll) == 0);
}

static int open_link(struct link *l, uv_loop_t *loop, struct turn *turn, int own_fd,
                     const struct link_ops *ops, void *ctx, struct err *err)
{
    *l = (struct link){.fd = own_fd, .turn = turn, .ops = ops, .ctx = ctx};
    l->item.run = on_turn_item;
    fcntl(own_fd, F_SETFD, FD_CLOEXEC);
    setsockopt(own_fd, SOL_SOCKET, SO_SNDBUF, &(int){LINK_SNDBUF}, sizeof(int));
    int rc = uv_poll_init(loop, &l->poll, own_fd); // makes it non-blocking
    if (rc < 0)
        return err_set(err, SV_E_INTERNAL, "watching the link %d: %s", own_fd, uv_strerror(rc));
    watch(l, UV_READABLE | UV_DISCONNECT);
    return 0;
}

int link_open(struct link *l, uv_loop_t *loop, struct turn *turn, int own_fd, enum wire_role role,
              const char *name, const struct link_ops *ops, void *ctx, struct err *err)
{
    int rc = open_link(l, loop, turn, own_fd, ops, ctx, err);
    if (rc < 0)
        return rc;
    wire_put_hello(
        &l->out, 0, 0,
        &(struct wire_hello){
            .version = WIRE_VERSION, .role = role, .pid = (uint64_t)getpid(), .name = name});
    link_kick(l);
    return 0;
}

int link_resume(struct link *l, uv_loop_t *loop, struct turn *turn, int own_fd, bool greeted,
                const char *peer_name, const struct link_ops *ops, void *ctx, struct err *err)
{
    int rc = open_link(l, loop, turn, own_fd, ops, ctx, err);
    if (rc < 0)
        return rc;
    l->greeted = greeted;
    snprintf(l->peer_name, sizeof l->peer_name, "%s", peer_name);
    return 0;
}

bool link_unsent(struct link *l, struct link_piece *p)
{
    size_t n = buf_len(&l->out), end = n;
    if (p->at >= n || l->ended || l->closing || l->deaf)
        return false;
    p->fds = NULL;
    p->n_fds = 0;
    if (p->at_fds < l->n_out_fds && l->out_fds[p->at_fds].at - l->out_sent == p->at) {
        p->fds = l->out_fds[p->at_fds].fds;
        p->n_fds = l->out_fds[p->at_fds++].n;
    }
    if (p->at_fds < l->n_out_fds)
        end = (size_t)(l->out_fds[p->at_fds].at - l->out_sent);
    if (end - p->at > LINK_PIECE_MAX)
        end = p->at + LINK_PIECE_MAX;
    p->bytes = (struct bytes){buf_head(&l->out) + p->at, end - p->at};
    p->at = end;
    return true;
}

// The one place where a link ends; after on_closed nothing of l may be used but `closing`.
static void end(struct link *l, const struct err *err)
{
    if (l->ended || l->closing)
        return;
    l->ended = true;
    uv_poll_stop(&l->poll);
    shutdown(l->fd, SHUT_RDWR); // the descriptor itself stays: libuv knows its number
    turn_drop(&l->item);
    drop_fds(l);
    buf_clear(&l->out);
    l->ops->on_closed(l, err);
}

static void on_handle_closed(uv_handle_t *h)
{
    struct link *l = CONTAINER_OF(h, struct link, poll);
    buf_finish(&l->in);
    buf_finish(&l->out);
    xfree(l->out_fds);
    l->out_fds = NULL;
    if (l->on_free)
        l->on_free(l);
}

void link_close(struct link *l, void (*on_free)(struct link *))
{
    CHECK(!l->closing);
    link_flush(l);
    l->closing = true;
    l->on_free = on_free;
    turn_drop(&l->item);
    drop_fds(l);
    uv_close((uv_handle_t *)&l->poll, on_handle_closed);
    close(l->fd); // allowed once uv_close was called
    l->fd = -1;
}

/* ---- writing ---- */

void link_kick(struct link *l)
{
    if (l->ended || l->closing || l->deaf) {
        buf_clear(&l->out);
        return;
    }
    bool waits = l->events & UV_WRITABLE;
    if (!waits || buf_len(&l->out) > LINK_OUT_MAX)
        turn_add(l->turn, &l->item);
}

void link_put_fds(struct link *l, const int *own_fds, int n)
{
    CHECK(n >= 0 && n <= WIRE_FDS_MAX);
    if (l->ended || l->closing || l->deaf) {
        for (int i = 0; i < n; i++)
            close(own_fds[i]);
        return;
    }
    if (l->n_out_fds == l->cap_out_fds) {
        l->cap_out_fds = l->cap_out_fds ? l->cap_out_fds * 2 : 4;
        l->out_fds = xrealloc(l->out_fds, l->cap_out_fds * sizeof *l->out_fds);
    }
    struct link_fds *f = &l->out_fds[l->n_out_fds++];
    *f = (struct link_fds){.at = l->out_sent + buf_len(&l->out), .n = n};
    for (int i = 0; i < n; i++)
        f->fds[i] = own_fds[i];
}

// How much may leave in one sendmsg, and the descriptors that go with its first byte.
static size_t next_piece(struct link *l, struct link_fds **ret_fds)
{
    size_t n = buf_len(&l->out), i = 0;
    *ret_fds = NULL;
    if (l->n_out_fds && l->out_fds[0].at == l->out_sent) {
        struct link_fds *f = &l->out_fds[i++];
        CHECK(n >= WIRE_HEAD); // a frame was put after link_put_fds
        buf_head(&l->out)[offsetof(struct wire_frame_head, n_fds)] = (char)f->n;
        *ret_fds = f;
    }
    if (i < l->n_out_fds && l->out_fds[i].at - l->out_sent < n)
        n = (size_t)(l->out_fds[i].at - l->out_sent);
    return n;
}

static ssize_t send_piece(struct link *l, size_t n, const struct link_fds *fds)
{
    union {
        struct cmsghdr align;
        char space[CMSG_SPACE(sizeof(int) * WIRE_FDS_MAX)];
    } control;
    struct iovec iov = {.iov_base = buf_head(&l->out), .iov_len = n};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
    if (fds && fds->n) {
        size_t bytes = sizeof(int) * (size_t)fds->n;
        memset(&control, 0, sizeof control);
        msg.msg_control = &control;
        msg.msg_controllen = CMSG_SPACE(bytes);
        struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(bytes);
        memcpy(CMSG_DATA(c), fds->fds, bytes);
    }
    ssize_t sent;
    do
        sent = sendmsg(l->fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
    while (sent < 0 && errno == EINTR);
    return sent;
}

static void sent_fds(struct link *l)
{
    close_all(l->out_fds[0].fds, l->out_fds[0].n);
    l->n_out_fds--;
    memmove(l->out_fds, l->out_fds + 1, l->n_out_fds * sizeof *l->out_fds);
}

// The peer is gone or refuses for good: its end comes by reading, after what it said before.
static void go_deaf(struct link *l)
{
    l->deaf = true;
    buf_clear(&l->out);
    watch(l, UV_READABLE | UV_DISCONNECT);
    if (errno != EPIPE && errno != ECONNRESET)
        shutdown(l->fd, SHUT_RDWR);
}

// Sends until the socket refuses bytes. True: everything left.
static bool send_all(struct link *l)
{
    while (buf_len(&l->out)) {
        struct link_fds *fds;
        size_t n = next_piece(l, &fds);
        ssize_t sent = send_piece(l, n, fds);
        if (sent < 0 && errno != EAGAIN)
            go_deaf(l);
        if (sent <= 0)
            return l->deaf;
        if (fds)
            sent_fds(l);
        l->out_sent += (uint64_t)sent;
        buf_consume(&l->out, (size_t)sent);
        if ((size_t)sent < n)
            return false;
    }
    return true;
}

// What the socket took of out and then of the payload: out is shortened; how much of the payload.
static size_t sent_behind_out(struct link *l, size_t sent)
{
    size_t waited = buf_len(&l->out), of_out = sent < waited ? sent : waited;
    buf_consume(&l->out, of_out);
    l->out_sent += (uint64_t)sent;
    return sent - of_out;
}

static size_t send_direct(struct link *l, const void *p, size_t n)
{
    struct iovec iov[2] = {{.iov_base = buf_head(&l->out), .iov_len = buf_len(&l->out)},
                           {.iov_base = (void *)(uintptr_t)p, .iov_len = n}};
    struct msghdr msg = {.msg_iov = iov, .msg_iovlen = ARRAY_LEN(iov)};
    ssize_t sent;
    do
        sent = sendmsg(l->fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
    while (sent < 0 && errno == EINTR);
    if (sent < 0 && errno != EAGAIN)
        go_deaf(l);
    return sent_behind_out(l, sent > 0 ? (size_t)sent : 0);
}

void link_put_raw(struct link *l, enum wire_kind kind, uint64_t id, uint32_t flags, const void *p,
                  size_t n)
{
    bool open = !l->ended && !l->closing && !l->deaf;
    if (n < LINK_DIRECT_MIN || !open || link_blocked(l) || l->n_out_fds) {
        wire_put_raw(&l->out, kind, id, flags, p, n);
        link_kick(l);
        return;
    }
    wire_put_raw_head(&l->out, kind, id, flags, n);
    size_t done = send_direct(l, p, n);
    if (l->deaf)
        return;
    buf_put(&l->out, (const char *)p + done, n - done);
    if (done < n)
        watch(l, UV_READABLE | UV_DISCONNECT | UV_WRITABLE);
}

void link_flush(struct link *l)
{
    if (l->ended || l->closing || l->deaf)
        return;
    turn_drop(&l->item);
    bool all = send_all(l);
    watch(l, UV_READABLE | UV_DISCONNECT | (all ? 0 : UV_WRITABLE));
    if (all && l->out.cap > LINK_KEEP_MAX)
        buf_finish(&l->out);
    if (buf_len(&l->out) > LINK_OUT_MAX) {
        l->overfull = true; // told from the loop, not from within the holder's call
        turn_add(l->turn, &l->item);
    }
}

static void on_turn_item(struct turn_item *it)
{
    struct link *l = CONTAINER_OF(it, struct link, item);
    if (!l->overfull) {
        link_flush(l);
        return;
    }
    struct err err;
    err_set(&err, SV_E_UNAVAILABLE, "%s does not read: %zu bytes wait for it (at most %d)", peer(l),
            buf_len(&l->out), LINK_OUT_MAX);
    end(l, &err);
}

/* ---- reading ---- */

static int check_hello(struct link *l, const struct wire_frame *f, struct err *err)
{
    struct wire_hello hello;
    int rc = wire_get_hello(f, &hello, err);
    if (rc < 0)
        return err_ctx(err, "greeting of the peer");
    if (hello.version + 1 < WIRE_VERSION || hello.version > WIRE_VERSION + 1 || !hello.version)
        return err_set(err, SV_E_UNSUPPORTED, "the peer speaks version %u, this program %d",
                       hello.version, WIRE_VERSION);
    l->greeted = true;
    l->peer_role = hello.role;
    l->peer_pid = hello.pid;
    snprintf(l->peer_name, sizeof l->peer_name, "%s", hello.name);
    return 0;
}

// Moves the frame's descriptors from the queue into it.
static int claim_fds(struct link *l, struct wire_frame *f, struct err *err)
{
    int n = f->head.n_fds;
    if (n == 0)
        return 0;
    if (n > l->n_in_fds)
        return err_set(err, SV_E_INVALID, "%s frame with %d descriptors, of which %d came",
                       wire_kind_name(f->head.kind), n, l->n_in_fds);
    bool known = wire_kind_known(f->head.kind);
    if (known && (unsigned)n > wire_kind_fds(f->head.kind))
        return err_set(err, SV_E_INVALID, "%s frame with %d descriptors (at most %u)",
                       wire_kind_name(f->head.kind), n, wire_kind_fds(f->head.kind));
    if (known)
        memcpy(f->fds, l->in_fds, (size_t)n * sizeof(int));
    else
        close_all(l->in_fds, n);
    l->n_in_fds -= n;
    memmove(l->in_fds, l->in_fds + n, (size_t)l->n_in_fds * sizeof(int));
    return 0;
}

static int hand_frame(struct link *l, struct wire_frame *f, struct err *err)
{
    int rc = claim_fds(l, f, err);
    if (rc < 0)
        return rc;
    if (!l->greeted)
        return check_hello(l, f, err);
    if (f->head.kind == WIRE_hello)
        return err_set(err, SV_E_INVALID, "%s greets twice", l->peer_name);
    if (wire_kind_known(f->head.kind))
        l->ops->on_frame(l, f);
    return 0;
}

// Descriptors that no frame here or half here claims: nobody would ever close them.
static void drop_unclaimed(struct link *l)
{
    size_t left = buf_len(&l->in);
    int keep = left ? WIRE_FDS_MAX : 0;
    if (left > offsetof(struct wire_frame_head, n_fds))
        keep = (unsigned char)buf_head(&l->in)[offsetof(struct wire_frame_head, n_fds)];
    while (l->n_in_fds > keep)
        close(l->in_fds[--l->n_in_fds]);
}

// One read burst: what came of it.
struct burst {
    bool more;   // there may be bytes left
    bool any;    // a frame was handed out
    bool over;   // the link ends here
    bool faulty; // by `err`, not by EOF
    struct err err;
};

static void burst_fault(struct burst *b)
{
    b->over = b->faulty = true;
}

// Every whole frame of the buffer. The payload stays where it was received: nothing writes to
// the buffer before the next recvmsg.
static void hand_out(struct link *l, struct burst *b)
{
    while (!l->closing) {
        struct wire_frame f;
        int64_t n = wire_next(buf_head(&l->in), buf_len(&l->in), &f, &b->err);
        if (n == 0)
            break;
        if (n > 0)
            buf_consume(&l->in, (size_t)n);
        if (n < 0 || hand_frame(l, &f, &b->err) < 0) {
            burst_fault(b);
            return;
        }
        b->any = true;
    }
    if (!l->closing && l->n_in_fds)
        drop_unclaimed(l);
}

static int queue_fds(struct link *l, struct msghdr *msg, struct err *err)
{
    bool lost = msg->msg_flags & MSG_CTRUNC;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        size_t n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < n; i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(c) + i * sizeof fd, sizeof fd);
            if (l->n_in_fds < (int)LINK_IN_FDS) {
                l->in_fds[l->n_in_fds++] = fd;
                continue;
            }
            close(fd);
            lost = true;
        }
    }
    if (lost)
        return err_set(err, SV_E_INVALID,
                       "descriptors of %s were lost (at most %d wait; is the limit of open files "
                       "reached?)",
                       peer(l), (int)LINK_IN_FDS);
    return 0;
}

// After a recvmsg that gave no bytes. A peer that dies with unread bytes gives ECONNRESET.
static void nothing_came(struct link *l, ssize_t n, struct burst *b)
{
    if (n < 0 && errno == EAGAIN)
        return;
    b->over = true;
    if (n == 0 || errno == ECONNRESET || errno == EPIPE)
        return;
    err_set(&b->err, SV_E_INTERNAL, "reading from %s: %s", peer(l), err_errno(errno));
    burst_fault(b);
}

static bool have_spares(struct link *l)
{
    while (l->n_spares < WIRE_FDS_MAX) {
        int fd = fcntl(l->fd, F_DUPFD_CLOEXEC, LINK_SPARES_FROM);
        if (fd < 0)
            return false;
        l->spares[l->n_spares++] = fd;
    }
    return true;
}

// Whether the descriptors of the next recvmsg will fit: the spares make room for them.
static bool make_room(struct link *l)
{
    if (!l->ops->on_starved)
        return true;
    close_all(l->spares, l->n_spares); // the limit may have sunk below their numbers
    l->n_spares = 0;
    if (!have_spares(l)) {
        l->starved = true;
        return false;
    }
    close_all(l->spares, l->n_spares);
    l->n_spares = 0;
    return true;
}

void link_read_again(struct link *l)
{
    if (!l->starved || l->ended || l->closing)
        return;
    l->starved = false;
    CHECK(uv_poll_start(&l->poll, l->events, on_poll) == 0);
}

// One recvmsg. Bytes read, or 0: no more for now, or burst over.
static size_t receive(struct link *l, struct burst *b)
{
    union {
        struct cmsghdr align;
        char space[CMSG_SPACE(sizeof(int) * LINK_IN_FDS)];
    } control;
    struct iovec iov = {.iov_base = buf_reserve(&l->in, LINK_READ), .iov_len = LINK_READ};
    struct msghdr msg = {.msg_iov = &iov,
                         .msg_iovlen = 1,
                         .msg_control = &control,
                         .msg_controllen = sizeof control};
    ssize_t n;
    b->more = false;
    if (!make_room(l))
        return 0;
    do
        n = recvmsg(l->fd, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    while (n < 0 && errno == EINTR);
    if (n <= 0) {
        nothing_came(l, n, b);
        return 0;
    }
    buf_commit(&l->in, (size_t)n);
    if (msg.msg_controllen && queue_fds(l, &msg, &b->err) < 0) {
        burst_fault(b);
        return 0;
    }
    // A full buffer, or a read that the kernel cut at descriptors: there may be more.
    b->more = n == LINK_READ || msg.msg_controllen;
    return (size_t)n;
}

// `whole`: the end is near and nothing will wake us again, so the turn's share does not count.
static void read_burst(struct link *l, bool whole)
{
    struct burst b; // err is large and rarely used: not zeroed
    b.more = true;
    b.any = b.over = b.faulty = false;
    size_t got = 0, n;
    while (b.more && (whole || got < LINK_TURN_BYTES) && (n = receive(l, &b)) > 0) {
        got += n;
        hand_out(l, &b);
        if (l->closing)
            return;
        b.more = !b.over && (b.more || whole);
    }
    if (buf_len(&l->in) == 0 && l->in.cap > LINK_KEEP_MAX)
        buf_finish(&l->in);
    if (b.any && l->ops->on_turn)
        l->ops->on_turn(l);
    if (b.over)
        end(l, b.faulty ? &b.err : NULL);
    else if (!l->starved && l->ops->on_starved)
        have_spares(l); // before somebody else takes what is free now
    else if (l->starved) {
        uv_poll_stop(&l->poll);
        l->ops->on_starved(l);
    }
}

static void on_poll(uv_poll_t *h, int status, int events)
{
    struct link *l = CONTAINER_OF(h, struct link, poll);
    if (status < 0 || events & (UV_READABLE | UV_DISCONNECT))
        read_burst(l, status < 0);
    if (l->ended || l->closing)
        return;
    if (status < 0) { // libuv stopped watching, and the socket has no more to say
        struct err err;
        err_set(&err, SV_E_INTERNAL, "watching %s: %s", peer(l), uv_strerror(status));
        end(l, &err);
    } else if (events & UV_WRITABLE) {
        link_flush(l);
    }
}
