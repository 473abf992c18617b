// SPDX-License-Identifier: Apache-2.0
#include "control/api_gate.h"

#include "base/check.h"
#include "base/err.h"
#include "conf/app.h"

#include <stddef.h>
#include <string.h>
#include <strings.h>

enum { HOST_MAX = 63 }; // bytes of a loopback address or localhost, generously

static const struct {
    const char *type;
    enum api_body body;
} types[] = {{"application/json", API_BODY_JSON},
             {"application/yaml", API_BODY_YAML},
             {"application/x-yaml", API_BODY_YAML},
             {"text/yaml", API_BODY_YAML}};

static bool is_port(const char *s)
{
    size_t n = strspn(s, "0123456789");
    return n >= 1 && n <= 5 && s[n] == '\0';
}

bool api_gate_host(const char *host)
{
    char name[HOST_MAX + 1];
    bool bracket = *host == '[';
    const char *from = host + bracket;
    size_t n = strcspn(from, bracket ? "]" : ":");
    const char *rest = from + n;
    if (n > HOST_MAX || (bracket && *rest++ != ']'))
        return false;
    if (*rest && (*rest != ':' || !is_port(rest + 1)))
        return false;
    memcpy(name, from, n);
    name[n] = '\0';
    if (bracket != (strchr(name, ':') != NULL)) // [127.0.0.1] is nothing
        return false;
    return strcasecmp(name, "localhost") == 0 || conf_is_loopback(name);
}

static bool allows_origin(const char *origin)
{
    static const char *const schemes[] = {"http://", "https://"};
    for (size_t i = 0; i < ARRAY_LEN(schemes); i++)
        if (strncasecmp(origin, schemes[i], strlen(schemes[i])) == 0)
            return api_gate_host(origin + strlen(schemes[i]));
    return false;
}

static enum api_body body_of(const char *type)
{
    size_t n = strcspn(type, "; \t");
    for (size_t i = 0; i < ARRAY_LEN(types); i++)
        if (strlen(types[i].type) == n && strncasecmp(types[i].type, type, n) == 0)
            return types[i].body;
    return API_BODY_NONE;
}

static bool brings_body(const char *method)
{
    return strcmp(method, "PUT") == 0 || strcmp(method, "POST") == 0 ||
           strcmp(method, "PATCH") == 0;
}

int api_gate(const struct api_caller *who, enum api_body *ret_body, struct err *err)
{
    if (who->tcp && !api_gate_host(who->host))
        return err_set(err, -403,
                       "the Host '%.64s' is not this machine's loopback; ask localhost, 127.0.0.1 "
                       "or [::1]",
                       who->host);
    if (who->tcp && who->origin && !allows_origin(who->origin))
        return err_set(err, -403, "requests of web pages of '%.64s' are not taken", who->origin);
    enum api_body body = API_BODY_NONE;
    if (brings_body(who->method)) {
        body = body_of(who->content_type);
        if (body == API_BODY_NONE || (who->tcp && body != API_BODY_JSON))
            return err_set(err, -415, "the content type '%.64s' is not taken; send %s",
                           who->content_type,
                           who->tcp ? "application/json" : "application/json or application/yaml");
    }
    *ret_body = body;
    return 0;
}
