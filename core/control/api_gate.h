// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * api_gate - who may speak to the admin API, decided from a request's head alone.
 *
 * On the Unix socket (0600): this user, with JSON or YAML. On TCP everything that runs on this
 * machine, web pages in its browsers included; these are kept out by three rules (DNS rebinding and
 * cross-site requests, as in Ray's CVE-2025-62593):
 *
 *   Host           localhost or a loopback address as a literal, with or without a port: a page of
 *                  another name that resolves to 127.0.0.1 sends its own name. Else 403
 *   Origin         absent, or http(s):// and such a host. Else 403
 *   Content-Type   of a body application/json: a form cannot send it, a script must ask first, and
 *                  nothing here answers that question. Else 415
 *
 * Pure    no I/O, no allocation.
 */
#include <stdbool.h>

struct err;

struct api_caller {
    bool tcp;
    const char *method, *host, *content_type; // "" = absent
    const char *origin;                       // NULL = absent
};

enum api_body { API_BODY_NONE, API_BODY_JSON, API_BODY_YAML };

// 0 with the kind of body that the method brings (GET, HEAD and DELETE: none); or -403, -415.
int api_gate(const struct api_caller *who, enum api_body *ret_body, struct err *err);

bool api_gate_host(const char *host); // the rule for Host
