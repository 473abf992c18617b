// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * check - a loaded file against its plugins, for `salver check` and before `salver serve`.
 */
#include <stdbool.h>

struct conf_file;
struct err;

// Finds each plugin and checks the options; `deep`: creates each one as well, in a process of its
// own, with the config of its deployment. CLI_OK; CLI_USAGE: the file is wrong (a plugin that is
// nowhere, a bad option); CLI_FAILED: a plugin is. What a plugin does not find (SV_E_NOT_FOUND), as
// a model's file, is a warning: it may be there when it is served. The first failure's text is in
// *err, and what concerns the file in f->report.
int check_options(struct conf_file *f, const char *plugins_dir, bool deep, struct err *err);
// Everything in the report on stderr, or `err` when there is nothing. CLI_USAGE.
int check_print(const struct conf_file *f, const struct err *err);
