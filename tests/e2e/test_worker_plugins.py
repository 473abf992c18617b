# SPDX-License-Identifier: Apache-2.0
"""A worker and a plugin that misbehaves, and the batches and threads of one that doesn't."""

import json
import signal
import threading
import time

import pytest
from clients import Raw, WebSocket, error_of
from harness import application, wait_for


def replica(server):
    return server.status()["applications"]["fake"]["deployments"]["fake"]["replicas"][0]


def last_words(server, seconds=10):
    return wait_for("last words are in status", seconds, lambda: replica(server)["last_words"])


def fake(kind="run", config=None, **deployment):
    return application("fake", f"fake_{kind}", config, **deployment)


def answer_of(server, path, **kwargs):
    return json.loads(server.get(path, **kwargs).body)


def many(server, paths):
    """Asks all at once; the answers in the order of the paths."""
    out = [None] * len(paths)

    def ask(i):
        out[i] = server.get(paths[i])

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(len(paths))]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    return out


# ---- dying -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind, callback, query",
    [
        ("run", "run", "do=segv"),
        ("step", "submit", "do=abort"),
        ("step", "step", "n=3&interval_ms=1&do=step:fpe@2"),
    ],
)
def test_last_words_name_the_callback(server, kind, callback, query):
    s = server([fake(kind)])
    pid = s.children("worker")[0].pid
    answer = s.get(f"/fake?{query}")
    assert answer.status in (200, 502)  # 200: the stream had begun
    words = last_words(s)
    assert words["pid"] == pid and words["callback"] == callback
    wait_for("another worker answers", 10, lambda: s.get("/fake").status == 200)


def test_crash_in_batch_key(server, tmp_path):
    s = server([fake(config={"do": "batch_key:segv*1", "state": str(tmp_path)})])
    assert last_words(s)["callback"] == "batch_key"


@pytest.mark.parametrize("callback", ["load", "warm"])
def test_crash_while_loading(server, tmp_path, callback):
    rules = {"do": f"{callback}:segv*1", "state": str(tmp_path)}
    s = server([fake(config=rules)])
    words = last_words(s)
    assert words["callback"] == callback and words["signal"] == signal.SIGSEGV


def test_crash_in_cancel(server):
    s = server([fake("step")])
    with Raw(s.port) as client:
        client.ask("/fake?hold=1&do=cancel:segv")
        wait_for("it is there", 5, lambda: replica(s)["num_ongoing_requests"] == 1)
    assert last_words(s)["callback"] == "cancel"


def test_stack_that_overflows(server):
    s = server([fake()])
    assert s.get("/fake?do=stack").status == 502
    words = last_words(s)
    assert words["signal"] == signal.SIGSEGV and words["callback"] == "run"


@pytest.mark.parametrize("callback", ["drain", "unload"])
def test_crash_while_leaving(server, callback):
    s = server([fake(config={"do": f"{callback}:segv"})])
    s.process.send_signal(signal.SIGTERM)
    assert s.process.wait(15) == 0


def test_fatal_replaces_at_once(server):
    s = server([fake()])
    pid = s.children("worker")[0].pid
    s.get("/fake?do=fail=-599")
    wait_for("another worker is there", 10, lambda: pid not in s.pids("worker"))
    wait_for("it answers", 10, lambda: s.get("/fake").status == 200)
    assert "ended with status 4" in replica(s)["last_error"]


# ---- hanging ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind, callback, query", [("step", "step", "do=step:hang"), ("step", "submit", "do=submit:hang")]
)
def test_stall_is_seen_and_replaced(server, kind, callback, query):
    s = server([fake(kind, stall_timeout_s=1)])
    started = time.monotonic()
    assert s.get(f"/fake?{query}").status == 502
    assert 0.9 < time.monotonic() - started < 20
    words = last_words(s)
    assert words["callback"] == callback
    assert f"stalled in {callback}() for" in replica(s)["last_error"]
    assert "stack of the stuck thread" in s.log()
    assert "fake_step.so" in s.log()


def test_run_may_be_silent_for_longer(server):
    s = server([fake(stall_timeout_s=0.5, run_timeout_s=2)])
    assert s.get("/fake?block_ms=1200").status == 200
    assert s.get("/fake?do=run:hang").status == 502
    wait_for("the reason is told", 10, lambda: "run_timeout_s" in (replica(s)["last_error"] or ""))


def test_run_is_over_when_its_deadlines_are(server):
    s = server([fake(stall_timeout_s=0.5, run_timeout_s=60)], http={"request_timeout_s": 1})
    pid = s.children("worker")[0].pid
    assert s.get("/fake?do=run:hang").status == 504
    wait_for("another worker is there", 10, lambda: pid not in s.pids("worker"))


def test_load_with_progress_may_last(server):
    rules = {"do": "load:progress=2500"}
    s = server([fake(config=rules, load_timeout_s=1)])
    assert s.get("/fake").status == 200
    assert replica(s)["restarts"] == 0


def test_load_that_hangs(server, tmp_path):
    rules = {"do": "load:hang*1", "state": str(tmp_path)}
    s = server([fake(config=rules, load_timeout_s=1)])
    assert last_words(s)["callback"] == "load"


# ---- health ----------------------------------------------------------------------------------


def test_degraded_gets_no_new_work(server):
    rules = {"do": "health:fail=1@2"}
    s = server([fake(config=rules, health_check_period_s=0.5)])
    wait_for("it is degraded", 10, lambda: "no new work for now" in s.log())
    assert s.get("/fake").status == 200, "it waits, and is answered when all is well again"
    wait_for("the log says so", 5, lambda: "health() is good again" in s.log())


