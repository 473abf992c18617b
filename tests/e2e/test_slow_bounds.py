# SPDX-License-Identifier: Apache-2.0
"""What one client that reads nothing makes the server hold, the kernel's buffers included."""

import socket
import time

from harness import Ledger, Server, application, send_request, wait_for

EVENT = 4096
HELD_MAX = 1 << 20  # window, mark and socket: 256 + 256 + 128 KiB, and what the client takes


def test_a_client_that_reads_nothing_holds_little(tmp_path):
    ledger = Ledger(tmp_path / "ledger", 1000)
    app = application("streams", "streams", {"path": str(ledger.path)}, max_ongoing_requests=8)
    with Server(tmp_path, [app]) as server, socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        s.connect(("127.0.0.1", server.port))
        before = ledger.head()["paused"]
        send_request(s, f"/streams/?n=0&every_us=10&bytes={EVENT}", server.port)

        def settled():
            events = ledger.head()["events"]
            time.sleep(1)
            return ledger.head()["paused"] > before and ledger.head()["events"] == events

        wait_for("the plugin pauses for good", 20, settled)
        assert ledger.head()["events"] * EVENT < HELD_MAX
