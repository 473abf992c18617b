// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * api - what the admin API answers. Paths and bodies below /api/serve/ are Ray Serve's.
 *
 *   GET    /status                         the whole state as JSON (status.h)
 *   GET    /healthz                        200 "ok"
 *
 * A path may end with one more slash. Errors have the form of http_error_json.
 *
 * Bounds  a body has CONF_FILE_MAX bytes; who may ask is api_gate's matter
 * Thread  control's loop; every answer is complete when it is given
 */
#include "http/http.h"

struct control;

struct api { // the handler's ctx
    struct control *control;
    bool tcp;
};

extern const struct http_handler api_handler;
