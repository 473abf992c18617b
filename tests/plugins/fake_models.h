// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * fake_models - what the fake offers as sv.models/1. Its option `models: A,B` names model A, also
 * called B; without it there are none. Included by fake.c alone.
 */
#include "models.h"

enum { FAKE_NAMES = 1024 }; // bytes of the option

static char fake_names[FAKE_NAMES]; // each ended by NUL
static uint32_t fake_n_names;

static void fake_models_create(const sv_host *h, const sv_cfg *cfg)
{
    snprintf(fake_names, sizeof fake_names, "%s", h->cfg_str(cfg, "models", ""));
    fake_n_names = fake_names[0] != '\0';
    for (char *c = strchr(fake_names, ','); c; c = strchr(c + 1, ',')) {
        *c = '\0';
        fake_n_names++;
    }
}

static uint32_t fake_models_count(void *self)
{
    (void)self;
    return fake_n_names;
}

static int fake_models_get(void *self, uint32_t i, sv_model *ret)
{
    (void)self;
    const char *name = fake_names;
    for (; i > 0; i--)
        name += strlen(name) + 1;
    *ret = (sv_model){.size = ret->size, .id = name, .root = "/models/fake"};
    ret->alias_of = name == fake_names ? NULL : fake_names;
    return SV_OK;
}

static const void *fake_extension(const char *id)
{
    static const sv_models models = {
        .size = sizeof models, .count = fake_models_count, .get = fake_models_get};
    return strcmp(id, SV_MODELS) == 0 ? &models : NULL;
}
