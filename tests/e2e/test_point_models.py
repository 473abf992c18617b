# SPDX-License-Identifier: Apache-2.0
"""Several models behind one URL, added and removed while all of them are asked (issue 6, point 5).
R1 to R5 are FastChat's cases for a gateway. One server for the whole module; every test deploys what
it needs."""

import collections
import json
import os
import random
import signal
import threading
import time

import pytest
from clients import Raw, WebSocket, error_of
from harness import SALVER, application, figures, quantile, request, size, wait_for
from llm import DATA, client
from rolls import APPS, app_of, pids, settled
from test_deploy_cli import salver, write

openai = pytest.importorskip("openai")

CHANGES = size(10, 60)  # an application is added, or removed
VISIBLE_S = 1.0  # after the answer to a change every ingress knows it
ASSERTED_S = size(15.0, VISIBLE_S)  # a busy machine is no fault; the figures say how long it took
GRACE_S = 1.0  # graceful_shutdown_timeout_s of those that are removed
ASK = [{"role": "user", "content": "Hello"}]


def llm(name, model, names=None, **deployment):
    config = {"model": str(DATA / model), "threads": 1, "kv_cache_bytes": 4 << 20}
    if names:
        config["served_model_name"] = names
    return {**application(name, "llm", config, **deployment), "route_prefix": None}


def fake(name, models, **deployment):
    config = {"models": models, **deployment.pop("config", {})}
    options = {"graceful_shutdown_timeout_s": GRACE_S, **deployment}
    return {**application(name, "fake_step", config, **options), "route_prefix": None}


ASLEEP = {
    "autoscaling_config": {
        "min_replicas": 0,
        "max_replicas": 1,
        "look_back_period_s": 0.5,
        "upscale_delay_s": 0,
        "downscale_delay_s": 0.2,
    }
}
STAYS = [
    llm("llama", "tiny-llama", ["llama", "llama-latest"]),
    llm("mistral", "tiny-mistral.gguf"),
    llm("qwen", "tiny-qwen3", ["qwen", "qwen-alias"], **ASLEEP),
    *(application(name, name) for name in ("echo", "wsecho")),
    application("counter", "counter", {"interval": "10ms"}),
]
COMES = [
    llm("extra", "tiny-llama3.gguf", ["extra", "extra-alias"], graceful_shutdown_timeout_s=GRACE_S),
    fake("slow", "slow"),
]
STAYING = ("llama", "llama-latest", "mistral", "qwen", "qwen-alias")


@pytest.fixture(scope="module")
def s(shared):
    ready = {app["name"]: None for app in STAYS}
    server = shared("models", STAYS, ready=ready, http={"num_ingress": 2})
    wait_for("two ingresses listen", 20, lambda: len(server.pids("ingress")) == 2)
    return server


def put(s, *applications):
    text = {**json.loads(s.file.read_text()), "applications": list(applications)}
    status, answer = s.admin("PUT", APPS, text)
    assert status == 200, answer


def deploy(s, *applications):
    done = salver(s, "deploy", write(s, *applications))
    assert done.returncode == 0, done


@pytest.fixture
def fresh(s):
    """The server with those that stay, and nobody else."""
    put(s, *STAYS)
    for app in STAYS:
        settled(s, name=app["name"])
    wait_for("the others are gone", 20, lambda: set(status_of(s)) == {a["name"] for a in STAYS})
    return s


def status_of(s):
    code, answer = s.admin("GET", "/status")
    assert code == 200, answer
    return answer["applications"]


def ids(s):
    return {card["id"] for card in json.loads(s.get("/v1/models").body)["data"]}


CHAT = "/v1/chat/completions"


def ask(s, model, path=CHAT, **more):
    chat = {"messages": ASK, "max_tokens": 2} if path == CHAT else {}
    return s.get(path, method="POST", body=json.dumps({"model": model, **chat, **more}).encode())


def listed(s, want, but=()):
    """Waits until both ingresses list these, and none of the others."""

    def there():
        return all(set(want) <= (now := ids(s)) and not set(but) & now for _ in range(8))

    wait_for(f"{want} are listed, {but} are not", 20, there)


