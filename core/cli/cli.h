// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * cli - the commands that people type. Exit status: 0; 1 a failure at run time; 2 bad usage or a
 * bad file.
 */
struct cJSON;
struct err;

enum { CLI_OK = 0, CLI_FAILED = 1, CLI_USAGE = 2 };

int cli_main(int argc, char **argv);

// One for each command; argv[0] is the first argument after its name. Exit status.
int cmd_serve(int argc, char **argv);
int cmd_check(int argc, char **argv);
int cmd_config(int argc, char **argv);
int cmd_deploy(int argc, char **argv);
int cmd_delete(int argc, char **argv);
int cmd_shutdown(int argc, char **argv);
int cmd_upgrade(int argc, char **argv);
int cmd_status(int argc, char **argv);
int cmd_inspect(int argc, char **argv);
int cmd_plugin(int argc, char **argv);
int cmd_doc(int argc, char **argv);
int cmd_version(int argc, char **argv);

// "salver: text" on stderr; returns `status`.
__attribute__((format(printf, 2, 3))) int cli_fail(int status, const char *fmt, ...);
// --state, else $XDG_STATE_HOME/salver, else ~/.local/state/salver; absolute. The caller's, xfree.
char *cli_state_dir(const char *given);
// SV_E_NOT_FOUND with the names that there are in `applications`, an object.
int cli_unknown_app(const struct cJSON *applications, const char *name, struct err *err);
