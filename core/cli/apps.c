// SPDX-License-Identifier: Apache-2.0
#include "cli/apps.h"

#include "abi/plugin.h"
#include "base/err.h"

#include <cjson/cJSON.h>

#include <stddef.h>

cJSON *apps_get(struct ask_server *s, struct err *err)
{
    struct buf body = {0};
    if (ask(s, &(struct ask_request){.method = "GET", .path = APPS_PATH}, &body, err) < 0)
        return NULL;
    cJSON *j = cJSON_ParseWithLength(buf_head(&body), buf_len(&body));
    cJSON *apps = cJSON_DetachItemFromObjectCaseSensitive(j, "applications");
    cJSON_Delete(j);
    buf_finish(&body);
    if (!cJSON_IsObject(apps)) {
        cJSON_Delete(apps);
        err_set(err, SV_E_UNAVAILABLE, "the server's answer does not list its applications");
        return NULL;
    }
    return apps;
}
