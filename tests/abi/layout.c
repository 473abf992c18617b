// SPDX-License-Identifier: Apache-2.0
/*
 * The layout of ABI 1.0 on LP64, in numbers. A later minor adds lines for what it appended and a
 * new size; it never changes a line that stands here.
 */
#include "abi/form.h"
#include "abi/models.h"
#include "abi/plugin.h"

#define AT(type, field, offset)                                                                    \
    _Static_assert(offsetof(type, field) == (offset), #type "." #field " moved")
#define SIZE(type, bytes) _Static_assert(sizeof(type) == (bytes), #type " changed its size")

AT(sv_req, size, 0);
AT(sv_req, flags, 4);
AT(sv_req, host, 8);
AT(sv_req, id, 16);
AT(sv_req, method, 24);
AT(sv_req, path, 32);
AT(sv_req, query, 40);
AT(sv_req, content_type, 48);
AT(sv_req, body, 56);
AT(sv_req, body_len, 64);
AT(sv_req, deadline_ns, 72);
AT(sv_req, priority, 80);
AT(sv_req, attempt, 84);
AT(sv_req, tenant, 88);
AT(sv_req, user, 96);
SIZE(sv_req, 104);

AT(sv_device, size, 0);
AT(sv_device, kind, 4);
AT(sv_device, index, 8);
AT(sv_device, numa, 12);
AT(sv_device, bytes, 16);
AT(sv_device, bytes_limit, 24);
AT(sv_device, uuid, 32);
AT(sv_device, name, 40);
SIZE(sv_device, 48);

AT(sv_place, size, 0);
AT(sv_place, n_devices, 4);
AT(sv_place, devices, 8);
AT(sv_place, rank, 16);
AT(sv_place, world, 20);
AT(sv_place, cache_dir, 24);
SIZE(sv_place, 32);

AT(sv_plan, size, 0);
AT(sv_plan, flags, 4);
AT(sv_plan, max_batch, 8);
AT(sv_plan, batch_wait_us, 12);
AT(sv_plan, concurrency, 16);
AT(sv_plan, max_inflight, 20);
AT(sv_plan, devices, 24);
AT(sv_plan, ranks, 28);
AT(sv_plan, device_bytes, 32);
AT(sv_plan, device_bytes_max, 40);
AT(sv_plan, host_bytes, 48);
SIZE(sv_plan, 56);

AT(sv_option, type, 0);
AT(sv_option, flags, 4);
AT(sv_option, name, 8);
AT(sv_option, fallback, 16);
AT(sv_option, min, 24);
AT(sv_option, max, 32);
AT(sv_option, help, 40);
SIZE(sv_option, 48);

AT(sv_host, size, 0);
AT(sv_host, abi_major, 4);
AT(sv_host, abi_minor, 6);
AT(sv_host, app, 8);
AT(sv_host, deployment, 16);
AT(sv_host, replica, 24);
AT(sv_host, core_version, 32);
AT(sv_host, plugin_dir, 40);
AT(sv_host, log, 48);
AT(sv_host, fail, 56);
AT(sv_host, cfg_str, 64);
AT(sv_host, cfg_int, 72);
AT(sv_host, cfg_num, 80);
AT(sv_host, cfg_json, 88);
AT(sv_host, header_in, 96);
AT(sv_host, head, 104);
AT(sv_host, header, 112);
AT(sv_host, send, 120);
AT(sv_host, reserve, 128);
AT(sv_host, commit, 136);
AT(sv_host, end, 144);
AT(sv_host, cancelled, 152);
AT(sv_host, resume, 160);
AT(sv_host, note, 168);
AT(sv_host, post, 176);
AT(sv_host, progress, 184);
AT(sv_host, pressure, 192);
AT(sv_host, metric, 200);
AT(sv_host, record, 208);
AT(sv_host, extension, 216);
SIZE(sv_host, 224);

AT(sv_plugin, size, 0);
AT(sv_plugin, abi_major, 4);
AT(sv_plugin, abi_minor, 6);
AT(sv_plugin, min_host_minor, 8);
AT(sv_plugin, flags, 12);
AT(sv_plugin, name, 16);
AT(sv_plugin, version, 24);
AT(sv_plugin, about, 32);
AT(sv_plugin, options, 40);
AT(sv_plugin, n_options, 48);
AT(sv_plugin, option_size, 52);
AT(sv_plugin, create, 56);
AT(sv_plugin, plan, 64);
AT(sv_plugin, load, 72);
AT(sv_plugin, warm, 80);
AT(sv_plugin, reconfigure, 88);
AT(sv_plugin, health, 96);
AT(sv_plugin, drain, 104);
AT(sv_plugin, unload, 112);
AT(sv_plugin, destroy, 120);
AT(sv_plugin, run, 128);
AT(sv_plugin, batch_key, 136);
AT(sv_plugin, submit, 144);
AT(sv_plugin, input, 152);
AT(sv_plugin, cancel, 160);
AT(sv_plugin, writable, 168);
AT(sv_plugin, step, 176);
AT(sv_plugin, extension, 184);
SIZE(sv_plugin, 192);

AT(sv_part, size, 0);
AT(sv_part, flags, 4);
AT(sv_part, name, 8);
AT(sv_part, file_name, 16);
AT(sv_part, content_type, 24);
AT(sv_part, data, 32);
AT(sv_part, len, 40);
SIZE(sv_part, 48);

AT(sv_form, size, 0);
AT(sv_form, flags, 4);
AT(sv_form, parse, 8);
AT(sv_form, part, 16);
AT(sv_form, find, 24);
SIZE(sv_form, 32);

AT(sv_model, size, 0);
AT(sv_model, max_model_len, 4);
AT(sv_model, id, 8);
AT(sv_model, root, 16);
AT(sv_model, alias_of, 24);
SIZE(sv_model, 32);

AT(sv_models, size, 0);
AT(sv_models, flags, 4);
AT(sv_models, count, 8);
AT(sv_models, get, 16);
AT(sv_models, queue_gauge, 24);
SIZE(sv_models, 32);
