// SPDX-License-Identifier: Apache-2.0
#include "common/file.h"

#include "abi/plugin.h"
#include "base/buf.h"
#include "base/err.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

// The descriptor and the size.
static int open_regular(const char *path, uint64_t max, uint64_t *size, struct err *err)
{
    struct stat s;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); // a FIFO must not hold us
    if (fd < 0)
        return err_set(err, errno == ENOENT ? SV_E_NOT_FOUND : SV_E_INVALID, "opening '%s': %s",
                       path, err_errno(errno));
    int rc = fd;
    if (fstat(fd, &s) < 0)
        rc = err_set(err, SV_E_INVALID, "reading '%s': %s", path, err_errno(errno));
    else if (!S_ISREG(s.st_mode))
        rc = err_set(err, SV_E_INVALID, "'%s' is not a regular file", path);
    else if ((uint64_t)s.st_size > max)
        rc = err_set(err, SV_E_TOO_LARGE, "'%s' has %lld bytes; at most %llu", path,
                     (long long)s.st_size, (unsigned long long)max);
    else
        *size = (uint64_t)s.st_size;
    if (rc < 0)
        close(fd);
    return rc;
}

int file_map(const char *path, uint64_t max, struct file_map *ret, struct err *err)
{
    uint64_t size = 0;
    int fd = open_regular(path, max, &size, err);
    if (fd < 0)
        return fd;
    if (size == 0) {
        close(fd);
        return err_set(err, SV_E_INVALID, "'%s' is empty", path);
    }
    void *p = mmap(NULL, (size_t)size, PROT_READ, MAP_SHARED, fd, 0);
    int why = errno;
    close(fd);
    if (p == MAP_FAILED)
        return err_set(err, SV_E_NOMEM, "mapping the %llu bytes of '%s': %s",
                       (unsigned long long)size, path, err_errno(why));
    *ret = (struct file_map){p, (size_t)size};
    return 0;
}

void file_unmap(struct file_map *m)
{
    if (m->p)
        munmap((void *)(uintptr_t)m->p, m->n);
    *m = (struct file_map){0};
}

void file_prefetch(const struct file_map *m)
{
    if (m->p)
        madvise((void *)(uintptr_t)m->p, m->n, MADV_WILLNEED);
}

void file_forget(const struct file_map *m)
{
    if (m->p)
        madvise((void *)(uintptr_t)m->p, m->n, MADV_DONTNEED);
}

// Up to one byte more than `size`, to see that the file did not grow meanwhile.
static int read_all(int fd, const char *path, size_t size, struct buf *out, struct err *err)
{
    for (size_t got = 0; got <= size;) {
        ssize_t n = read(fd, buf_reserve(out, size + 1 - got), size + 1 - got);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_set(err, SV_E_INVALID, "reading '%s': %s", path, err_errno(errno));
        if (n == 0)
            return 0;
        buf_commit(out, (size_t)n);
        got += (size_t)n;
    }
    return err_set(err, SV_E_INVALID, "'%s' grew while it was read; try again", path);
}

int file_read(const char *path, size_t max, struct buf *out, struct err *err)
{
    uint64_t size = 0;
    int fd = open_regular(path, max, &size, err);
    if (fd < 0)
        return fd;
    int rc = read_all(fd, path, (size_t)size, out, err);
    close(fd);
    return rc;
}
