// SPDX-License-Identifier: Apache-2.0
#include "cli/cli.h"

#include "abi/plugin.h"
#include "base/buf.h"
#include "base/check.h"
#include "base/err.h"
#include "base/mem.h"
#include "base/str.h"

#include <cjson/cJSON.h>

#include <limits.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

// The server that a command is for.
#define SERVER "[--state DIR | --address URL]"
#define SERVER_HELP                                                                                \
    "  --state DIR              the server's state folder (as for serve)\n"                        \
    "  -a, --address URL        the server's admin API, as http://127.0.0.1:8265 "                 \
    "($SALVER_ADDRESS)\n"

static const struct command {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *usage, *about;
    const char *help; // after the usage line
} commands[] = {
    {"serve", cmd_serve,
     "salver serve [FILE] [--host H] [--port P] [--admin-port P] [--state DIR]\n"
     "                   [--plugins DIR] [--allow-unauthenticated] [--log text|json]\n"
     "       salver serve --plugin NAME [--KEY VALUE ...]",
     "serve what a YAML file says, one plugin, or what was deployed before",
     "Runs in the foreground and says when it is ready. SIGTERM stops it after the requests in\n"
     "flight, SIGHUP replaces its ingresses. FILE is deployed once, when it starts; without one "
     "it\n"
     "goes on with what the state folder says was deployed last, and `salver deploy` changes "
     "it.\n\n"
     "  --host H                 address to listen on (file: http_options.host, 127.0.0.1)\n"
     "  --port P                 port, 0 = any free one (file: http_options.port, 8000)\n"
     "  --admin-port P           port of the admin API on loopback, 0 = none (file: admin.port, "
     "8265)\n"
     "  --state DIR              state folder ($XDG_STATE_HOME/salver, ~/.local/state/salver)\n"
     "  --plugins DIR            look for plugins here first\n"
     "  --allow-unauthenticated  let everybody who reaches the host use it\n"
     "  --log text|json          format of the log on stderr (file: logging_config.encoding)\n"
     "  --plugin NAME            no file: this plugin alone, under /; each --KEY is an option of "
     "it\n"},
    {"check", cmd_check, "salver check FILE [--plugins DIR] [--strict]",
     "say what is wrong with a YAML file",
     "Checks the file, finds its plugins and checks their options. Exit 2 when the file is bad,\n"
     "1 when a plugin is.\n\n"
     "  --plugins DIR            look for plugins here first\n"
     "  --strict                 a warning is an error too, as of a key of Ray's that is "
     "ignored\n"},
    {"config", cmd_config,
     "salver config [-n NAME] " SERVER "\n       salver config FILE\n"
     "       salver config --defaults",
     "print what was deployed, what holds for a file, or every key with its default",
     "Without FILE: each application of a running server as it was submitted, as YAML "
     "documents.\n\n"
     "  -n, --name NAME          this application alone\n"
     "  --defaults               every key with its default, unit and meaning\n" SERVER_HELP},
    {"deploy", cmd_deploy,
     "salver deploy FILE [--dry-run] [--wait[=SECONDS]] [--allow-unauthenticated]\n"
     "                   " SERVER,
     "let a running server serve what a YAML file says",
     "Applications that are not in FILE are removed, those that have not changed are not touched.\n"
     "The file is checked first (exit 2). It is in force once this returns; `salver status` says\n"
     "how far its replicas are.\n\n"
     "  --dry-run                say what would change, and how; change nothing\n"
     "  --wait[=SECONDS]         return when all are RUNNING; exit 1 when one fails or it takes "
     "longer\n"
     "  --allow-unauthenticated  let everybody who reaches the file's host use it\n" SERVER_HELP},
    {"status", cmd_status, "salver status [-n NAME] [--json] " SERVER,
     "say how a running server is",
     "  -n, --name NAME          this application alone\n"
     "  --json                   everything, for programs\n" SERVER_HELP},
    {"delete", cmd_delete, "salver delete NAME " SERVER, "remove an application",
     "Its requests in flight may finish for graceful_shutdown_timeout_s.\n\n" SERVER_HELP},
    {"shutdown", cmd_shutdown, "salver shutdown [-y] " SERVER, "remove all applications",
     "The server itself goes on and waits for `salver deploy`.\n\n"
     "  -y, --yes                do not ask\n" SERVER_HELP},
    {"upgrade", cmd_upgrade, "salver upgrade [PATH] [--state DIR]",
     "let a running server go over to another binary",
     "Every process is replaced by one of PATH (this binary without it), without losing a "
     "request.\n"},
    {"inspect", cmd_inspect, "salver inspect PLUGIN.so [--json]",
     "look at a plugin in a process of its own", ""},
    {"plugin", cmd_plugin, "salver plugin new NAME [DIR]", "write a plugin to start from", ""},
    {"doc", cmd_doc, "salver doc config|metrics|wire|errors", "print a reference page as Markdown",
     ""},
    {"version", cmd_version, "salver version", "print the version", ""},
};

