// SPDX-License-Identifier: Apache-2.0
// Heads of any bytes, "METHOD\nHOST\nTYPE\nORIGIN": over TCP only those are let in that name
// loopback, bring JSON or nothing, and come of no other site.
#include "base/check.h"
#include "base/err.h"
#include "control/api_gate.h"

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

enum { LINES = 4, TEXT_MAX = 1024 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

// Written the other way round than the code: a port off the end, then a short list of forms.
static bool names_loopback(const char *host)
{
    char name[TEXT_MAX];
    memcpy(name, host, strlen(host) + 1);
    char *colon = strrchr(name, ':'), *bracket = strrchr(name, ']');
    if (colon && colon > bracket)
        *colon = '\0';
    unsigned a, b, c, d;
    char rest;
    return strcasecmp(name, "localhost") == 0 || strcmp(name, "[::1]") == 0 ||
           (name[0] == '[' && strchr(name, ':')) || // another way to write ::1
           (sscanf(name, "%u.%u.%u.%u%c", &a, &b, &c, &d, &rest) == 4 && a == 127);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char text[TEXT_MAX] = "", *line[LINES];
    size_t n = size < TEXT_MAX - 1 ? size : TEXT_MAX - 1;
    memcpy(text, data, n);
    char *at = text;
    for (int i = 0; i < LINES; i++) {
        line[i] = at;
        at += strcspn(at, "\n");
        if (*at)
            *at++ = '\0';
    }
    for (int tcp = 0; tcp < 2; tcp++) {
        const struct api_caller who = {.tcp = tcp,
                                       .method = line[0],
                                       .host = line[1],
                                       .content_type = line[2],
                                       .origin = *line[3] ? line[3] : NULL};
        enum api_body body = API_BODY_NONE;
        struct err err = {0};
        int rc = api_gate(&who, &body, &err);
        CHECK(rc == err.code && (rc < 0) == (*err.msg != '\0'));
        CHECK(rc == 0 || rc == -403 || rc == -415);
        if (!tcp || rc < 0)
            continue;
        CHECK(names_loopback(who.host) && body != API_BODY_YAML);
        CHECK(!who.origin || names_loopback(strstr(who.origin, "://") + 3));
    }
    return 0;
}
