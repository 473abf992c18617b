// SPDX-License-Identifier: Apache-2.0
#include "base/os.h"

#include "abi/plugin.h"
#include "base/check.h"
#include "base/err.h"

#include <dirent.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <link.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

extern char **environ;

enum { OS_FDMAP_MAX = 16 }; // descriptors of one child
static const int seals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;

int os_memfd(const char *name, size_t size, struct err *err)
{
    int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0)
        return err_set(err, SV_E_INTERNAL, "making the memory file '%s': %s", name,
                       err_errno(errno));
    if (ftruncate(fd, (off_t)size) == 0 && fcntl(fd, F_ADD_SEALS, seals) == 0)
        return fd;
    int why = errno;
    close(fd);
    return err_set(err, SV_E_INTERNAL, "giving the memory file '%s' %zu bytes: %s", name, size,
                   err_errno(why));
}

int os_memfd_map(int fd, size_t size, void **ret, struct err *err)
{
    struct stat st;
    if (fstat(fd, &st) < 0)
        return err_set(err, SV_E_INVALID, "memory file %d: %s", fd, err_errno(errno));
    if (st.st_size < 0 || (size_t)st.st_size != size)
        return err_set(err, SV_E_INVALID, "memory file %d has %lld bytes, not %zu", fd,
                       (long long)st.st_size, size);
    int have = fcntl(fd, F_GET_SEALS);
    if (have < 0 || (have & seals) != seals)
        return err_set(err, SV_E_INVALID, "memory file %d is not sealed against resizing", fd);
    void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (p == MAP_FAILED)
        return err_set(err, SV_E_NOMEM, "mapping %zu bytes: %s", size, err_errno(errno));
    *ret = p;
    return 0;
}

int os_sealed(const char *name, const void *p, size_t n, struct err *err)
{
    int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
    size_t done = 0;
    while (fd >= 0 && done < n) {
        ssize_t put = write(fd, (const char *)p + done, n - done);
        if (put < 0 && errno != EINTR)
            break;
        done += put > 0 ? (size_t)put : 0;
    }
    if (fd >= 0 && done == n && fcntl(fd, F_ADD_SEALS, seals | F_SEAL_WRITE) == 0)
        return fd;
    int why = errno;
    if (fd >= 0)
        close(fd);
    return err_set(err, SV_E_INTERNAL, "writing the memory file '%s' of %zu bytes: %s", name, n,
                   err_errno(why));
}

int os_socketpair(int fds[2], struct err *err)
{
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds) < 0)
        return err_set(err, SV_E_INTERNAL, "making a socket pair: %s", err_errno(errno));
    return 0;
}

int os_pipe(int fds[2], struct err *err)
{
    if (pipe2(fds, O_CLOEXEC) < 0)
        return err_set(err, SV_E_INTERNAL, "making a pipe: %s", err_errno(errno));
    int flags = fcntl(fds[0], F_GETFL);
    CHECK(flags >= 0 && fcntl(fds[0], F_SETFL, flags | O_NONBLOCK) == 0);
    return 0;
}

int os_pidfd_open(pid_t pid, struct err *err)
{
    int fd = pidfd_open(pid, 0); // close-on-exec by itself
    if (fd < 0)
        return err_set(err, SV_E_INTERNAL, "watching process %d: %s", (int)pid, err_errno(errno));
    return fd;
}

enum { PIDFD_GROUP = 1 << 2 }; // PIDFD_SIGNAL_PROCESS_GROUP, Linux 6.9

int os_pidfd_kill(int pidfd, pid_t pid, int sig, bool group)
{
    long rc = syscall(SYS_pidfd_send_signal, pidfd, sig, NULL, group ? PIDFD_GROUP : 0);
    if (rc == 0 || !group || errno != EINVAL)
        return (int)rc;
    // An older kernel: as long as the process is there its number is its group's.
    if (syscall(SYS_pidfd_send_signal, pidfd, 0, NULL, 0) < 0)
        return -1;
    return kill(-pid, sig);
}

bool os_pidfd_ended(int pidfd)
{
    struct pollfd p = {.fd = pidfd, .events = POLLIN};
    return poll(&p, 1, 0) > 0;
}

// `<dir>/<name>` by a descriptor of the folder, which fits into an address however long dir is.
static int unix_address(const char *dir, const char *name, struct sockaddr_un *a, int *ret_dir,
                        struct err *err)
{
    *ret_dir = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (*ret_dir < 0)
        return err_set(err, SV_E_INTERNAL, "opening the folder '%s': %s", dir, err_errno(errno));
    *a = (struct sockaddr_un){.sun_family = AF_UNIX};
    int n = snprintf(a->sun_path, sizeof a->sun_path, "/proc/self/fd/%d/%s", *ret_dir, name);
    CHECK(n > 0 && (size_t)n < sizeof a->sun_path);
    return socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
}