def test_sick_is_replaced(server, tmp_path):
    rules = {"do": "health:fail=-500*1", "state": str(tmp_path)}
    s = server([fake(config=rules, health_check_period_s=0.5)])
    last_error = lambda: (replica(s)["last_error"] or "")
    wait_for("it was replaced", 10, lambda: "health() returned -500" in last_error())


# ---- batches and threads -----------------------------------------------------------------------


def test_batches_fill(server):
    config = {"max_batch": 8, "batch_wait_us": 200000, "max_inflight": 64}
    s = server([fake(config=config)])
    sizes = [json.loads(a.body)["batch"] for a in many(s, ["/fake"] * 16)]
    assert max(sizes) == 8
    metrics = s.metrics()
    assert metrics.sum("salver_batches_total", reason="full") >= 1
    assert metrics.sum("salver_batch_size_sum") == metrics.sum("salver_requests_given_total")


def test_keys_do_not_mix_and_costs_count(server):
    config = {"max_batch": 8, "batch_wait_us": 300000, "max_inflight": 64, "batch_sleep_ms": 50}
    s = server([fake(config=config)])
    paths = [f"/fake?key={k}&cost={c}" for k in ("a", "b") for c in (1, 3, 4)]
    for answer in many(s, paths):
        assert answer.status == 200
        assert json.loads(answer.body)["batch"] <= 3
    dear = many(s, ["/fake?cost=5"] * 4)
    assert [json.loads(a.body)["batch"] for a in dear] == [1] * 4


def test_concurrency_is_so_many_and_no_more(server):
    s = server([fake(config={"concurrency": 3, "max_batch": 1, "max_inflight": 64})])
    answers = [json.loads(a.body) for a in many(s, ["/fake?block_ms=200"] * 9)]
    assert max(a["open_max"] for a in answers) == 3


def test_answers_by_threads_and_timers(server):
    s = server([fake("step")])
    paths = ["/fake?late_ms=20", "/fake?timer_ms=20", "/fake?late_ms=1", "/fake?timer_ms=0"] * 8
    for answer in many(s, paths):
        assert answer.status == 200


# ---- what a plugin must not do ---------------------------------------------------------------

LIES = (
    "double_end send_after_end bad_code huge_code positive_code huge_text bad_text no_end bad_head "
    "bad_header late_head null_send bad_flags send_after_fin commit_alone overcommit huge_reserve"
).split()


@pytest.mark.parametrize("kind", ["run", "step"])
def test_lies_hurt_nobody(server, kind):
    s = server([fake(kind, graceful_shutdown_timeout_s=2)], http={"request_timeout_s": 2})
    pid = s.children("worker")[0].pid
    for lie in LIES:
        s.get(f"/fake?lie={lie}")
        assert s.get("/fake").status == 200, lie
    assert s.children("worker")[0].pid == pid


def test_output_becomes_log_lines(server):
    s = server([fake()])
    s.get("/fake?do=print=onstdout,err=onstderr")
    wait_for("both are in the log", 5, lambda: "onstdout" in s.log() and "onstderr" in s.log())
    assert "worker fake/fake/0" in next(x for x in s.log().splitlines() if "onstdout" in x)


def test_refused_submits_go_round_until_taken(server):
    s = server([fake("step", {"refuse_first": 3})])
    assert s.get("/fake").status == 200
    assert s.metrics().sum("salver_requests_requeued_total") >= 3


def test_refused_for_another_reason_is_the_answer(server):
    s = server([fake("step")])
    answer = s.get("/fake?refuse=-422")
    assert answer.status == 422 and error_of(answer)["type"] == "UnprocessableEntityError"


# ---- cancels ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["run", "step"])
def test_cancel_arrives(server, kind):
    s = server([fake(kind)])
    with Raw(s.port) as client:
        client.ask("/fake?hold=1")
        wait_for("it is there", 5, lambda: replica(s)["num_ongoing_requests"] == 1)
    wait_for("it was cancelled", 5, lambda: s.metrics().sum("fake_cancels_total") == 1)
    wait_for("and counted", 5, lambda: s.metrics().sum("salver_requests_cancelled_total") == 1)
    wait_for("the slot is free", 5, lambda: replica(s)["num_ongoing_requests"] == 0)


def test_cancelled_before_run_never_arrives(server):
    s = server([fake(config={"max_batch": 1, "max_inflight": 8})])
    busy = threading.Thread(target=s.get, args=("/fake?block_ms=700",))
    busy.start()
    time.sleep(0.2)
    with Raw(s.port) as client:
        client.ask("/fake?note=1")
        time.sleep(0.2)
    busy.join()
    assert answer_of(s, "/fake")["requests"] == 2 + 1  # the first GET of wait_ready, busy, this one


def test_a_plugin_that_ignores_cancels_keeps_its_slot(server):
    s = server([fake("step", {"max_inflight": 1})])
    with Raw(s.port) as client:
        client.ask("/fake?sleep_ms=1500&ignore_cancel=1")
        wait_for("it is there", 5, lambda: replica(s)["num_ongoing_requests"] == 1)
    started = time.monotonic()
    assert s.get("/fake").status == 200
    assert time.monotonic() - started > 0.5


def test_websocket_input_waits_for_resume(server):
    s = server([fake("step")])
    with WebSocket(s.port, "/fake?again_ms=20") as ws:
        for i in range(20):
            ws.send_frame(WebSocket.TEXT, b"message %d" % i)
        for i in range(20):
            assert ws.message()[1] == b"message %d" % i
