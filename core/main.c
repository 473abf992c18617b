// SPDX-License-Identifier: Apache-2.0
/*
 * One executable: with a role for a name it is a process of a running server, else a command.
 */
#include "cli/cli.h"
#include "control/control.h"
#include "control/gpus.h"
#include "serve/ingress.h"
#include "supervise/supervisor.h"
#include "worker/inspect.h"
#include "worker/worker.h"

#include <string.h>

// Roles that the supervisor starts get one argument, the name of their spec.
static const struct {
    const char *role;
    int (*main)(const char *name);
} roles[] = {{"control", control_main}, {"ingress", ingress_main}, {"worker", worker_main}};

int main(int argc, char **argv)
{
    for (size_t i = 0; argc == 3 && i < sizeof roles / sizeof *roles; i++)
        if (strcmp(argv[1], roles[i].role) == 0)
            return roles[i].main(argv[2]);
    if (argc > 1 && strcmp(argv[1], "supervisor") == 0)
        return supervisor_main(argc - 2, argv + 2);
    if (argc > 1 && strcmp(argv[1], "inspect-child") == 0)
        return inspect_child_main(argc, argv);
    if (argc == 2 && strcmp(argv[1], "count-gpus") == 0)
        return gpus_child_main();
    return cli_main(argc, argv);
}
