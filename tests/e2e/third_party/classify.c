// SPDX-License-Identifier: Apache-2.0
/* classify - says whether a sentence is glad or sad, by counting words. */
#include <plugin.h>

#include <ctype.h>
#include <stdlib.h>

static const char *const glad[] = {"good", "great", "happy", "love", "nice", "thanks", NULL};
static const char *const sad[] = {"angry", "awful", "bad", "hate", "sad", "terrible", NULL};

struct classify {
    double threshold;
    sv_metric *sentences;
};

static int create(const sv_host *host, const sv_cfg *cfg, void **self)
{
    struct classify *c = calloc(1, sizeof *c);
    if (!c)
        return host->fail(host, SV_E_NOMEM, "classify: no memory");
    c->threshold = host->cfg_num(cfg, "threshold", 0.2);
    c->sentences = host->metric(host, SV_COUNTER, "classified_sentences_total",
                                "Sentences classified.", NULL, 0);
    *self = c;
    return SV_OK;
}

static int hits(const char *const *list, const char *word, size_t len)
{
    for (; *list; list++)
        if (strlen(*list) == len && !memcmp(*list, word, len))
            return 1;
    return 0;
}

static double score(char *text)
{
    int words = 0, sum = 0;
    for (char *p = text; *p; p++)
        *p = isalpha((unsigned char)*p) ? (char)tolower((unsigned char)*p) : ' ';
    for (char *p = strtok(text, " "); p; p = strtok(NULL, " ")) {
        words++;
        sum += hits(glad, p, strlen(p)) - hits(sad, p, strlen(p));
    }
    return words ? (double)sum / words : 0;
}

static int run(void *self, sv_req **reqs, uint32_t n)
{
    struct classify *c = self;
    for (uint32_t i = 0; i < n; i++) {
        char text[1024], answer[96];
        if (sv_query(reqs[i], "sentence", text, sizeof text) < 0) {
            sv_fail(reqs[i], SV_E_INVALID, "give ?sentence=, up to %zu bytes", sizeof text - 1);
            continue;
        }
        double s = score(text);
        int len = snprintf(answer, sizeof answer, "{\"label\": \"%s\", \"score\": %.2f}\n",
                           s > c->threshold    ? "glad"
                           : s < -c->threshold ? "sad"
                                               : "neutral",
                           s);
        reqs[i]->host->record(c->sentences, 1);
        sv_reply(reqs[i], "application/json", answer, (size_t)len);
    }
    return SV_OK;
}

static const sv_option options[] = {
    {SV_NUM, 0, "threshold", "0.2", 0, 1, "Scores within this of 0 are neutral."},
};

SV_PLUGIN(.name = "classify", .version = "1.0", SV_OPTIONS(options), .create = create, .run = run,
          .destroy = free);