int os_unix_listen(const char *dir, const char *name, int backlog, struct err *err)
{
    struct sockaddr_un a;
    int folder, fd = unix_address(dir, name, &a, &folder, err);
    if (folder < 0)
        return fd;
    unlink(a.sun_path);
    mode_t before = umask(0177);
    int rc = fd < 0 ? -1 : bind(fd, (struct sockaddr *)&a, sizeof a);
    umask(before);
    int why = errno;
    close(folder);
    if (rc == 0 && listen(fd, backlog) == 0)
        return fd;
    if (fd >= 0)
        close(fd);
    return err_set(err, SV_E_INTERNAL, "listening on '%s/%s': %s", dir, name,
                   err_errno(rc == 0 ? errno : why));
}

int os_unix_connect(const char *dir, const char *name, struct err *err)
{
    struct sockaddr_un a;
    int folder, fd = unix_address(dir, name, &a, &folder, err);
    if (folder < 0)
        return fd;
    int rc = fd < 0 ? -1 : connect(fd, (struct sockaddr *)&a, sizeof a);
    int why = errno;
    close(folder);
    if (rc == 0)
        return fd;
    if (fd >= 0)
        close(fd);
    return err_set(err, SV_E_UNAVAILABLE, "connecting to '%s/%s': %s", dir, name, err_errno(why));
}

int os_unix_peer(int fd, uid_t *ret_uid, pid_t *ret_pid, struct err *err)
{
    struct ucred c;
    socklen_t len = sizeof c;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &c, &len) < 0)
        return err_set(err, SV_E_INTERNAL, "asking who is connected: %s", err_errno(errno));
    *ret_uid = c.uid;
    *ret_pid = c.pid;
    return 0;
}

bool os_is_holder(pid_t pid, int fd, int as)
{
    char path[64];
    struct stat ours, theirs;
    snprintf(path, sizeof path, "/proc/%d/fd/%d", (int)pid, as);
    return fstat(fd, &ours) == 0 && stat(path, &theirs) == 0 && ours.st_dev == theirs.st_dev &&
           ours.st_ino == theirs.st_ino;
}

size_t os_find_holders(int fd, int as, pid_t *ret_pids, size_t max)
{
    DIR *proc = opendir("/proc");
    size_t n = 0;
    if (!proc)
        return 0;
    for (struct dirent *e; (e = readdir(proc));) {
        char *end;
        long pid = strtol(e->d_name, &end, 10);
        if (*end || pid <= 0 || pid == getpid() || getpgid((pid_t)pid) != pid ||
            !os_is_holder((pid_t)pid, fd, as))
            continue;
        if (n < max)
            ret_pids[n] = (pid_t)pid;
        n++;
    }
    closedir(proc);
    return n;
}

// A spawn under way: the file actions, and the copies of the descriptors that they take from.
struct spawning {
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attr;
    int copies[OS_FDMAP_MAX];
    size_t n_copies;
};

static bool is_target(const struct os_fdmap *fds, size_t n, int fd)
{
    for (size_t i = 0; i < n; i++)
        if (fds[i].as == fd)
            return true;
    return false;
}

// First every descriptor is copied above all targets, so that no dup2 there hits a source.
static int plan_fds(struct spawning *s, const struct os_fdmap *fds, size_t n)
{
    int top = 2, rc = 0;
    for (size_t i = 0; i < n; i++)
        top = fds[i].as > top ? fds[i].as : top;
    for (size_t i = 0; i < n; i++) {
        int copy = fcntl(fds[i].fd, F_DUPFD_CLOEXEC, top + 1);
        if (copy < 0)
            return errno;
        s->copies[s->n_copies++] = copy;
    }
    for (size_t i = 0; rc == 0 && i < n; i++)
        rc = posix_spawn_file_actions_adddup2(&s->actions, s->copies[i], fds[i].as);
    for (int fd = 0; rc == 0 && fd <= top; fd++) {
        if (is_target(fds, n, fd))
            continue;
        if (fd <= 2)
            rc = posix_spawn_file_actions_addopen(&s->actions, fd, "/dev/null", O_RDWR, 0);
        else
            rc = posix_spawn_file_actions_addclose(&s->actions, fd);
    }
    if (rc == 0)
        rc = posix_spawn_file_actions_addclosefrom_np(&s->actions, top + 1);
    return rc;
}

static int plan_attr(posix_spawnattr_t *attr)
{
    sigset_t all, none;
    sigfillset(&all);
    sigemptyset(&none);
    posix_spawnattr_setsigdefault(attr, &all);
    posix_spawnattr_setsigmask(attr, &none);
    posix_spawnattr_setpgroup(attr, 0);
    return posix_spawnattr_setflags(attr, POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK |
                                              POSIX_SPAWN_SETPGROUP);
}

