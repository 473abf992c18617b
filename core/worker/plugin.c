// SPDX-License-Identifier: Apache-2.0
#include "worker/plugin.h"

#include "base/check.h"
#include "base/err.h"
#include "base/mem.h"

#include <dlfcn.h>
#include <stdarg.h>

#define SYMBOL "sv_plugin_v1"

__attribute__((format(printf, 2, 3))) static void warn(struct plugin *p, const char *fmt, ...)
{
    if (p->n_warnings == PLUGIN_WARNINGS)
        return;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(p->warnings[p->n_warnings++], sizeof p->warnings[0], fmt, ap);
    va_end(ap);
}

static bool is_zero(const unsigned char *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (p[i])
            return false;
    return true;
}

static int copy_descriptor(struct plugin *p, const sv_plugin *raw, struct err *err)
{
    uint32_t size = raw->size;
    if (size < offsetof(sv_plugin, version) || size > PLUGIN_DESC_MAX || size % sizeof(void *))
        return err_set(err, SV_E_INVALID,
                       "its descriptor says it has %u bytes; %zu to %d are possible, by %zu "
                       "(use SV_PLUGIN)",
                       size, offsetof(sv_plugin, version), PLUGIN_DESC_MAX, sizeof(void *));
    memcpy(&p->d, raw, size < sizeof p->d ? size : sizeof p->d);
    if (size > sizeof p->d &&
        !is_zero((const unsigned char *)raw + sizeof p->d, size - sizeof p->d))
        warn(p, "it uses fields of ABI 1.%u that this core (1.%d) does not know", p->d.abi_minor,
             SV_ABI_MINOR);
    return 0;
}

static int check_version(struct plugin *p, struct err *err)
{
    if (p->d.abi_major != SV_ABI_MAJOR)
        return err_set(err, SV_E_INVALID,
                       "it was built for ABI %u.%u; this core speaks %d.%d (build it again)",
                       p->d.abi_major, p->d.abi_minor, SV_ABI_MAJOR, SV_ABI_MINOR);
    if (p->d.min_host_minor > SV_ABI_MINOR)
        return err_set(err, SV_E_INVALID,
                       "it needs ABI 1.%u; this core speaks 1.%d (update Salver)",
                       p->d.min_host_minor, SV_ABI_MINOR);
    if (p->d.flags)
        warn(p, "it sets flags 0x%x that this core does not know", p->d.flags);
    return 0;
}

static int check_name(struct plugin *p, struct err *err)
{
    const char *name = p->d.name;
    if (!name)
        return err_set(err, SV_E_INVALID, "it has no name (set .name)");
    size_t n = strnlen(name, PLUGIN_NAME_MAX + 1);
    for (size_t i = 0; i < n; i++)
        if (name[i] <= ' ' || name[i] > '~' || name[i] == '/')
            return err_set(err, SV_E_INVALID,
                           "byte %zu of its name is 0x%02x; use visible ASCII without '/'", i,
                           (unsigned char)name[i]);
    if (n == 0 || n > PLUGIN_NAME_MAX)
        return err_set(err, SV_E_INVALID, "its name has %s; use 1 to %d bytes",
                       n ? "too many bytes" : "no bytes", PLUGIN_NAME_MAX);
    if (!p->d.version)
        p->d.version = "";
    if (!p->d.about)
        p->d.about = "";
    return 0;
}

static int check_callbacks(struct plugin *p, struct err *err)
{
    if (p->d.run && p->d.submit)
        return err_set(err, SV_E_INVALID, "it has both run and submit; only one can serve");
    if (!p->d.run && !p->d.submit)
        return err_set(err, SV_E_INVALID, "it has neither run nor submit; one must serve");
    if (p->d.run && (p->d.step || p->d.input || p->d.writable))
        warn(p, "%s is never called: it belongs to submit, and this plugin has run",
             p->d.step    ? "step"
             : p->d.input ? "input"
                          : "writable");
    if (p->d.submit && p->d.batch_key)
        warn(p, "batch_key is never called: it belongs to run, and this plugin has submit");
    return 0;
}

