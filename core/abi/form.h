// SPDX-License-Identifier: Apache-2.0
/*
 * form.h - extension "sv.form/1": the parts of a form body, multipart/form-data (RFC 7578) or
 * application/x-www-form-urlencoded.
 *
 *     const sv_form *f = (const sv_form *)h->extension(h, SV_FORM);     // in create(); NULL: none
 *     const char *why;
 *     int n = f->parse(r, &why);
 *     if (n < 0)
 *         return sv_fail(r, n, "%s", why);
 *     const sv_part *audio = f->find(r, "file");
 *
 * Owner   parts and all they point to are the request's: they go with its end().
 * Data    multipart: views into sv_req.body, not ended by NUL. Urlencoded: decoded copies.
 *         Names, file names and types are copies ended by NUL, in the bytes the client sent.
 * Bounds  SV_FORM_PARTS parts, SV_FORM_HEADER bytes of header a part; data is bounded by the body.
 * Thread  [any], like every function of a request.
 */
#ifndef SV_FORM_H
#define SV_FORM_H

#include "plugin.h"

#define SV_FORM "sv.form/1"

enum {
    SV_FORM_PARTS = 256,  // parts of one body
    SV_FORM_HEADER = 4096 // bytes of the header lines of one part
};

typedef struct sv_part {
    uint32_t size, flags;     // flags: none yet
    const char *name;         // "" without
    const char *file_name;    // NULL: not a file
    const char *content_type; // "" without
    const void *data;
    size_t len;
} sv_part;

typedef struct sv_form {
    uint32_t size, flags; // flags: none yet
    // Number of parts, or < 0 with a static text in *why: SV_E_INVALID a broken body,
    // SV_E_TOO_LARGE over a bound, -415 neither of the two types or a body that streams in. Parsed
    // once; a second call gives the same answer.
    int (*parse)(sv_req *, const char **why);
    // The i-th part in the order of the body; NULL past the end or before parse().
    const sv_part *(*part)(const sv_req *, uint32_t i);
    // The first part of that name, NULL without.
    const sv_part *(*find)(const sv_req *, const char *name);
} sv_form;
#endif
