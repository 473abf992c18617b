// SPDX-License-Identifier: Apache-2.0
// A plugin in C++11 to C++17: a class behind the callbacks, SV_PLUGIN_FILL in the place of
// SV_PLUGIN.
#include "form.h"

#include <new>
#include <string>

namespace
{

class greeter
{
  public:
    greeter(const sv_host *host, const sv_cfg *cfg)
        : greeting_(host->cfg_str(cfg, "greeting", "hello"))
    {
    }

    void greet(sv_req *r) const
    {
        std::string text = greeting_ + ", " + r->tenant;
        sv_reply(r, "text/plain", text.data(), text.size());
    }

  private:
    std::string greeting_;
};

int create(const sv_host *host, const sv_cfg *cfg, void **self)
{
    try {
        *self = new greeter(host, cfg);
    } catch (const std::exception &e) {
        return host->fail(host, SV_E_NOMEM, e.what());
    }
    return SV_OK;
}

int run(void *self, sv_req **reqs, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        static_cast<greeter *>(self)->greet(reqs[i]);
    return SV_OK;
}

void destroy(void *self)
{
    delete static_cast<greeter *>(self);
}

const sv_option options[] = {
    {SV_STR, SV_LIVE, "greeting", "hello", 0, 0, "What to say."},
};

} // namespace

SV_PLUGIN_FILL(p)
{
    p.name = "classes";
    p.version = "1.0";
    SV_FILL_OPTIONS(p, options);
    p.create = create;
    p.run = run;
    p.destroy = destroy;
}
