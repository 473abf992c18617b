// SPDX-License-Identifier: Apache-2.0
/*
 * What becomes of a connection in time: clients that leave, dawdle or do not read, pauses, and how
 * a server that drains or ends takes leave of its connections.
 */
#include "http_conn_world.h"

static const char wait_request[] = "GET /wait HTTP/1.1\r\n" END;

static void gone_while_waiting(void **state)
{
    (void)state;
    struct world w;
    world_open(&w, &http_limits_default);
    say(&w, wait_request, strlen(wait_request));
    assert_non_null(w.held);
    close(w.fd);
    w.fd = -1;
    for (int i = 0; i < 3; i++)
        uv_run(&w.loop, UV_RUN_NOWAIT);
    assert_int_equal(w.gone, 1);
    assert_int_equal(w.why, GONE_CLOSED);
    world_close(&w);
}

static void half_close_is_gone(void **state)
{
    (void)state;
    struct world w;
    world_open(&w, &http_limits_default);
    say(&w, wait_request, strlen(wait_request));
    shutdown(w.fd, SHUT_WR);
    pump(&w);
    assert_int_equal(w.gone, 1);
    world_close(&w);
}

// Nothing is read (the holder paused), the socket is full of unread bytes, and still it shows.
static void gone_while_paused(void **state)
{
    (void)state;
    static char block[1 << 16];
    struct world w;
    world_open(&w, &http_limits_default);
    const char head[] = "POST /streampause HTTP/1.1\r\nContent-Length: 10000000\r\n" END;
    say(&w, head, strlen(head));
    for (int i = 0; i < 100; i++) {
        ssize_t rc = send(w.fd, block, sizeof block, MSG_DONTWAIT | MSG_NOSIGNAL);
        pump(&w);
        if (rc < 0 && errno == EAGAIN && w.paused)
            break;
    }
    assert_true(w.paused);
    assert_true(w.streamed <= HTTP_SCRATCH);
    assert_int_equal(w.gone, 0);
    close(w.fd);
    w.fd = -1;
    for (int i = 0; i < 3; i++)
        uv_run(&w.loop, UV_RUN_NOWAIT);
    assert_int_equal(w.gone, 1);
    world_close(&w);
}

