// SPDX-License-Identifier: Apache-2.0
// One URL: requests that go by the model that their body names.
#include "base/check.h"
#include "serve_world.h"

static const char *x_knowers = ""; // members of the model `x` more, of every application

static void put_app(struct buf *b, const char *name, const char *prefix, const char *models,
                    const char *members)
{
    buf_printf(b,
               "{\"name\":\"%s\",\"deployment\":\"d\",\"route_prefix\":%s,\"workers\":[\"%s/d/"
               "0\",\"%s/d/1\"],"
               "\"max_ongoing_requests\":8,\"max_response_buffer_bytes\":4194304,"
               "\"graceful_shutdown_timeout_s\":2,\"max_queued_bytes\":100000000,"
               "\"max_queued_requests\":2,\"queue_gauge\":null,\"models\":[",
               name, prefix, name, name);
    for (const char *m = models; *m; m++)
        buf_printf(b,
                   "%s{\"id\":\"%c\",\"root\":\"/m\",\"max_model_len\":0,\"created\":1700000000%s}",
                   m == models ? "" : ",", *m, *m == 'x' ? x_knowers : "");
    buf_printf(b, "],\"retry_safe\":false,%s}", members);
}

#define USUAL                                                                                      \
    "\"stream_in\":false,\"max_body_bytes\":1048576,\"status\":\"RUNNING\",\"message\":\"\""
#define SMALL "\"stream_in\":false,\"max_body_bytes\":100,\"status\":\"RUNNING\",\"message\":\"\""
#define STREAMS                                                                                    \
    "\"stream_in\":true,\"max_body_bytes\":1048576,\"status\":\"RUNNING\",\"message\":\"\""
#define BROKEN                                                                                     \
    "\"stream_in\":false,\"max_body_bytes\":1048576,\"status\":\"DEPLOY_FAILED\",\"message\":"     \
    "\"no such file\""

struct app {
    const char *name, *prefix, *models, *members;
};

static void say_apps(const struct app *apps, size_t n)
{
    struct buf b = {0};
    buf_puts(&b, "{\"version\":2,\"apps\":[");
    for (size_t i = 0; i < n; i++) {
        buf_puts(&b, i ? "," : "");
        put_app(&b, apps[i].name, apps[i].prefix, apps[i].models, apps[i].members);
    }
    buf_puts(&b, "]}");
    SAY(&w.control, snapshot, 0, 0, .version = 2, .json = {buf_head(&b), buf_len(&b)});
    buf_finish(&b);
    answer(get("/-/healthz"), NULL); // control's frames may still be on their way
    usleep(20000);
}

static void attach_to(int i, const char *name)
{
    static uint64_t child_id = 500;
    attach(&w.worker[i], ROLE_WORKER, name, ++child_id, &w.page[i]);
    atomic_store(&w.page[i]->state, WS_READY);
    SAY(&w.worker[i], state, 0, 0, .state = WS_READY, .text = "");
    grant(i, 8);
}

// Application a without a prefix names x and y, b at /b names z; a has worker 0, b worker 1.
static void begin_two(const char *b_members)
{
    begin(NULL, NULL, true);
    const struct app apps[] = {{"a", "null", "xy", USUAL}, {"b", "\"/b\"", "z", b_members}};
    say_apps(apps, 2);
    attach_to(0, "a/d/0");
    attach_to(1, "b/d/0");
}

static int post_type(const char *path, const char *type, const char *body)
{
    static char text[65536];
    snprintf(text, sizeof text,
             "POST %s HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: %s\r\n"
             "content-length: %zu\r\n\r\n%s",
             path, type, strlen(body), body);
    return client(text);
}

static int post(const char *path, const char *body)
{
    return post_type(path, "application/json", body);
}

// The request comes to this worker, with this path, whole.
static void expect_at(int worker, int fd, const char *path, const char *body)
{
    uint64_t id;
    struct wire_submit s = expect_submit(&w.worker[worker], &id);
    assert_string_equal(s.path, path);
    if (body) {
        assert_int_equal(s.body.n, strlen(body));
        assert_memory_equal(s.body.p, body, s.body.n);
    }
    say_ok(worker, id, "done");
    assert_has(answer(fd, NULL), "done");
    grant(worker, 1);
}

