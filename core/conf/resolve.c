// SPDX-License-Identifier: Apache-2.0
#include "conf/resolve.h"

#include "base/buf.h"
#include "base/err.h"
#include "base/str.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { NAME_LEN_MAX = 128 }; // bytes of a variable's name

static void each_scalar(struct resolve *r, struct yaml_node *node,
                        void (*visit)(struct resolve *, struct yaml_node *))
{
    if (node->kind != YAML_SEQ && node->kind != YAML_MAP) {
        visit(r, node);
        return;
    }
    for (uint32_t i = 0; i < node->n; i++)
        each_scalar(r, node->kind == YAML_SEQ ? node->items[i] : node->pairs[i].value, visit);
}

// Gives the node its new text. False: it is no UTF-8 or too much, which is reported.
static bool replace(struct resolve *r, struct yaml_node *node, const char *p, size_t n,
                    const char *what)
{
    r->bytes += n;
    if (r->bytes > YAML_TEXT_MAX) {
        if (r->bytes - n <= YAML_TEXT_MAX)
            report_error(r->report, node->at, "more than %d MiB came from references",
                         YAML_TEXT_MAX >> 20);
        return false;
    }
    if (memchr(p, '\0', n) || !str_valid_utf8(p, n)) {
        report_error(r->report, node->at, "%s is no UTF-8 text", what);
        return false;
    }
    node->text = arena_strndup(r->report->arena, p, n);
    node->secret = true;
    return true;
}

// --- ${NAME}

static bool name_ok(const char *p, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        bool letter = (p[i] >= 'a' && p[i] <= 'z') || (p[i] >= 'A' && p[i] <= 'Z') || p[i] == '_';
        if (!letter && !(i && p[i] >= '0' && p[i] <= '9'))
            return false;
    }
    return n > 0 && n <= NAME_LEN_MAX;
}

// One reference; `p` is behind "${". Returns what follows the '}', or NULL with an error reported.
static const char *expand_one(struct resolve *r, const struct yaml_node *node, const char *p,
                              struct buf *out)
{
    char name[NAME_LEN_MAX + 1];
    const char *end = strchr(p, '}'), *sep = end ? memmem(p, (size_t)(end - p), ":-", 2) : NULL;

    if (!end) {
        report_error(r->report, node->at, "'${' without its '}' (a literal ${ is written $${)");
        return NULL;
    }
    size_t n = (size_t)((sep ? sep : end) - p);
    if (!name_ok(p, n)) {
        report_error(r->report, node->at,
                     "'${%.*s}' is no environment variable: want ${NAME} or ${NAME:-default} (a "
                     "literal ${ is written $${)",
                     (int)(end - p), p);
        return NULL;
    }
    memcpy(name, p, n);
    name[n] = '\0';
    const char *value = getenv(name);
    if (value && *value) {
        buf_puts(out, value);
    } else if (sep) {
        buf_put(out, sep + 2, (size_t)(end - sep) - 2);
    } else {
        report_error(r->report, node->at,
                     "environment variable %s is %s: set it, or write ${%s:-default}", name,
                     value ? "empty" : "not set", name);
        return NULL;
    }
    return end + 1;
}

static void expand(struct resolve *r, struct yaml_node *node)
{
    struct buf out = {0};
    const char *p = node->text;
    bool replaced = false;

    if (!strstr(p, "${"))
        return;
    while (p && *p && buf_len(&out) <= RESOLVE_TEXT_MAX) {
        if (strncmp(p, "$${", 3) == 0) {
            buf_puts(&out, "${");
            p += 3;
        } else if (strncmp(p, "${", 2) == 0) {
            p = expand_one(r, node, p + 2, &out);
            replaced = true;
        } else {
            buf_put(&out, p++, 1);
        }
    }
    node->broken = true;
    if (buf_len(&out) > RESOLVE_TEXT_MAX)
        report_error(r->report, node->at, "longer than %d KiB with its variables replaced",
                     RESOLVE_TEXT_MAX >> 10);
    else if (p)
        node->broken =
            !replace(r, node, buf_cstr(&out), buf_len(&out), "the environment variable's value");
    node->secret = node->secret && replaced;
    if (node->plain && !node->broken)
        yaml_retype(node);
    buf_finish(&out);
}

void resolve_env(struct resolve *r, struct yaml_node *node)
{
    each_scalar(r, node, expand);
}

// --- file:PATH

// At most one byte more than the limit, so that too much is noticed. -1: errno says why.
static ssize_t read_some(const char *path, char *out, size_t cap)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    size_t n = 0;
    ssize_t got;
    struct stat st;

    if (fd < 0)
        return -1;
    if (fstat(fd, &st) == 0 && S_ISDIR(st.st_mode)) {
        close(fd);
        errno = EISDIR;
        return -1;
    }
    while (n < cap && (got = read(fd, out + n, cap - n)) != 0) {
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0) {
            int why = errno;
            close(fd);
            errno = why;
            return -1;
        }
        n += (size_t)got;
    }
    close(fd);
    return (ssize_t)n;
}

static void read_reference(struct resolve *r, struct yaml_node *node)
{
    static const char prefix[] = "file:";
    struct buf content = {0};

    if (node->kind != YAML_TEXT || node->broken ||
        strncmp(node->text, prefix, sizeof prefix - 1) != 0)
        return;
    const char *path = node->text + sizeof prefix - 1;
    if (strncmp(path, "//", 2) == 0) // file:///a/b is /a/b
        path += 2;
    const char *shown = node->secret ? "***" : path;
    if (*path != '/' && *r->dir)
        path = arena_printf(r->report->arena, "%s/%s", r->dir, path);
    node->broken = true;
    char *room = buf_reserve(&content, RESOLVE_FILE_MAX + 1);
    ssize_t n = read_some(path, room, RESOLVE_FILE_MAX + 1);
    if (n < 0) {
        report_error(r->report, node->at, "cannot read the file '%s', which 'file:' names: %s%s",
                     shown, err_errno(errno),
                     *shown == '/' ? "" : " (it is looked for in the YAML file's folder)");
    } else if (n > RESOLVE_FILE_MAX) {
        report_error(r->report, node->at,
                     "'%s' is larger than %d KiB; 'file:' puts a file's content here (a path is "
                     "written without 'file:')",
                     shown, RESOLVE_FILE_MAX >> 10);
    } else {
        size_t len = (size_t)n;
        if (len && room[len - 1] == '\n')
            len--;
        node->broken = !replace(r, node, room, len, "the file that 'file:' names");
    }
    buf_finish(&content);
}

void resolve_files(struct resolve *r, struct yaml_node *node)
{
    each_scalar(r, node, read_reference);
}