class Poll(threading.Thread):
    """Reads /v1/models all the time, each time on a new connection, so that it hits every ingress."""

    def __init__(self, s):
        super().__init__(daemon=True)
        self.port, self.seen, self.wrong, self.done = s.port, [], [], threading.Event()

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.done.set()
        self.join(30)

    def run(self):
        while not self.done.wait(0.005):
            at = time.monotonic()
            try:
                answer = request(self.port, "/v1/models", timeout=10)
                assert answer.status == 200, answer
                self.seen.append((at, {c["id"] for c in json.loads(answer.body)["data"]}))
            except (OSError, ValueError, AssertionError) as e:
                self.wrong.append(repr(e))

    def settled_s(self, begin, end, want, but=()):
        """How long after `begin` the last list was asked for that was not as it should be."""
        late = [
            at - begin
            for at, now in list(self.seen)
            if begin <= at < end and (not set(want) <= now or set(but) & now)
        ]
        return max(late, default=0)


class Load:
    """Threads that each ask in one way, over and over; `wrong` says what did not come as it should."""

    def __init__(self, s):
        self.s, self.done, self.lock = s, threading.Event(), threading.Lock()
        self.answered, self.wrong = collections.Counter(), []
        self.openai = client(s, timeout=60)
        self.alone = {m: self.chat(m) for m in ("llama", "mistral")}
        self.alone["llama-latest"] = self.alone["llama"]
        assert len(set(self.alone.values())) == 2, "the answer says who gave it"
        ways = [self.plain, self.streamed, self.echo, self.counter, self.wsecho, self.tokenize]
        self.threads = [threading.Thread(target=self.work, args=(way,)) for way in ways]

    def __enter__(self):
        for t in self.threads:
            t.start()
        return self

    def __exit__(self, *_):
        self.done.set()
        for t in self.threads:
            t.join(60)
            assert not t.is_alive(), "a client waits for ever"

    def work(self, way):
        rng = random.Random(way.__name__)
        while not self.done.wait(0.005):
            try:
                way(rng)
                with self.lock:
                    self.answered[way.__name__] += 1
            except Exception as e:  # whatever it is, it is one that failed
                self.wrong.append(f"{way.__name__} at {time.time():.3f}: {e!r}")

    def chat(self, model):
        got = self.openai.chat.completions.create(
            model=model, messages=ASK, max_tokens=6, temperature=0
        )
        assert got.choices[0].finish_reason in ("length", "stop")
        return got.choices[0].message.content

    def plain(self, rng):
        model = rng.choice(list(self.alone))
        assert self.chat(model) == self.alone[model], model

    def streamed(self, rng):
        model = rng.choice(list(self.alone))
        chunks = list(
            self.openai.chat.completions.create(
                model=model, messages=ASK, max_tokens=6, temperature=0, stream=True
            )
        )
        text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
        assert text == self.alone[model], model
        assert chunks[-1].choices[0].finish_reason in ("length", "stop")

    def tokenize(self, rng):
        answer = ask(self.s, rng.choice(["llama", "mistral"]), "/tokenize", prompt="Hello")
        assert answer.status == 200 and json.loads(answer.body)["count"] > 0, answer

    def echo(self, rng):
        body = rng.randbytes(rng.randint(1, 3000))
        answer = self.s.get("/echo", "POST", body)
        assert answer.status == 200 and answer.body == body, answer

    def counter(self, _):
        with Raw(self.s.port, timeout=30) as c:
            c.ask("/counter?count=5")
            status, _ = c.head()
            assert status == 200 and len(list(c.events())) == 5

    def wsecho(self, rng):
        with WebSocket(self.s.port, "/wsecho") as ws:
            for i in range(5):
                text = f"{i} {rng.random()}"
                ws.send_text(text)
                assert ws.message() == (WebSocket.TEXT, text.encode())
            ws.send_close()


def staying_pids(s, sleeps=("qwen",)):
    return {
        app["name"]: sorted(pids(s, app["name"]).values())
        for app in STAYS
        if app["name"] not in sleeps
    }


# ---- R1, R4, R5: what a client sees ------------------------------------------------------------


def test_r1_r4_r5(fresh):
    api = client(fresh, timeout=60)
    assert {m.id for m in api.models.list().data} == set(STAYING)
    assert api.models.retrieve("llama-latest").id == "llama-latest"
    with Load(fresh) as load:  # R5: prefixes and a websocket beside them
        everyone = len(load.threads)
        wait_for("each was answered", 20, lambda: load.wrong or len(load.answered) == everyone)
    assert not load.wrong, load.wrong[:5]
    with pytest.raises(openai.NotFoundError) as refused:
        api.chat.completions.create(model="gpt-9", messages=ASK)
    message = refused.value.body["message"]
    assert message.startswith("The model `gpt-9` does not exist. Known models: `llama`, ")
    assert all(f"`{name}`" in message for name in STAYING), message
    with pytest.raises(openai.NotFoundError):
        api.chat.completions.create(model="gpt-9", messages=ASK, stream=True)
    with pytest.raises(openai.NotFoundError):
        api.models.retrieve("gpt-9")


