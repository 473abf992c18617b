// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * api - what the admin API answers. Paths and bodies below /api/serve/ are Ray Serve's.
 *
 *   PUT    /api/serve/applications/        one acceptance of a config, Ray's or a file's; 200 once
 * it is in force and durable GET    /api/serve/applications/        Ray's ServeInstanceDetails
 * (api_details.h) DELETE /api/serve/applications/        all applications go, the server stays
 *   DELETE /api/serve/applications/NAME    ours: one of them
 *   POST   /api/serve/dry-run              ours: what a PUT of this body would change
 *   POST   /api/upgrade                    ours, on the socket alone: {"path": binary}
 *   GET    /status                         the whole state as JSON (status.h)
 *   GET    /healthz                        200 "ok"
 *
 * A PUT and a dry-run take in their query `path`, the absolute path that names the body in messages
 * and whose folder relative paths in it begin at. http_options of a body hold from the next start
 * of the server on, and are checked then.
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
