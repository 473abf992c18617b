// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * tables - the keys of a configuration file: one table for each struct of app.h.
 */
#include "conf/field.h"

extern const struct field_table conf_root_table, conf_http_table, conf_app_table,
    conf_deployment_table;