int os_spawn(const char *path, char *const argv[], char *const envp[], const struct os_fdmap *fds,
             size_t n_fds, pid_t *ret_pid, struct err *err)
{
    CHECK(n_fds <= OS_FDMAP_MAX);
    struct spawning s = {.n_copies = 0};
    posix_spawn_file_actions_init(&s.actions);
    posix_spawnattr_init(&s.attr);
    int rc = plan_fds(&s, fds, n_fds);
    if (rc == 0)
        rc = plan_attr(&s.attr);
    if (rc == 0)
        rc = posix_spawn(ret_pid, path, &s.actions, &s.attr, argv, envp ? envp : environ);
    for (size_t i = 0; i < s.n_copies; i++)
        close(s.copies[i]);
    posix_spawnattr_destroy(&s.attr);
    posix_spawn_file_actions_destroy(&s.actions);
    if (rc)
        return err_set(err, SV_E_INTERNAL, "starting '%s': %s", path, err_errno(rc));
    return 0;
}

int os_self_path(char *out, size_t cap, struct err *err)
{
    CHECK(cap > 0);
    ssize_t n = readlink("/proc/self/exe", out, cap);
    if (n < 0)
        return err_set(err, SV_E_INTERNAL, "reading /proc/self/exe: %s", err_errno(errno));
    if ((size_t)n >= cap)
        return err_set(err, SV_E_INTERNAL, "the path of this executable is longer than %zu bytes",
                       cap - 1);
    out[n] = '\0';
    return 0;
}

// The GNU build id: a note of the first object, which is the executable (elf(5),
// dl_iterate_phdr(3)).
static void read_notes(const char *p, const char *end, char *out)
{
    while ((size_t)(end - p) >= sizeof(ElfW(Nhdr))) {
        ElfW(Nhdr) n;
        memcpy(&n, p, sizeof n);
        size_t name = (n.n_namesz + 3u) & ~3u, desc = (n.n_descsz + 3u) & ~3u;
        p += sizeof n;
        if (name + desc > (size_t)(end - p))
            return;
        if (n.n_type == NT_GNU_BUILD_ID && n.n_namesz == 4 && memcmp(p, "GNU", 4) == 0)
            for (size_t k = 0; k < n.n_descsz && 2 * k + 2 < OS_BUILD_ID; k++)
                snprintf(out + 2 * k, 3, "%02x", (unsigned char)p[name + k]);
        p += name + desc;
    }
}

static int find_notes(struct dl_phdr_info *info, size_t size, void *out)
{
    (void)size;
    for (unsigned i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *h = &info->dlpi_phdr[i];
        // NOLINTNEXTLINE(performance-no-int-to-ptr)
        const char *at = (const char *)(uintptr_t)(info->dlpi_addr + h->p_vaddr);
        if (h->p_type == PT_NOTE)
            read_notes(at, at + h->p_memsz, out);
    }
    return 1; // the others are libraries
}

void os_build_id(char out[OS_BUILD_ID])
{
    *out = '\0';
    dl_iterate_phdr(find_notes, out);
}

uint64_t os_random(void)
{
    uint64_t v;
    ssize_t n;
    do
        n = getrandom(&v, sizeof v, 0);
    while (n < 0 && errno == EINTR);
    CHECK(n == (ssize_t)sizeof v);
    return v;
}

uint32_t os_thread_id(void)
{
    return (uint32_t)gettid();
}

void os_thread_name(const char *name)
{
    char cut[16];
    snprintf(cut, sizeof cut, "%s", name);
    pthread_setname_np(pthread_self(), cut);
}

int os_nofile_raise(void)
{
    struct rlimit r;
    if (getrlimit(RLIMIT_NOFILE, &r) < 0)
        return 1024;
    if (r.rlim_cur < r.rlim_max) {
        struct rlimit up = {.rlim_cur = r.rlim_max, .rlim_max = r.rlim_max};
        if (setrlimit(RLIMIT_NOFILE, &up) == 0)
            r = up;
    }
    return r.rlim_cur > INT_MAX ? INT_MAX : (int)r.rlim_cur;
}

int os_die_with_parent(int sig)
{
    return prctl(PR_SET_PDEATHSIG, (unsigned long)sig) < 0 ? SV_E_INTERNAL : 0;
}

// There where the program is built with LeakSanitizer, which else looks when it is left by exit().
__attribute__((weak)) void __lsan_do_leak_check(void);

void os_leave(int status)
{
    if (__lsan_do_leak_check)
        __lsan_do_leak_check();
    _exit(status);
}

int os_mkdirs(const char *path, unsigned mode, struct err *err)
{
    char part[PATH_MAX];
    size_t n = strlen(path);
    if (n == 0 || n >= sizeof part)
        return err_set(err, SV_E_INVALID, "a path of %zu bytes cannot be a folder (1 to %zu)", n,
                       sizeof part - 1);
    for (size_t i = 1; i <= n; i++) {
        if (path[i] != '/' && path[i] != '\0')
            continue;
        memcpy(part, path, i);
        part[i] = '\0';
        if (mkdir(part, mode) < 0 && errno != EEXIST)
            return err_set(err, SV_E_INTERNAL, "making the folder '%s': %s", part,
                           err_errno(errno));
    }
    struct stat st;
    if (stat(path, &st) < 0 || !S_ISDIR(st.st_mode))
        return err_set(err, SV_E_INVALID, "'%s' is not a folder", path);
    return 0;
}