static int copy_option(struct plugin *p, uint32_t i, struct err *err)
{
    const char *row = (const char *)p->d.options + (size_t)i * p->d.option_size;
    sv_option *o = &p->options[i];
    memcpy(o, row, p->d.option_size < sizeof *o ? p->d.option_size : sizeof *o);
    if (!o->name || !*o->name || strnlen(o->name, 129) > 128)
        return err_set(err, SV_E_INVALID, "option %u has no name of 1 to 128 bytes", i);
    if (o->type > SV_JSON)
        return err_set(err, SV_E_INVALID, "option '%s' has type %u; 0 to %d are known", o->name,
                       o->type, SV_JSON);
    if (o->min > o->max || o->min != o->min || o->max != o->max)
        return err_set(err, SV_E_INVALID, "option '%s' has the range %g to %g", o->name, o->min,
                       o->max);
    for (uint32_t k = 0; k < i; k++)
        if (strcmp(p->options[k].name, o->name) == 0)
            return err_set(err, SV_E_INVALID, "option '%s' stands there twice", o->name);
    if (!o->help)
        o->help = "";
    return 0;
}

static int copy_options(struct plugin *p, struct err *err)
{
    if (p->d.n_options == 0)
        return 0;
    if (!p->d.options)
        return err_set(err, SV_E_INVALID, "it has %u options but no table (use SV_OPTIONS)",
                       p->d.n_options);
    if (p->d.n_options > PLUGIN_OPTIONS_MAX)
        return err_set(err, SV_E_INVALID, "it has %u options; at most %d are possible",
                       p->d.n_options, PLUGIN_OPTIONS_MAX);
    if (p->d.option_size < offsetof(sv_option, min) || p->d.option_size > PLUGIN_OPTION_MAX)
        return err_set(err, SV_E_INVALID,
                       "its option rows have %u bytes; %zu to %d are possible (use SV_OPTIONS)",
                       p->d.option_size, offsetof(sv_option, min), PLUGIN_OPTION_MAX);
    p->options = xcalloc(p->d.n_options, sizeof *p->options);
    p->n_options = p->d.n_options;
    for (uint32_t i = 0; i < p->n_options; i++) {
        int rc = copy_option(p, i, err);
        if (rc < 0)
            return rc;
    }
    return 0;
}

int plugin_check(struct plugin *p, const sv_plugin *raw, struct err *err)
{
    *p = (struct plugin){0};
    int rc = copy_descriptor(p, raw, err);
    if (rc == 0)
        rc = check_version(p, err);
    if (rc == 0)
        rc = check_name(p, err);
    if (rc == 0)
        rc = check_callbacks(p, err);
    if (rc == 0)
        rc = copy_options(p, err);
    if (rc < 0)
        plugin_finish(p);
    return rc;
}

int plugin_open(struct plugin *p, const char *path, struct err *err)
{
    char here[PLUGIN_PATH_MAX];
    if (!strchr(path, '/')) { // dlopen would look for it among the system's libraries
        snprintf(here, sizeof here, "./%s", path);
        path = here;
    }
    void *file = dlopen(path, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    if (!file)
        return err_set(err, SV_E_INVALID, "loading a plugin: %s", dlerror());
    const sv_plugin *raw = dlsym(file, SYMBOL);
    if (!raw)
        return err_set(err, SV_E_INVALID,
                       "'%s' does not export " SYMBOL ": it is no plugin for ABI 1 (use SV_PLUGIN)",
                       path);
    if (plugin_check(p, raw, err) < 0)
        return err_ctx(err, "looking at '%s'", path);
    return 0;
}

void plugin_finish(struct plugin *p)
{
    xfree(p->options);
    p->options = NULL;
    p->n_options = 0;
}