static const char *command_name(void *arg, size_t i)
{
    (void)arg;
    return i < ARRAY_LEN(commands) ? commands[i].name : NULL;
}

static void print_usage(FILE *to)
{
    fputs("usage: salver COMMAND ...\n\n", to);
    for (size_t i = 0; i < ARRAY_LEN(commands); i++)
        fprintf(to, "  %-9s %s\n", commands[i].name, commands[i].about);
    fputs("\n`salver COMMAND --help` says more.\n", to);
}

static bool wants_help(int argc, char **argv)
{
    for (int i = 0; i < argc; i++)
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0)
            return true;
    return false;
}

static int run(const struct command *c, int argc, char **argv)
{
    if (wants_help(argc, argv)) {
        printf("usage: %s\n%s%s", c->usage, *c->help ? "\n" : "", c->help);
        return CLI_OK;
    }
    return c->run(argc, argv);
}

int cli_main(int argc, char **argv)
{
    const char *name = argc > 1 ? argv[1] : "--help";
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0 || strcmp(name, "help") == 0) {
        print_usage(argc > 1 ? stdout : stderr);
        return argc > 1 ? CLI_OK : CLI_USAGE;
    }
    if (strcmp(name, "--version") == 0)
        name = "version";
    for (size_t i = 0; i < ARRAY_LEN(commands); i++)
        if (strcmp(commands[i].name, name) == 0)
            return run(&commands[i], argc - 2, argv + 2);
    const char *near = str_suggest(name, command_name, NULL);
    if (near)
        return cli_fail(CLI_USAGE, "unknown command '%s'; did you mean '%s'?", name, near);
    return cli_fail(CLI_USAGE, "unknown command '%s'; `salver --help` lists those there are", name);
}

int cli_fail(int status, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    fputs("salver: ", stderr);
    vfprintf(stderr, fmt, ap);
    fputc('\n', stderr);
    va_end(ap);
    return status;
}

int cli_unknown_app(const cJSON *applications, const char *name, struct err *err)
{
    struct buf known = {0};
    const cJSON *it;
    cJSON_ArrayForEach(it, applications)
        buf_printf(&known, "%s'%s'", buf_len(&known) ? ", " : "", it->string);
    int rc = err_set(err, SV_E_NOT_FOUND, "there is no application '%s'; there %s %s", name,
                     cJSON_GetArraySize(applications) == 1 ? "is" : "are",
                     buf_len(&known) ? buf_cstr(&known) : "none");
    buf_finish(&known);
    return rc;
}

static char *absolute(char *own_path)
{
    char here[PATH_MAX];
    if (own_path[0] == '/' || !getcwd(here, sizeof here))
        return own_path;
    char *path = xasprintf("%s/%s", here, own_path);
    xfree(own_path);
    return path;
}

char *cli_state_dir(const char *given)
{
    const char *xdg = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
    if (given)
        return absolute(xstrdup(given));
    if (xdg && *xdg)
        return absolute(xasprintf("%s/salver", xdg));
    return absolute(xasprintf("%s/.local/state/salver", home && *home ? home : "."));
}
