// SPDX-License-Identifier: Apache-2.0
/*
 * llm_serve - load for a server of OpenAI's /v1/completions, measured as `vllm bench serve` does.
 *
 * Usage: llm_serve -p PORT -w LENGTHS.json [-H HOST] [-m MODEL] [-n REQUESTS] [-r RATE] [-c MAX]
 *                  [-v LOW-HIGH] [-s SEED] [-x SHARE] [-t TIMEOUT_S] [-S SECONDS] [-l LABEL] [-o
 * FILE]
 *
 * The requests of serve/work.h: prompts of random ids in [LOW, HIGH), greedy, ignore_eos, streamed
 * with their usage; RATE a second with Poisson gaps, all at once without one; MAX at most at a
 * time; SHARE of them is cancelled by closing the connection. A short request goes ahead of all and
 * counts nowhere. Prints the row of serve/score.h; -S: and lines for slices of so many seconds;
 * FILE gets the figures as a line of JSON. Exits 1 when a request failed. One thread; it also says
 * how busy it was, so that one sees whether it was what limits.
 */
#include "serve/answer.h"
#include "serve/score.h"
#include "serve/work.h"

#include <uv.h>

#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

enum {
    READ_BYTES = 256 << 10,
    ID_BYTES = 12,
    HEAD_BYTES = 512,
    WARM_PROMPT = 16,
    WARM_OUTPUT = 4,
    ERRORS_SHOWN = 5
};

struct client;

struct call { // one connection and the request that it carries
    uv_tcp_t tcp;
    uv_connect_t connect;
    uv_write_t write;
    struct client *client;
    struct call *next; // of client->idle
    struct answer answer;
    struct outcome *outcome; // NULL: idle or closing
    const struct job *job;
    char *request; // owned
    size_t request_len;
};

struct client {
    uv_loop_t loop;
    uv_timer_t arrival, watch;
    struct sockaddr_in address;
    struct work work;
    struct score score;
    struct call *idle;
    uint32_t sent, open, max_open;
    uint64_t timeout_ns;
    char host[64], model[256], error[ANSWER_ERROR_MAX];
    int port, errors_shown;
    char buffer[READ_BYTES];
};

static void start_due(struct client *c);

static void die(const char *what, int rc)
{
    fprintf(stderr, "llm_serve: %s: %s\n", what, uv_strerror(rc));
    exit(1);
}

static void *must(void *p)
{
    if (!p)
        die("malloc", UV_ENOMEM);
    return p;
}

/* ---- the request ---- */

static void make_request(struct call *q, uint32_t number)
{
    const struct client *c = q->client;
    char *body = must(malloc((size_t)q->job->prompt * ID_BYTES + (size_t)2 * HEAD_BYTES));
    size_t n = 0;
    body[n++] = '{';
    if (*c->model)
        n += (size_t)sprintf(body + n, "\"model\":\"%s\",", c->model);
    n += (size_t)sprintf(body + n, "\"prompt\":[");
    for (uint32_t i = 0; i < q->job->prompt; i++)
        n += (size_t)sprintf(body + n, i ? ",%d" : "%d", work_id(&c->work, number, i));
    n += (size_t)sprintf(body + n,
                         "],\"max_tokens\":%u,\"temperature\":0,\"repetition_penalty\":1.0,"
                         "\"ignore_eos\":true,\"stream\":true,"
                         "\"stream_options\":{\"include_usage\":true}}",
                         q->job->output);
    q->request = must(malloc(n + HEAD_BYTES));
    q->request_len =
        (size_t)sprintf(q->request,
                        "POST /v1/completions HTTP/1.1\r\nhost: %s:%d\r\n"
                        "content-type: application/json\r\ncontent-length: %zu\r\n\r\n",
                        c->host, c->port, n);
    memcpy(q->request + q->request_len, body, n);
    q->request_len += n;
    free(body);
}

/* ---- a call's life: connect, write, read, end ---- */

static void on_closed(uv_handle_t *h)
{
    struct call *q = h->data;
    answer_finish(&q->answer);
    free(q->request);
    free(q);
}

static void end(struct call *q, enum ended how)
{
    struct client *c = q->client;
    struct outcome *o = q->outcome;
    q->outcome = NULL;
    c->open--;
    score_end(&c->score, o, how, uv_hrtime());
    if (how == FAILED && c->errors_shown++ < ERRORS_SHOWN)
        fprintf(stderr, "llm_serve: request %td: %s\n", o - c->score.outcomes, q->answer.error);
    if (how == ANSWERED && answer_reusable(&q->answer)) {
        q->next = c->idle;
        c->idle = q;
    } else {
        uv_close((uv_handle_t *)&q->tcp, on_closed);
    }
    if (c->score.ended == c->score.n)
        uv_stop(&c->loop);
    else
        start_due(c);
}