# ---- R2, R3: live --------------------------------------------------------------------------------


class Open:
    """A stream of `slow` that is open while its application goes: `events` of them in all, or a
    stream that would never end by itself."""

    def __init__(self, s, events, interval_ms):
        self.raw = Raw(s.port, timeout=GRACE_S + 20)
        self.raw.ask(f"{CHAT}?n={events}&interval_ms={interval_ms}", "POST", b'{"model":"slow"}')
        self.status, self.headers = self.raw.head()
        assert self.status == 200, self.raw.file.read(300)

    def rest(self):
        with self.raw:
            return list(self.raw.events())


def check_404(answer, gone):
    assert answer.status == 404, answer
    message = error_of(answer)["message"]
    assert message.startswith(f"The model `{gone}` does not exist. Known models: "), message
    known = message.split("Known models: ")[1]
    assert all(f"`{name}`" in known for name in STAYING) and f"`{gone}`" not in known, message


def add(s, change, i):
    """R2. Whoever is listed answers, whether a replica is there or not yet."""
    change(s, *STAYS, *COMES)
    at = time.monotonic()
    wait_for("extra is listed", ASSERTED_S, lambda: "extra" in ids(s), 0.002)
    answer = ask(s, ("extra", "extra-alias")[i // 2 % 2])
    if answer.status == 404:  # the other ingress did not know it yet
        wait_for("it answers", ASSERTED_S, lambda: ask(s, "extra").status == 200)
    else:
        assert answer.status == 200, answer
    answers_s = time.monotonic() - at
    wait_for("slow answers", 20, lambda: ask(s, "slow").status == 200)
    return at, answers_s


def remove(s, change):
    """R3. What is open ends by itself, or at graceful_shutdown_timeout_s."""
    short, endless = Open(s, 30, 10), Open(s, 100000, 50)
    api = client(s, timeout=60)
    text = api.completions.create(
        model="extra", prompt="a", max_tokens=100, stream=True, extra_body={"ignore_eos": True}
    )
    first = next(iter(text))
    change(s, *STAYS)
    at = time.monotonic()
    wait_for("nobody is extra", ASSERTED_S, lambda: ask(s, "extra").status == 404, 0.002)
    ended = []
    waiter = threading.Thread(target=lambda: ended.append((endless.rest(), time.monotonic())))
    waiter.start()
    events = [json.loads(e) for e in short.rest()]
    assert [e["i"] for e in events] == list(range(30)), events[-1:]
    pieces = [first, *text]
    assert pieces[-1].choices[0].finish_reason == "length", pieces[-1]
    assert sum(c.choices[0].text != "" for c in pieces) > 10
    time.sleep(max(0, at + VISIBLE_S - time.monotonic()))
    for gone in ("extra", "extra-alias", "slow"):
        check_404(ask(s, gone), gone)
    waiter.join(GRACE_S + 10)
    (rest, ended_at) = ended[0]
    assert "error" in json.loads(rest[-1]), "an error says that it was cut"
    assert GRACE_S * 0.8 <= ended_at - at <= GRACE_S + 3, ended_at - at
    return at


def test_r2_r3_models_come_and_go(fresh):
    s = fresh
    before, changes = staying_pids(s), []
    with Poll(s) as poll, Load(s) as load:
        for i in range(CHANGES):
            change = put if i % 4 < 2 else deploy
            if i % 2 == 0:
                changes.append((True, *add(s, change, i)))
            else:
                changes.append((False, remove(s, change), 0))
        time.sleep(0.2)
    assert not load.wrong, (len(load.wrong), load.wrong[:5])
    assert not poll.wrong, poll.wrong[:5]
    assert all(set(STAYING) <= now for _, now in poll.seen), "those that stay are always listed"
    assert staying_pids(s) == before, "nobody else was touched"
    visible = []
    ends = [at for _, at, _ in changes[1:]] + [time.monotonic()]
    for (added, at, _), end in zip(changes, ends):
        moving = ("extra", "extra-alias", "slow")
        want, but = (moving, ()) if added else ((), moving)
        visible.append(poll.settled_s(at, end - 0.1, want, but))
    figures(
        "models_come_and_go",
        changes=len(changes),
        listed_max_ms=round(max(visible) * 1e3, 1),
        listed_p50_ms=round(quantile(visible, 0.5) * 1e3, 1),
        answers_p50_ms=round(quantile([a for up, _, a in changes if up], 0.5) * 1e3, 1),
        lists_read=len(poll.seen),
        answered=sum(load.answered.values()),
        failed=len(load.wrong),
    )
    assert max(visible) < ASSERTED_S, visible


def test_r3_a_killed_workers_model_stays(fresh):
    s = fresh
    with Poll(s) as poll:
        for name in ("llama", "mistral"):
            (pid,) = pids(s, name).values()
            os.kill(pid, signal.SIGKILL)
            assert ask(s, name).status in (200, 502), name  # 502: it was aboard
            assert ask(s, name).status == 200, name  # held until the next one is ready
            assert pids(s, name) and pid not in pids(s, name).values()
        before = len(poll.seen)
        wait_for("the list was read once more", 10, lambda: len(poll.seen) > before + 10)
    assert not poll.wrong
    assert all(set(STAYING) <= now for _, now in poll.seen)


def test_control_dies_and_the_list_stays(fresh):
    s = fresh
    before = staying_pids(s)
    with Poll(s) as poll, Load(s) as load:
        for _ in range(size(1, 10)):
            (old,) = s.pids("control")
            os.kill(old, signal.SIGKILL)
            wait_for("another control", 20, lambda old=old: s.pids("control") not in ([], [old]))
            time.sleep(1)
        wait_for("it answers", 20, lambda: s.admin("GET", "/healthz")[0] == 200)
        time.sleep(2.5)  # it has told the routes again
    assert not load.wrong, load.wrong[:5]
    assert not poll.wrong, poll.wrong[:5]
    assert {frozenset(now) for _, now in poll.seen} == {frozenset(STAYING)}, "it does not flicker"
    assert staying_pids(s) == before
    put(s, *STAYS, fake("later", "later"))
    listed(s, ["later"])


# ---- from zero -----------------------------------------------------------------------------------


def at_zero(s, name):
    (deployment,) = app_of(s, name)["deployments"].values()
    return not deployment["replicas"]


def test_one_at_zero_is_woken(fresh):
    s = fresh
    wait_for("it sleeps", 20, lambda: at_zero(s, "qwen"))
    for path in ("/v1/models", "/v1/models/qwen", "/v1/models/qwen-alias", "/health", "/metrics"):
        assert s.get(path).status == 200
    assert ask(s, "nobody").status == 404
    time.sleep(0.5)
    assert at_zero(s, "qwen"), "none of these wakes it"
    ways = [
        (CHAT, {"model": "qwen"}, lambda a: a["choices"]),
        ("/tokenize", {"model": "qwen-alias", "prompt": "Hello"}, lambda a: a["count"]),
        ("/detokenize", {"model": "qwen", "tokens": [40, 41]}, lambda a: a["prompt"]),
    ]
    for path, body, good in ways:
        wait_for("it sleeps again", 20, lambda: at_zero(s, "qwen"))
        answer = ask(s, path=path, **body)
        assert answer.status == 200 and good(json.loads(answer.body)), answer
        assert {"qwen", "qwen-alias"} <= ids(s)


# ---- one name, two applications --------------------------------------------------------------------


def failed(s, name):
    app = status_of(s).get(name, {})
    return app.get("message") if app.get("status") == "DEPLOY_FAILED" else None


def whose(s, model):
    answer = ask(s, model)
    assert answer.status == 200, answer
    return json.loads(answer.body)["replica"].split("/")[0]


def test_a_name_has_one_owner(fresh):
    s = fresh
    first, second = fake("first", "shared,first"), fake("second", "second,shared")
    put(s, *STAYS, first)
    settled(s, name="first")
    before = pids(s, "first")
    put(s, *STAYS, first, second)
    message = wait_for("the second is refused", 10, lambda: failed(s, "second"))
    assert message.startswith(
        "the model name 'shared' is application 'first's already; give one of the two another "
        "served_model_name"
    ), message
    for _ in range(8):
        assert whose(s, "shared") == "first"
        assert "second" not in ids(s)
        answer = ask(s, "second")
        assert answer.status in (404, 503) and error_of(answer), answer
    assert pids(s, "first") == before and app_of(s, "first")["status"] == "RUNNING"
    # The order in the text changes nothing: it came first.
    put(s, *STAYS, second, first)
    wait_for("the second is refused again", 10, lambda: failed(s, "second"))
    assert whose(s, "shared") == "first" and pids(s, "first") == before
    # The first goes, the second is deployed again, and has the name.
    put(s, *STAYS, second)
    settled(s, name="second")
    listed(s, ["shared", "second"], ["first"])
    assert whose(s, "shared") == whose(s, "second") == "second"
    check_names = error_of(ask(s, "first"))["message"]
    assert check_names.startswith("The model `first` does not exist."), check_names
# ---- one among many ----------------------------------------------------------------------------------


def test_one_more_among_many(server):
    """Who is deployed again as it was is not inspected again: `slow` takes 5 s for that."""
    zero = ASLEEP
    many = [fake(f"a{i}", f"m{i}", **zero) for i in range(size(60, 300))]
    slow = fake("slow", "slow", config={"do": "plan:sleep=5000"}, **zero)
    apps = [*many, slow]
    s = server(apps, ready={a["name"]: None for a in apps}, http={"num_ingress": 2})
    wait_for("the first text is there", 60, lambda: len(ids(s) if up(s) else ()) == len(apps), 0.1)
    took = []
    with Poll(s) as poll:
        for i in range(4):
            put(s, *apps, *([fake("more", "more", **zero)] if i % 2 == 0 else []))
            at = time.monotonic()
            assert all(a["status"] == "RUNNING" or n == "more" for n, a in status_of(s).items())
            listed(s, ["more"] if i % 2 == 0 else ["slow"], ["more"] if i % 2 else [])
            time.sleep(max(0, at + 0.5 - time.monotonic()))
            want, but = (["more"], []) if i % 2 == 0 else ([], ["more"])
            took.append(poll.settled_s(at, time.monotonic(), want, but))
    figures("one_more_among_many", applications=len(apps), listed_max_ms=round(max(took) * 1e3, 1))
    assert max(took) < ASSERTED_S, took
    assert not poll.wrong and all("slow" in now for _, now in poll.seen)


def up(s):
    try:
        return s.get("/-/healthz", timeout=5).status == 200
    except OSError:
        return False


# ---- a model gets another name ---------------------------------------------------------------------


GOOD = (200, "")
APART_S = 0.3


class Asker(threading.Thread):
    """Asks for one name all the time; `seen`: what came, in order."""

    def __init__(self, s, model):
        super().__init__(daemon=True)
        self.s, self.model, self.seen, self.done = s, model, [], threading.Event()
        self.start()

    def run(self):
        while not self.done.wait(0.002):
            answer = ask(self.s, self.model)
            known = "" if answer.status == 200 else error_of(answer)["type"]
            self.seen.append((time.monotonic(), (answer.status, known)))

    def stop(self):
        self.done.set()
        self.join(60)
        return self.seen


@pytest.mark.parametrize("replicas", [1, 2])
def test_a_model_is_renamed(fresh, replicas):
    s = fresh
    was = llm("named", "tiny-llama-bias", ["old", "both"], num_replicas=replicas)
    becomes = llm("named", "tiny-llama-bias", ["new", "both"], num_replicas=replicas)
    put(s, *STAYS, was)
    settled(s, name="named")
    listed(s, ["old", "both"])
    version = app_of(s, "named")["deployments"]["named"]["version"]
    askers = {name: Asker(s, name) for name in ("old", "both", "new")}
    time.sleep(0.3)
    with Poll(s) as poll:
        put(s, *STAYS, becomes)
        settled(s, name="named", before=version)
        listed(s, ["new", "both"], ["old"])
        time.sleep(0.3)
    seen = {name: asker.stop() for name, asker in askers.items()}
    counts = {n: dict(collections.Counter(what for _, what in rows)) for n, rows in seen.items()}
    figures(f"a_model_is_renamed_{replicas}", **{n: str(c) for n, c in counts.items()})
    assert not poll.wrong
    assert all("both" in now for _, now in poll.seen)
    assert set(counts["both"]) == {GOOD}, counts["both"]
    for name in ("old", "new"):
        assert set(counts[name]) == {GOOD, (404, "NotFoundError")}, counts[name]
    # Each name has one time at which it begins or ends; two ingresses hear of it a moment apart.
    old, new = seen["old"], seen["new"]
    last_good = max(at for at, what in old if what == GOOD)
    first_good = min(at for at, what in new if what == GOOD)
    assert all(what == GOOD for at, what in old if at < last_good - APART_S), "old stays itself"
    assert all(what == GOOD for at, what in new if at > first_good + APART_S), "new stays itself"
    assert first_good - last_good < APART_S, "there is always a name that answers"