static void by_name(void **state)
{
    (void)state;
    begin_two(USUAL);
    static const struct {
        const char *path, *body;
        int worker;
    } rows[] = {
        {"/v1/chat/completions", "{\"model\":\"x\",\"n\":1}", 0},
        {"/v1/completions", "{\"n\":{\"model\":\"z\"},\"model\":\"y\"}", 0},
        {"/v1/embeddings", "{\"model\":\"x\",\"model\":\"z\"}", 1},
        {"/tokenize", "{\"model\":\"z\"}", 1},
        {"/detokenize", "{\"model\":\"\\u0079\"}", 0},
        {"/v1/anything/at/all", "{\"model\":\"z\"}", 1},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        expect_at(rows[i].worker, post(rows[i].path, rows[i].body), rows[i].path, rows[i].body);
    const char *form =
        "--B\r\nContent-Disposition: form-data; name=\"file\"\r\n\r\n{\"model\":"
        "\"x\"}\r\n--B\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nz\r\n"
        "--B--\r\n";
    expect_at(1, post_type("/v1/audio/transcriptions", "multipart/form-data; boundary=B", form),
              "/v1/audio/transcriptions", form);
    // A longer prefix wins over the name, and takes its own path.
    expect_at(1, post("/b/v1/completions", "{\"model\":\"x\"}"), "/v1/completions", NULL);
}

// Pieces, one after the other, in turns of their own.
static void in_pieces(void **state)
{
    (void)state;
    begin_two(USUAL);
    const char *body = "{\"x\":\"\\\\\\\"\",\"model\":\"z\"}";
    char head[128];
    snprintf(head, sizeof head,
             "POST /v1/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\n"
             "content-length: %zu\r\n\r\n",
             strlen(body));
    int fd = client(head);
    for (size_t i = 0; i < strlen(body); i++) {
        assert_int_equal(send(fd, body + i, 1, 0), 1);
        usleep(1000);
    }
    expect_at(1, fd, "/v1/completions", body);
    fd = client("POST /v1/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\n"
                "transfer-encoding: chunked\r\n\r\n9\r\n{\"model\":\r\n4\r\n\"y\"}\r\n0\r\n\r\n");
    expect_at(0, fd, "/v1/completions", "{\"model\":\"y\"}");
}

// 900 KiB before the name: most of it is received where it stays.
static void name_last(void **state)
{
    (void)state;
    begin_two(USUAL);
    enum { N = 900000 };
    static char body[N + 1];
    memset(body, 'p', N);
    memcpy(body, "{\"prompt\":\"", 11);
    memcpy(body + N - 14, "\",\"model\":\"z\"}", 15);
    char head[128];
    snprintf(head, sizeof head,
             "POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %zu"
             "\r\n\r\n",
             strlen(body));
    int fd = client(head);
    for (size_t at = 0, n = strlen(body); at < n;)
        at += (size_t)send(fd, body + at, n - at, 0);
    uint64_t id;
    struct wire_submit s = expect_submit(&w.worker[1], &id);
    assert_int_equal(s.body_len, strlen(body));
    say_ok(1, id, "done");
    answer(fd, "done");
    close(fd);
}

static void nobody(void **state)
{
    (void)state;
    begin_two(USUAL);
    const char *text = answer(post("/v1/completions", "{\"model\":\"q\\\"\"}"), NULL);
    assert_has(text, "HTTP/1.1 404");
    assert_has(text,
               "{\"error\":{\"message\":\"The model `q\\\"` does not exist. Known models: "
               "`x`, `y`, `z`\",\"type\":\"NotFoundError\",\"param\":\"model\",\"code\":404}}");
    text = answer(post("/v1/completions", "{\"prompt\":\"a\"}"), NULL);
    assert_has(text, "HTTP/1.1 400");
    assert_has(text, "A `model` is needed here. Known models: `x`, `y`, `z`");
    assert_has(text, "\"type\":\"BadRequestError\",\"param\":\"model\"");
    assert_has(answer(post("/v1/completions", "no json"), NULL), "HTTP/1.1 400");
    assert_has(answer(get("/v1/responses/1"), NULL), "HTTP/1.1 400");
    assert_has(answer(post("/other", "{\"model\":\"x\"}"), NULL), "HTTP/1.1 404");
    assert_has(answer(post("/v1", "{\"model\":\"x\"}"), NULL), "Path '/v1' not found");
    // What can't become right is refused before it is whole.
    int fd = client("POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n"
                    "{\"model\":\"q\"}");
    assert_has(answer(fd, "404"), "HTTP/1.1 404");
    close(fd);
    text = answer(get("/metrics"), NULL);
    assert_has(text, "outcome=\"not_found\",code=\"404\"}");
}

static void defaults(void **state)
{
    (void)state;
    begin(NULL, NULL, true);
    // The only one with models.
    const struct app only[] = {{"a", "null", "xy", USUAL}, {"b", "\"/b\"", "", USUAL}};
    say_apps(only, 2);
    attach_to(0, "a/d/0");
    attach_to(1, "b/d/0");
    expect_at(0, post("/v1/completions", "{}"), "/v1/completions", "{}");
    expect_at(0, get("/v1/responses/7"), "/v1/responses/7", NULL);
    assert_has(answer(post("/v1/completions", "{\"model\":\"q\"}"), NULL), "HTTP/1.1 404");
    // The one at /, which names none: it gets what nobody else has.
    const struct app root[] = {{"a", "null", "xy", USUAL}, {"b", "\"/\"", "", USUAL}};
    say_apps(root, 2);
    expect_at(1, post("/v1/completions", "{}"), "/v1/completions", "{}");
    expect_at(1, post("/v1/completions", "{\"model\":\"q\"}"), "/v1/completions", NULL);
    expect_at(0, post("/v1/completions", "{\"model\":\"y\"}"), "/v1/completions", NULL);
    expect_at(1, post("/else", "{\"model\":\"y\"}"), "/else", NULL);
    // The one at /, which names its own.
    const struct app names[] = {{"a", "null", "xy", USUAL}, {"b", "\"/\"", "z", USUAL}};
    say_apps(names, 2);
    expect_at(1, post("/v1/completions", "{\"model\":null}"), "/v1/completions", NULL);
    assert_has(answer(post("/v1/completions", "{\"model\":\"q\"}"), NULL), "HTTP/1.1 404");
    // A prefix that itself looks as if it went by model.
    const struct app under[] = {{"a", "null", "xy", USUAL}, {"b", "\"/v1/audio\"", "z", USUAL}};
    say_apps(under, 2);
    expect_at(1, post("/v1/audio/speech", "{\"model\":\"x\"}"), "/speech", NULL);
    expect_at(0, post("/v1/audios", "{\"model\":\"x\"}"), "/v1/audios", NULL);
    // Nobody names any: paths alone count.
    const struct app none[] = {{"a", "null", "", USUAL}, {"b", "\"/\"", "", USUAL}};
    say_apps(none, 2);
    expect_at(1, post("/v1/completions", "{\"model\":\"x\"}"), "/v1/completions", NULL);
}

static void models(void **state)
{
    (void)state;
    begin(NULL, NULL, true);
    const struct app apps[] = {{"a", "null", "xy", USUAL}, {"b", "\"/b\"", "zx", BROKEN}};
    say_apps(apps, 2);
    const char *text = answer(get("/v1/models"), NULL);
    assert_has(text, "{\"id\":\"x\"");
    assert_has(text, "{\"id\":\"y\"");
    assert_null(strstr(text, "{\"id\":\"z\""));
    assert_null(strstr(strstr(text, "{\"id\":\"x\"") + 1, "{\"id\":\"x\""));
    text = answer(get("/v1/models/y"), NULL);
    assert_has(text, "HTTP/1.1 200");
    assert_has(text, "\r\n\r\n{\"id\":\"y\",\"object\":\"model\"");
    text = answer(get("/v1/models/q"), NULL);
    assert_has(text, "HTTP/1.1 404");
    assert_has(text, "The model `q` does not exist.");
    assert_has(answer(get("/v1/models/z"), NULL), "HTTP/1.1 404");
    assert_has(answer(post("/v1/models/y", "{}"), NULL), "HTTP/1.1 405");
    expect_nothing(&w.control, WIRE_load);
    // Who asks for it all the same hears why.
    text = answer(post("/v1/completions", "{\"model\":\"z\"}"), NULL);
    assert_has(text, "HTTP/1.1 503");
    assert_has(text, "no such file");
    // With a replica of an older version it serves on.
    attach_to(1, "b/d/0");
    expect_at(1, post("/v1/completions", "{\"model\":\"z\"}"), "/v1/completions", NULL);
    assert_has(answer(get("/v1/models"), NULL), "{\"id\":\"z\"");
}

static void limits(void **state)
{
    (void)state;
    begin_two(SMALL);
    char body[200];
    snprintf(body, sizeof body, "{\"p\":\"%0120d\",\"model\":\"z\"}", 0);
    const char *text = answer(post("/v1/completions", body), NULL);
    assert_has(text, "HTTP/1.1 413");
    assert_has(text, "larger than 100 bytes (max_body_bytes)");
    body[strlen(body) - 3] = 'x';
    expect_at(0, post("/v1/completions", body), "/v1/completions", body);
    // The greatest of all is the limit while nobody is found.
    int fd = client("POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 2000000\r\n\r\n");
    assert_has(answer(fd, "413"), "max_body_bytes");
    close(fd);
}

// A body for an application that takes it in pieces goes on once the name is there.
static void streamed(void **state)
{
    (void)state;
    begin_two(STREAMS);
    int fd = client("POST /v1/audio HTTP/1.1\r\nhost: x\r\ncontent-length: 23\r\n\r\n{\"n\":1,");
    expect_nothing(&w.worker[1], WIRE_submit);
    assert_true(send(fd, "\"model\":\"z\",", 12, 0) == 12);
    uint64_t id;
    struct wire_submit s = expect_submit(&w.worker[1], &id);
    assert_string_equal(s.path, "/v1/audio");
    assert_true(w.worker[1].f.head.flags & WIRE_STREAM_IN);
    assert_false(w.worker[1].f.head.flags & WIRE_FIN);
    struct wire_frame *f = expect(&w.worker[1], WIRE_body);
    assert_int_equal(f->head.size, 19);
    assert_memory_equal(f->payload, "{\"n\":1,\"model\":\"z\",", 19);
    assert_true(send(fd, "\"a\"}", 4, 0) == 4);
    f = expect(&w.worker[1], WIRE_body);
    assert_memory_equal(f->payload, "\"a\"}", 4);
    while (!(f->head.flags & WIRE_FIN))
        f = expect(&w.worker[1], WIRE_body);
    say_ok(1, id, "done");
    answer(fd, "done");
    close(fd);
    // All at once.
    fd = post("/v1/audio", "{\"model\":\"z\"}");
    expect_submit(&w.worker[1], &id);
    f = expect(&w.worker[1], WIRE_body);
    assert_memory_equal(f->payload, "{\"model\":\"z\"}", 13);
    while (!(f->head.flags & WIRE_FIN))
        f = expect(&w.worker[1], WIRE_body);
    say_ok(1, id, "done");
    assert_has(answer(fd, NULL), "done");
}

// Only the end tells that it goes to one that streams: it gets the whole as pieces, with an end.
static void streamed_by_default(void **state)
{
    (void)state;
    begin(NULL, NULL, true);
    const struct app apps[] = {{"a", "\"/\"", "x", STREAMS}};
    say_apps(apps, 1);
    attach_to(0, "a/d/0");
    int fd = client("POST /v1/audio HTTP/1.1\r\nhost: x\r\nconnection: close\r\n"
                    "transfer-encoding: chunked\r\n\r\n3\r\n{\"a\r\n0\r\n\r\n");
    uint64_t id;
    expect_submit(&w.worker[0], &id);
    assert_true(w.worker[0].f.head.flags & WIRE_STREAM_IN);
    struct wire_frame *f = expect(&w.worker[0], WIRE_body);
    assert_memory_equal(f->payload, "{\"a", 3);
    while (!(f->head.flags & WIRE_FIN))
        f = expect(&w.worker[0], WIRE_body);
    say_ok(0, id, "done");
    assert_has(answer(fd, NULL), "done");
}

// Clients that leave before their name is there; a snapshot that changes who has it meanwhile.
static void in_between(void **state)
{
    (void)state;
    begin_two(USUAL);
    static const char begun[] = "POST /v1/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\n"
                                "content-length: 13\r\n\r\n{\"model\":";
    int fd = client(begun);
    usleep(20000);
    close(fd);
    fd = client(begun);
    int other = client(begun);
    usleep(20000);
    const struct app swapped[] = {{"a", "null", "z", USUAL}, {"b", "\"/b\"", "x", USUAL}};
    say_apps(swapped, 2);
    assert_true(send(fd, "\"z\"}", 4, 0) == 4);
    expect_at(0, fd, "/v1/completions", "{\"model\":\"z\"}");
    const struct app gone[] = {{"b", "\"/b\"", "", USUAL}};
    say_apps(gone, 1);
    assert_true(send(other, "\"z\"}", 4, 0) == 4);
    const char *text = answer(other, NULL);
    assert_has(text, "HTTP/1.1 404");
    assert_has(text, "The model `z` does not exist. Known models: none");
}

// Models that appear while a body for the application at / arrives.
static void appear(void **state)
{
    (void)state;
    begin(NULL, NULL, true);
    const struct app before[] = {{"a", "\"/\"", "", USUAL}};
    say_apps(before, 1);
    attach_to(0, "a/d/0");
    attach_to(1, "b/d/0");
    int fd = client("POST /v1/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\n"
                    "content-length: 13\r\n\r\n{\"model\":");
    usleep(20000);
    const struct app after[] = {{"a", "\"/\"", "", USUAL}, {"b", "\"/b\"", "z", USUAL}};
    say_apps(after, 2);
    assert_true(send(fd, "\"z\"}", 4, 0) == 4);
    expect_at(1, fd, "/v1/completions", "{\"model\":\"z\"}");
}

// While a roll gives a model another name its workers differ in what they know.
static void known_by_some(void **state)
{
    (void)state;
    begin(NULL, NULL, true);
    const struct app apps[] = {{"a", "null", "xy", USUAL}};
    x_knowers = ",\"workers\":[\"a/d/1\",\"a/d/9\"]";
    say_apps(apps, 1);
    attach_to(0, "a/d/0");
    // Alone it knows `y`, and what came by no name; `x` waits, and nothing behind it is lost.
    expect_at(0, post("/v1/completions", "{\"model\":\"y\"}"), "/v1/completions", NULL);
    expect_at(0, post("/v1/completions", "{}"), "/v1/completions", NULL);
    int waits = post("/v1/completions", "{\"model\":\"x\"}");
    expect_nothing(&w.worker[0], WIRE_submit);
    attach_to(1, "a/d/1");
    expect_at(1, waits, "/v1/completions", "{\"model\":\"x\"}");
    for (int i = 0; i < 16; i++)
        expect_at(1, post("/v1/completions", "{\"model\":\"x\"}"), "/v1/completions", NULL);
    // All know it again, those with it are gone.
    x_knowers = "";
    waits = post("/v1/completions", "{\"model\":\"x\"}");
    uint64_t id;
    expect_submit(&w.worker[1], &id);
    say_apps(apps, 1);
    close_end(&w.worker[1]);
    expect_at(0, waits, "/v1/completions", "{\"model\":\"x\"}"); // it was not given yet
    expect_at(0, post("/v1/completions", "{\"model\":\"x\"}"), "/v1/completions", NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(by_name, finish),
        cmocka_unit_test_teardown(in_pieces, finish),
        cmocka_unit_test_teardown(name_last, finish),
        cmocka_unit_test_teardown(nobody, finish),
        cmocka_unit_test_teardown(defaults, finish),
        cmocka_unit_test_teardown(models, finish),
        cmocka_unit_test_teardown(limits, finish),
        cmocka_unit_test_teardown(streamed, finish),
        cmocka_unit_test_teardown(streamed_by_default, finish),
        cmocka_unit_test_teardown(in_between, finish),
        cmocka_unit_test_teardown(appear, finish),
        cmocka_unit_test_teardown(known_by_some, finish),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