static void fail(struct call *q, const char *what, const char *why)
{
    if (!*q->answer.error)
        snprintf(q->answer.error, sizeof q->answer.error, "%s: %s", what, why);
    end(q, FAILED);
}

static void on_choices(void *user, uint64_t now_ns)
{
    struct call *q = user;
    score_event(&q->client->score, q->outcome, now_ns);
}

static void on_written(uv_write_t *w, int rc)
{
    struct call *q = w->data;
    free(q->request);
    q->request = NULL;
    if (rc < 0 && q->outcome)
        fail(q, "write", uv_strerror(rc));
}

static void give_buffer(uv_handle_t *h, size_t hint, uv_buf_t *ret)
{
    (void)hint;
    struct call *q = h->data;
    *ret = uv_buf_init(q->client->buffer, READ_BYTES);
}

static void leave_idle(struct call *q)
{
    struct call **at = &q->client->idle;
    while (*at && *at != q)
        at = &(*at)->next;
    if (*at)
        *at = q->next;
    if (!uv_is_closing((uv_handle_t *)&q->tcp))
        uv_close((uv_handle_t *)&q->tcp, on_closed);
}

static void on_read(uv_stream_t *s, ssize_t n, const uv_buf_t *buf)
{
    struct call *q = s->data;
    if (!q->outcome) { // an idle connection: whatever comes ends it
        if (n != 0)
            leave_idle(q);
        return;
    }
    if (n < 0) {
        fail(q, "read", uv_strerror((int)n));
        return;
    }
    answer_feed(&q->answer, buf->base, (size_t)n, uv_hrtime());
    q->outcome->output = q->answer.usage;
    if (*q->answer.error)
        end(q, FAILED);
    else if (q->answer.whole)
        end(q, ANSWERED);
    else if (q->job->cancel_after && q->answer.events >= q->job->cancel_after)
        end(q, CANCELLED);
}

static void send_request(struct call *q)
{
    uv_buf_t b = uv_buf_init(q->request, (unsigned)q->request_len);
    int rc = uv_write(&q->write, (uv_stream_t *)&q->tcp, &b, 1, on_written);
    if (rc < 0)
        fail(q, "write", uv_strerror(rc));
}

static void on_connected(uv_connect_t *connect, int rc)
{
    struct call *q = connect->data;
    if (!q->outcome)
        return;
    if (rc == 0)
        rc = uv_read_start((uv_stream_t *)&q->tcp, give_buffer, on_read);
    if (rc < 0)
        fail(q, "connect", uv_strerror(rc));
    else
        send_request(q);
}

static struct call *make_call(struct client *c)
{
    struct call *q = must(calloc(1, sizeof *q));
    q->client = c;
    q->tcp.data = q->connect.data = q->write.data = q;
    uv_tcp_init(&c->loop, &q->tcp);
    uv_tcp_nodelay(&q->tcp, 1);
    return q;
}

static void start(struct client *c, uint32_t number)
{
    struct call *q = c->idle;
    if (q)
        c->idle = q->next;
    struct call *reused = q;
    if (!q)
        q = make_call(c);
    q->job = &c->work.jobs[number];
    q->outcome = &c->score.outcomes[number];
    c->open++;
    answer_init(&q->answer, on_choices, q);
    make_request(q, number);
    q->outcome->prompt = q->job->prompt;
    q->outcome->sent_ns = uv_hrtime();
    if (reused) {
        send_request(q);
        return;
    }
    int rc =
        uv_tcp_connect(&q->connect, &q->tcp, (const struct sockaddr *)&c->address, on_connected);
    if (rc < 0)
        fail(q, "connect", uv_strerror(rc));
}

/* ---- when ---- */

static void on_arrival(uv_timer_t *t)
{
    start_due(t->data);
}

// Starts what is due and has room, and sleeps until the next.
static void start_due(struct client *c)
{
    while (c->sent < c->work.n && c->open < c->max_open) {
        double due_s = c->work.jobs[c->sent].at_s,
               now_s = (double)(uv_hrtime() - c->score.begin_ns) * 1e-9;
        if (due_s > now_s) {
            uv_update_time(&c->loop);
            uv_timer_start(&c->arrival, on_arrival, (uint64_t)((due_s - now_s) * 1e3), 0);
            return;
        }
        start(c, c->sent++);
    }
}

static void fail_late(uv_handle_t *h, void *arg)
{
    struct client *c = arg;
    if (h->type != UV_TCP || uv_is_closing(h))
        return;
    struct call *q = h->data;
    if (q->outcome && uv_hrtime() - q->outcome->sent_ns > c->timeout_ns)
        fail(q, "timeout", "no end in time");
}

static void on_watch(uv_timer_t *t)
{
    struct client *c = t->data;
    uv_walk(&c->loop, fail_late, c);
}

static void run(struct client *c)
{
    score_init(&c->score, c->work.n);
    c->sent = c->open = 0;
    c->score.begin_ns = uv_hrtime();
    start_due(c);
    uv_run(&c->loop, UV_RUN_DEFAULT);
    uv_timer_stop(&c->arrival);
}

