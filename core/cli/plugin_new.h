// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * plugin_new - `salver plugin new NAME [DIR]`: a folder with a plugin that works, to start from.
 *
 * Writes NAME.c, CMakeLists.txt, test_NAME.py and README.md from core/cli/template/, with NAME put
 * in for @name@. Creates DIR; an existing DIR must hold none of the four.
 * Bounds  NAME: PLUGIN_NEW_NAME_MAX bytes of a-z, 0-9 and _, a letter first.
 */
struct err;

enum { PLUGIN_NEW_NAME_MAX = 40 };

// dir NULL: a folder called NAME here. SV_E_INVALID: a bad name, or a file is in the way; then
// nothing was written.
int plugin_new(const char *name, const char *dir, struct err *err);
