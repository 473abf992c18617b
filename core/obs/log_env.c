// SPDX-License-Identifier: Apache-2.0
#include "obs/log.h"

#include "base/check.h"

#include <stdlib.h>
#include <string.h>

static const char *const level_names[] = {
    [LOG_DEBUG] = "debug", [LOG_INFO] = "info", [LOG_WARN] = "warning", [LOG_ERROR] = "error"};

void log_conf_from_env(struct log_conf *c)
{
    const char *text = getenv("SALVER_LOG");
    const char *colon = text ? strchr(text, ':') : NULL;
    if (!colon)
        return;
    size_t n = (size_t)(colon - text);
    if (n == 4 && strncmp(text, "json", n) == 0)
        c->json = true;
    else if (n == 4 && strncmp(text, "text", n) == 0)
        c->json = false;
    for (size_t i = 0; i < ARRAY_LEN(level_names); i++)
        if (strcmp(colon + 1, level_names[i]) == 0)
            c->level = (enum log_level)i;
}