// One short request, so that nothing is measured that happens once.
static void warm(struct client *c)
{
    struct job job = {.prompt = WARM_PROMPT, .output = WARM_OUTPUT};
    struct work whole = c->work;
    c->work.jobs = &job;
    c->work.n = 1;
    c->work.seed = ~whole.seed;
    run(c);
    if (c->score.outcomes[0].ended != ANSWERED)
        exit(1);
    score_finish(&c->score);
    c->work = whole;
}

/* ---- main ---- */

struct choices {
    const char *lengths, *label, *out;
    double rate, cancels, slice_s;
    uint32_t n;
};

static uint32_t whole_number(const char *text)
{
    char *end;
    unsigned long n = strtoul(text, &end, 10);
    if (end == text || *end || n > UINT32_MAX) {
        fprintf(stderr, "llm_serve: '%s' is not a number\n", text);
        exit(2);
    }
    return (uint32_t)n;
}

static void read_options(int argc, char **argv, struct client *c, struct choices *o)
{
    int option;
    while ((option = getopt(argc, argv, "p:H:m:w:n:r:c:v:s:x:t:S:l:o:")) != -1) {
        switch (option) {
        case 'p':
            c->port = (int)whole_number(optarg);
            break;
        case 'H':
            snprintf(c->host, sizeof c->host, "%s", optarg);
            break;
        case 'm':
            snprintf(c->model, sizeof c->model, "%s", optarg);
            break;
        case 'w':
            o->lengths = optarg;
            break;
        case 'n':
            o->n = whole_number(optarg);
            break;
        case 'r':
            o->rate = strtod(optarg, NULL);
            break;
        case 'c':
            c->max_open = whole_number(optarg);
            break;
        case 'v':
            if (sscanf(optarg, "%" SCNu32 "-%" SCNu32, &c->work.low, &c->work.high) != 2)
                exit(2);
            break;
        case 's':
            c->work.seed = whole_number(optarg);
            break;
        case 'x':
            o->cancels = strtod(optarg, NULL);
            break;
        case 't':
            c->timeout_ns = whole_number(optarg) * UINT64_C(1000000000);
            break;
        case 'S':
            o->slice_s = strtod(optarg, NULL);
            break;
        case 'l':
            o->label = optarg;
            break;
        case 'o':
            o->out = optarg;
            break;
        default:
            exit(2);
        }
    }
    if (!o->lengths || !c->port || c->work.low >= c->work.high || c->max_open < 1) {
        fprintf(stderr, "usage: llm_serve -p PORT -w LENGTHS.json [...], see llm_serve.c\n");
        exit(2);
    }
}

static double cpu_s(void)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
           (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) * 1e-6;
}

static void report(const struct client *c, const struct choices *o, double busy_s)
{
    const struct score *s = &c->score;
    double whole_s = (double)(s->end_ns - s->begin_ns) * 1e-9;
    score_header(stdout);
    score_row(s, o->label, stdout);
    if (o->slice_s > 0)
        score_slices(s, o->slice_s, stdout);
    fprintf(stderr, "llm_serve: busy %.0f %% of %.1f s\n", 100 * busy_s / whole_s, whole_s);
    FILE *f = o->out ? fopen(o->out, "a") : NULL;
    if (f) {
        score_json(s, o->label, f);
        fclose(f);
    } else if (o->out) {
        perror(o->out);
        exit(1);
    }
}

static void open_client(struct client *c)
{
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    int rc = uv_ip4_addr(c->host, c->port, &c->address);
    if (rc < 0)
        die(c->host, rc);
    uv_loop_init(&c->loop);
    uv_timer_init(&c->loop, &c->arrival);
    uv_timer_init(&c->loop, &c->watch);
    c->arrival.data = c->watch.data = c;
    uv_timer_start(&c->watch, on_watch, 1000, 1000);
}

int main(int argc, char **argv)
{
    static struct client c = {.host = "127.0.0.1",
                              .max_open = UINT32_MAX,
                              .timeout_ns = UINT64_C(600000000000),
                              .work = {.low = 1000, .high = 32000, .seed = 1}};
    struct choices o = {.label = "run"};
    read_options(argc, argv, &c, &o);
    work_read(&c.work, o.lengths, o.n);
    work_arrivals(&c.work, o.rate);
    work_cancels(&c.work, o.cancels);
    open_client(&c);
    warm(&c);
    double before_s = cpu_s();
    run(&c);
    report(&c, &o, cpu_s() - before_s);
    uint32_t answered = 0;
    for (uint32_t i = 0; i < c.score.n; i++)
        answered += c.score.outcomes[i].ended == ANSWERED || c.score.outcomes[i].ended == CANCELLED;
    return answered == c.score.n ? 0 : 1;
}