static void pause_and_resume(void **state)
{
    (void)state;
    static char block[300000];
    struct world w;
    world_open(&w, &http_limits_default);
    const char head[] = "POST /streampause HTTP/1.1\r\nContent-Length: 300000\r\n" END;
    say(&w, head, strlen(head));
    size_t sent = 0;
    for (int i = 0; i < 1000 && w.streamed < sizeof block; i++) {
        ssize_t rc = send(w.fd, block + sent, sizeof block - sent, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (rc > 0)
            sent += (size_t)rc;
        pump(&w);
        if (w.paused) {
            w.paused = false;
            http_read_resume(w.held);
        }
    }
    assert_int_equal(w.streamed, sizeof block);
    world_close(&w);
}

// Large ones are received where they stay, and leave from there. What was collected counts as
// buffered until the answer is complete.
static void watched_large(void **state)
{
    (void)state;
    static char block[300000];
    for (int at_end = 0; at_end < 2; at_end++) {
        struct world w;
        world_open(&w, &http_limits_default);
        memset(block, 'b', sizeof block);
        block[at_end ? sizeof block - 1 : sizeof block / 2] = 'S';
        const char head[] = "POST /watch HTTP/1.1\r\nContent-Length: 300000\r\n" END;
        say(&w, head, strlen(head));
        say(&w, block, sizeof block / 2);
        assert_int_equal(w.streamed, 0);
        assert_int_equal(w.server->buffered, sizeof block / 2);
        say(&w, block + sizeof block / 2, sizeof block / 2 - 1);
        assert_int_equal(w.streamed, at_end ? 0 : sizeof block - 1);
        assert_true(w.server->buffered >= sizeof block / 2);
        say(&w, block + sizeof block - 1, 1);
        pump(&w);
        assert_int_equal(w.streamed, sizeof block);
        assert_int_equal(w.server->buffered, 0);
        world_close(&w);
    }
}

static void run_for(struct world *w, unsigned ms)
{
    for (unsigned t = 0; t < ms; t += 10) {
        nanosleep(&(struct timespec){.tv_nsec = 10 * 1000 * 1000}, NULL);
        uv_run(&w->loop, UV_RUN_NOWAIT);
        uv_run(&w->loop, UV_RUN_NOWAIT);
    }
}

static void run_until(struct world *w, const int *flag)
{
    for (int i = 0; i < 1000 && !*flag; i++)
        run_for(w, 10);
}

static void slow_reader_is_cut(void **state)
{
    (void)state;
    static char block[1 << 20];
    struct http_limits limits = http_limits_default;
    limits.write_timeout_s = 0.2;
    struct world w;
    world_open(&w, &limits);
    say(&w, wait_request, strlen(wait_request));
    struct http_msg *m = w.held;
    http_reply_head(m, 200, NULL, -1, NULL);
    for (int i = 0; i < 8; i++)
        http_reply_body(m, block, sizeof block);
    assert_true(http_reply_pending(m) > 4u << 20);
    run_until(&w, &w.gone);
    assert_int_equal(w.gone, 1);
    assert_int_equal(w.why, GONE_SLOW);
    world_close(&w);
}

// What is told by on_sent adds up, and on_drain comes once the client reads.
static void sent_and_drain(void **state)
{
    (void)state;
    static char block[100000];
    struct world w;
    world_open(&w, &http_limits_default);
    say(&w, wait_request, strlen(wait_request));
    struct http_msg *m = w.held;
    http_reply_head(m, 200, NULL, -1, NULL);
    for (int i = 0; i < 30; i++)
        http_reply_body(m, block, i % 2 ? sizeof block : 1000);
    uv_run(&w.loop, UV_RUN_NOWAIT);
    assert_true(w.sent < 15 * sizeof block);
    assert_int_equal(w.drained, 0);
    pump(&w);
    assert_int_equal(w.drained, 1);
    assert_int_equal(w.sent, 15 * sizeof block + 15 * 1000);
    assert_int_equal(http_reply_pending(m), 0);
    http_reply_end(m);
    pump(&w);
    assert_memory_equal(w.got.data + w.got.end - 5, "0\r\n\r\n", 5);
    world_close(&w);
}

static void dawdlers_are_told(void **state)
{
    (void)state;
    static const struct {
        const char *name, *input, *want;
    } cases[] = {
        {"nothing at all", "", " EOF"},
        {"half a head", "GET / HT", "408 EOF"},
        {"half a body", POST "Content-Length: 10\r\n\r\nab", "408 EOF"},
        {"half a chunk", CHUNKED "5\r\nab", "408 EOF"},
        {"idle between requests", "GET /hi HTTP/1.1\r\n" END, "200:hi EOF"},
        {"the rest of a skipped body", "POST /reject HTTP/1.1\r\nContent-Length: 9\r\n" END "ab",
         "403 EOF"},
    };
    struct http_limits limits = http_limits_default;
    limits.header_timeout_s = limits.body_timeout_s = limits.keep_alive_timeout_s = 0.1;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct world w;
        world_open(&w, &limits);
        say(&w, cases[i].input, strlen(cases[i].input));
        for (int t = 0; t < 500 && !w.eof; t++) {
            run_for(&w, 10);
            take(&w);
        }
        char *text = normal(&w), *got = summary(text);
        if (strcmp(got, cases[i].want) != 0) {
            print_error("%s: want '%s', got '%s'\n", cases[i].name, cases[i].want, got);
            fail();
        }
        xfree(text);
        xfree(got);
        world_close(&w);
    }
}

