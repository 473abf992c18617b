// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * resolve - puts what lies outside of a file into its tree: ${ENV} and file: references.
 *
 * ${NAME}           the environment variable; unset or empty is an error
 * ${NAME:-default}  with a default for unset or empty
 * $${               a literal ${
 * file:PATH         where `files` is true and the whole text is such a reference: the file's
 * content without one newline at its end. PATH is relative to the folder of the YAML file. Kind a
 * plain scalar is typed after the replacement (port: ${PORT}); a quoted one stays a text. Secret a
 * node whose text was replaced is marked; dumps and messages don't show it. Bounds RESOLVE_FILE_MAX
 * bytes a file, RESOLVE_TEXT_MAX bytes of a text, YAML_TEXT_MAX in all. Thread   one at a time;
 * reads the environment.
 */
#include "conf/yaml.h"

enum { RESOLVE_FILE_MAX = 64 << 10, RESOLVE_TEXT_MAX = 128 << 10 };

struct resolve {
    struct report *report; // borrowed
    const char *dir;       // of the YAML file; "" = the current one
    size_t bytes;          // used so far
};

// Every scalar below `node`; keys are left alone. What is wrong goes into the report.
void resolve_env(struct resolve *r, struct yaml_node *node);
void resolve_files(struct resolve *r, struct yaml_node *node);
