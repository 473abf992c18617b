# SPDX-License-Identifier: Apache-2.0
"""llama.cpp as the peer of `make bench K=llm`, run by the python of .cache/bench-venv.

    llm_peer.py MODEL.gguf SEQUENCES CONTEXT

Reads one JSON object a line and answers each with one:
    {"op": "about"}                                     version, features, bytes of all weights
    {"op": "prompt", "threads", "seqs", "n"}            reads `seqs` prompts of n tokens: {"s", "tokens"}
    {"op": "decode", "threads", "seqs", "prompt", "n"}  n greedy tokens for each after short prompts
    {"op": "plain",  "threads", "prompt", "n"}          the same for one by the package's own create_completion

prompt and decode drive llama_decode with one batch over all sequences, which is the fastest that llama.cpp has.
"""

import ctypes
import json
import random
import sys
import time

import llama_cpp as ll
import numpy as np

QUIET = ll.llama_log_callback(lambda *_: None)
VOCAB_LOW = 1000  # prompts are ids in [VOCAB_LOW, vocabulary): words, not special tokens


class Peer:
    def __init__(self, path, seqs, context):
        ll.llama_log_set(QUIET, ctypes.c_void_p(0))
        ll.llama_backend_init()
        self.path = path
        self.model = ll.llama_model_load_from_file(path.encode(), ll.llama_model_default_params())
        assert self.model, path
        self.vocab = ll.llama_vocab_n_tokens(ll.llama_model_get_vocab(self.model))
        p = ll.llama_context_default_params()
        p.n_ctx, p.n_seq_max, p.n_batch = context * seqs, seqs, 2048
        p.n_threads = p.n_threads_batch = 1
        self.context = ll.llama_init_from_model(self.model, p)
        assert self.context
        self.batch = ll.llama_batch_init(2048, 0, 1)
        self.random = random.Random(1)
        self.plain_model = None

    def ids(self, n):
        return [self.random.randrange(VOCAB_LOW, self.vocab) for _ in range(n)]

    def reset(self, threads):
        ll.llama_set_n_threads(self.context, threads, threads)
        ll.llama_memory_clear(ll.llama_get_memory(self.context), True)

    def decode(self, tokens):
        """tokens: (id, position, sequence, whether its logits are wanted), at most 2048."""
        b = self.batch
        b.n_tokens = len(tokens)
        for i, (token, pos, seq, logits) in enumerate(tokens):
            b.token[i], b.pos[i], b.n_seq_id[i], b.logits[i] = token, pos, 1, logits
            b.seq_id[i][0] = seq
        assert ll.llama_decode(self.context, b) == 0

    def best(self, rows):
        logits = ll.llama_get_logits(self.context)
        return np.ctypeslib.as_array(logits, (rows, self.vocab)).argmax(axis=1).tolist()

    def read(self, prompts):
        """Greedy first tokens of all prompts, read 2048 tokens at a time."""
        waiting = [(t, i, s, i == len(p) - 1) for s, p in enumerate(prompts) for i, t in enumerate(p)]
        first = []
        while waiting:
            now, waiting = waiting[:2048], waiting[2048:]
            self.decode(now)
            rows = sum(t[3] for t in now)
            first += self.best(rows) if rows else []
        return first

    def prompt(self, threads, seqs, n):
        prompts = [self.ids(n) for _ in range(seqs)]
        self.reset(threads)
        begin = time.monotonic()
        self.read(prompts)
        return {"s": time.monotonic() - begin, "tokens": n * seqs}

    def generate(self, threads, seqs, prompt, n):
        self.reset(threads)
        tokens = self.read([self.ids(prompt) for _ in range(seqs)])
        begin = time.monotonic()
        for i in range(n - 1):
            self.decode([(t, prompt + i, s, True) for s, t in enumerate(tokens)])
            tokens = self.best(seqs)
        return {"s": time.monotonic() - begin, "tokens": (n - 1) * seqs}

    def plain(self, threads, prompt, n):
        if not self.plain_model:
            self.plain_model = ll.Llama(self.path, n_ctx=1024, verbose=False)
        llama = self.plain_model
        ll.llama_set_n_threads(llama.ctx, threads, threads)
        llama.reset()
        never = ll.LogitsProcessorList([lambda _, scores: self.forbid_end(llama, scores)])
        times = []
        for _ in llama.generate(self.ids(prompt), temp=0.0, repeat_penalty=1.0, logits_processor=never):
            times.append(time.monotonic())
            if len(times) == n:
                break
        return {"s": times[-1] - times[0], "tokens": n - 1}

    @staticmethod
    def forbid_end(llama, scores):
        scores[llama.token_eos()] = -np.inf
        return scores

    def about(self):
        features = ll.llama_print_system_info().decode()
        return {
            "version": ll.__version__,
            "features": [f.split(" = ")[0].strip() for f in features.split("|") if f.endswith("= 1 ")],
            "bytes": ll.llama_model_size(self.model),
            "vocab": self.vocab,
        }


def main():
    peer = Peer(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
    ops = {"about": peer.about, "prompt": peer.prompt, "decode": peer.generate, "plain": peer.plain}
    for line in sys.stdin:
        ask = json.loads(line)
        print(json.dumps(ops[ask.pop("op")](**ask)), flush=True)


main()