// A client that pipelines without reading must not make the server keep its answers.
static void answers_do_not_pile_up(void **state)
{
    (void)state;
    struct world w;
    world_open(&w, &http_limits_default);
    const char one[] = "GET /hi HTTP/1.1\r\n" END;
    size_t off = 0, said = 0;
    for (int stuck = 0; stuck < 50;) {
        ssize_t rc = send(w.fd, one + off, strlen(one) - off, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (rc > 0) {
            off = (off + (size_t)rc) % strlen(one);
            said += (size_t)rc;
            stuck = 0;
        } else {
            stuck++;
        }
        uv_run(&w.loop, UV_RUN_NOWAIT);
    }
    struct http_conn *c = CONTAINER_OF(list_first(&w.server->conns), struct http_conn, node);
    assert_true(buf_len(&c->out) < 2 * HTTP_PENDING_LOW);
    assert_true(buf_len(&c->in) < 2 * HTTP_AHEAD_MAX);
    for (int i = 0; i < 1000; i++)
        pump(&w);
    size_t answers = 0;
    for (const char *s = buf_cstr(&w.got); (s = strstr(s, "\r\n\r\nhi")); s++)
        answers++;
    assert_int_equal(answers, said / strlen(one));
    world_close(&w);
}

// ---- the end of a server

static int idle_calls;
static void on_idle(void *ctx)
{
    (void)ctx;
    idle_calls++;
}

static void drain_closes_politely(void **state)
{
    (void)state;
    struct world w;
    idle_calls = 0;
    world_open(&w, &http_limits_default);
    say(&w, wait_request, strlen(wait_request));
    http_server_drain(w.server, on_idle);
    pump(&w);
    assert_int_equal(idle_calls, 0);
    http_server_close_idle(w.server); // an answer is in work: stays
    pump(&w);
    assert_int_equal(http_server_connections(w.server), 1);
    http_reply_head(w.held, 200, NULL, 0, NULL);
    http_reply_end(w.held);
    pump(&w);
    char *text = normal(&w);
    assert_string_equal(text,
                        "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n EOF");
    xfree(text);
    assert_int_equal(idle_calls, 1);
    world_close(&w);
}

static void drain_serves_the_next_of_an_idle_one(void **state)
{
    (void)state;
    struct world w;
    idle_calls = 0;
    world_open(&w, &http_limits_default);
    const char one[] = "GET /hi HTTP/1.1\r\n" END;
    say(&w, one, strlen(one));
    http_server_drain(w.server, on_idle);
    say(&w, one, strlen(one));
    char *text = normal(&w);
    assert_string_equal(text, HI "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n"
                                 "content-length: 2\r\nconnection: close\r\n\r\nhi EOF");
    xfree(text);
    assert_int_equal(idle_calls, 1);
    world_close(&w);
}

static void close_idle_spares_what_has_come(void **state)
{
    (void)state;
    struct world w;
    world_open(&w, &http_limits_default);
    const char one[] = "GET /hi HTTP/1.1\r\n" END;
    say(&w, one, strlen(one));
    http_server_drain(w.server, on_idle);
    assert_int_equal(send(w.fd, one, strlen(one), MSG_NOSIGNAL), strlen(one));
    http_server_close_idle(w.server);
    pump(&w);
    char *text = normal(&w);
    assert_string_equal(text, HI "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n"
                                 "content-length: 2\r\nconnection: close\r\n\r\nhi EOF");
    xfree(text);
    world_close(&w);
}

static void close_idle_closes_what_is_silent(void **state)
{
    (void)state;
    struct world w;
    world_open(&w, &http_limits_default);
    http_server_close_idle(w.server);
    pump(&w);
    assert_true(w.eof);
    world_close(&w);
}

static void destroy_tells_the_holder(void **state)
{
    (void)state;
    struct world w;
    world_open(&w, &http_limits_default);
    say(&w, wait_request, strlen(wait_request));
    http_server_destroy(w.server, NULL);
    assert_int_equal(w.gone, 1);
    close(w.fd);
    turn_close(&w.turn);
    uv_run(&w.loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&w.loop), 0);
    buf_finish(&w.got);
}

static void idle_connections_hold_no_buffers(void **state)
{
    (void)state;
    struct world w;
    world_open(&w, &http_limits_default);
    const char one[] = POST "Content-Length: 2\r\n\r\nab";
    say(&w, one, strlen(one));
    struct http_conn *c = CONTAINER_OF(list_first(&w.server->conns), struct http_conn, node);
    assert_null(c->x);
    assert_null(c->in.data);
    assert_null(c->out.data);
    assert_true(sizeof *c <= 4096);
    assert_int_equal(w.server->n_spare, 1);
    world_close(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gone_while_waiting),
        cmocka_unit_test(half_close_is_gone),
        cmocka_unit_test(gone_while_paused),
        cmocka_unit_test(pause_and_resume),
        cmocka_unit_test(watched_large),
        cmocka_unit_test(slow_reader_is_cut),
        cmocka_unit_test(sent_and_drain),
        cmocka_unit_test(dawdlers_are_told),
        cmocka_unit_test(answers_do_not_pile_up),
        cmocka_unit_test(drain_closes_politely),
        cmocka_unit_test(drain_serves_the_next_of_an_idle_one),
        cmocka_unit_test(close_idle_spares_what_has_come),
        cmocka_unit_test(close_idle_closes_what_is_silent),
        cmocka_unit_test(destroy_tells_the_holder),
        cmocka_unit_test(idle_connections_hold_no_buffers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
