# SPDX-License-Identifier: Apache-2.0
"""The processes of one run: how they meet, agree, and notice that one is gone.

Process 0 listens at the coordinator's address; every other process keeps one connection to it, over
which both send a sign of life every few seconds. A process that is killed closes its connection at
once, one that is stopped falls silent. JAX's own service takes over the same port afterwards.
"""

import contextlib
import faulthandler
import json
import os
import socket
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from typing import Any, NoReturn, TypeVar

from bcmb_jax.cluster import Place, is_loopback
from bcmb_jax.errors import DONE, HUNG, PREEMPTED, InputError, PeerLostError, describe, reason, run

Value = TypeVar("Value")  # as JSON gives it back

BEAT_SECONDS = 2.0
SILENT_BEATS = 15
"""Signs of life that may fail to come; more, and the process counts as lost."""
LONGEST_SECONDS = 1800.0
"""Time that processes may lie apart while each loads data, weights or a checkpoint."""


class Peers:
    """The processes of a run, seen from one of them; use it with `with`.

    Without a `Place` there is only this one, and nothing is sent.

    Args:
      wait: seconds until all processes must have come.

    Raises:
      InputError: the coordinator's name or port cannot be used.
      PeerLostError: a process does not come, or nobody answers.
    """

    def __init__(self, place: Place | None = None, wait: float = 8.0):
        self.place = place or Place("", 1, 0)
        self.hosts = [socket.gethostname()]
        self._news = threading.Condition()
        self._values: dict[int, dict[int, Any]] = {}  # by number of the exchange, then process
        self._exchanges = 0
        self._stands = [0, False]  # as the signs of life tell it, and of the others
        self._others: dict[int, list[int]] = {}
        self._left: set[int] = set()
        self._leaving = False
        self._ending = threading.Lock()
        self._links: dict[int, socket.socket] = {}
        if place is None:
            return
        deadline = time.monotonic() + wait
        if place.process == 0:
            self._links = self._accept(deadline, wait)
        else:
            self._links = {0: self._connect(deadline, wait)}
        for process, link in self._links.items():
            threading.Thread(target=self._listen, args=(process, link), daemon=True).start()
        threading.Thread(target=self._beat, daemon=True).start()
        self.hosts = self.gather("start", socket.gethostname(), wait)

    def __enter__(self) -> "Peers":
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if not self._links or error is None:
            self.leave(DONE)
            return
        if type(error).__name__ == "JaxRuntimeError":  # perhaps because a process is lost
            time.sleep(BEAT_SECONDS * (SILENT_BEATS + 2))
        self.leave(getattr(error, "exit_status", 1), describe(error).partition("\n")[0])

        def fail() -> NoReturn:
            raise error

        try:
            status = run(fail)
        except BaseException:
            traceback.print_exc()
            status = 1
        sys.stderr.flush()
        os._exit(status)  # JAX would wait for processes that end too

    def leave(self, status: int, why: str = "") -> None:
        """Tell the others that this process ends, and no longer end with them."""
        self._leaving = True
        self._send({"left": status, "why": why})
        for link in self._links.values():
            with contextlib.suppress(OSError):  # gone already
                link.shutdown(socket.SHUT_WR)

    def gather(self, what: str, value: Value, seconds: float = LONGEST_SECONDS) -> list[Value]:
        """Return the value that each process gives, in their order, once all have come here.

        Args:
          what: names the exchange in messages.
          value: JSON.
          seconds: how long the others may take.

        Raises:
          PeerLostError: a process does not come; the message names it.
        """
        number, count = self._exchanges, self.place.processes
        self._exchanges += 1
        if count == 1:
            return [value]
        if self.place.process:
            self._send({"exchange": number, "value": value})
        with self._news:
            values = self._values.setdefault(number, {})
            if not self.place.process:
                values[0] = value
            self._news.wait_for(lambda: len(values) == count, seconds)
            missing = sorted(set(range(count)) - set(values))
        if missing and self.place.process == 0:
            raise PeerLostError(f"processes {missing} did not come to {what!r} in {seconds:g} s")
        if missing:
            raise PeerLostError(f"process 0 did not answer to {what!r} in {seconds:g} s")
        every = [values[i] for i in range(count)]
        if self.place.process == 0:
            self._send({"exchange": number, "values": every})
        return every

    def stand(self, *, in_step: bool) -> None:
        """Tell the others that this process begins its next part of the training loop.

        Args:
          in_step: whether it is a step, whose length is known, and nothing that may take long.
        """
        self._stands = [self._stands[0] + 1, in_step]

    def behind(self) -> dict[int, int]:
        """Return the processes that are in a step which this one has ended, and where each is."""
        stands = dict(self._others).items()
        return {i: part for i, (part, in_step) in stands if in_step and part < self._stands[0]}

    def agree(self, what: str, values: Mapping[str, Any]) -> None:
        """Refuse processes of which one has other values than process 0.

        Raises:
          InputError: the message names the first value that differs.
        """
        first, *others = self.gather(what, dict(values))
        for process, other in enumerate(others, 1):
            for key in sorted(first.keys() | other.keys()):
                if first.get(key) != other.get(key):
                    raise InputError(
                        f"process {process} on {self.hosts[process]} has another {what} than "
                        f"process 0 on {self.hosts[0]}: {key} is {other.get(key)} there and "
                        f"{first.get(key)} here"
                    )

    def _accept(self, deadline: float, wait: float) -> dict[int, socket.socket]:
        port, count = int(self.place.coordinator.rpartition(":")[2]), self.place.processes
        links: dict[int, socket.socket] = {}
        try:
            server = socket.create_server(("", port), backlog=count)
        except OSError as error:
            raise InputError(
                f"process 0 cannot listen at port {port} ({reason(error)}): choose another in "
                "--coordinator"
            ) from error
        with server:
            while len(links) < count - 1:
                server.settimeout(max(0.01, deadline - time.monotonic()))
                try:
                    link, _ = server.accept()
                    link.settimeout(max(0.01, deadline - time.monotonic()))
                    line = b""
                    while not line.endswith(b"\n") and (byte := link.recv(1)):
                        line += byte  # not a byte more: what follows is for the other thread
                    hello = json.loads(line)
                    process, processes = int(hello["process"]), int(hello["processes"])
                except TimeoutError:
                    break
                except (OSError, ValueError, KeyError, TypeError):
                    continue  # somebody else found the port
                if processes != count or process in links:
                    raise InputError(
                        f"process {process} of {processes} came to a run of {count} at port {port}"
                        f"{', twice' if process in links else ''}: start each process once"
                    )
                links[process] = link
        missing = sorted(set(range(1, count)) - set(links))
        if missing:
            host = self.place.coordinator.rpartition(":")[0]
            hint = f"; {host} is a loopback address, for one host only" * is_loopback(host)
            raise PeerLostError(
                f"processes {missing} of {count} did not come to {self.place.coordinator} in "
                f"{wait:g} s (--wait){hint}"
            )
        return links

    def _connect(self, deadline: float, wait: float) -> socket.socket:
        host, _, port = self.place.coordinator.rpartition(":")
        hello = {"process": self.place.process, "processes": self.place.processes}
        while True:
            left = max(0.1, deadline - time.monotonic())
            try:
                link = socket.create_connection((host.strip("[]"), int(port)), timeout=left)
                link.sendall(json.dumps(hello).encode() + b"\n")
                return link
            except socket.gaierror as error:
                raise InputError(f"coordinator: unknown host {host} ({reason(error)})") from error
            except OSError as error:
                if time.monotonic() > deadline:
                    raise PeerLostError(
                        f"nobody answers at the coordinator {self.place.coordinator} in {wait:g} s "
                        f"({reason(error)}): does process 0 run there, is the port open?"
                    ) from error
            time.sleep(0.1)

    def _send(self, message: Mapping[str, Any]) -> None:
        line = json.dumps(message).encode() + b"\n"
        for link in self._links.values():
            try:
                with self._news:
                    link.sendall(line)
            except OSError:
                pass  # the thread that listens there says so

    def _beat(self) -> None:
        while not self._leaving:
            time.sleep(BEAT_SECONDS)
            self._send({"stands": self._stands})

    def _listen(self, process: int, link: socket.socket) -> None:
        link.settimeout(BEAT_SECONDS)
        silent, rest = 0, b""
        while silent < SILENT_BEATS:
            try:
                received = link.recv(2**16)
            except TimeoutError:
                silent += 1  # counted, not timed: a run that was suspended as a whole goes on
                continue
            except OSError:
                received = b""
            if not received:
                break
            silent = 0
            *lines, rest = (rest + received).split(b"\n")
            for line in lines:
                self._read(process, json.loads(line))
        link.close()
        if process not in self._left and not self._leaving:
            how = f"is silent for {silent * BEAT_SECONDS:g} s" if silent else "is gone"
            host = self.hosts[process] if process < len(self.hosts) else "its host"
            self._end(PeerLostError.exit_status, f"process {process} on {host} {how}")

    def _read(self, process: int, message: Mapping[str, Any]) -> None:
        if "stands" in message:
            self._others[process] = message["stands"]
        elif "left" in message:
            self._left.add(process)
            status = message["left"]
            if status not in (DONE, PREEMPTED) and not self._leaving:
                self._end(status, message.get("end") or f"process {process}: {message['why']}")
        elif "exchange" in message:
            with self._news:
                values = self._values.setdefault(message["exchange"], {})
                given = message.get("values")
                values.update(enumerate(given) if given else {process: message["value"]})
                self._news.notify_all()

    def _end(self, status: int, why: str) -> NoReturn:
        self._ending.acquire()  # never released: of several threads only the first ends the process
        self._send({"left": status, "why": why, "end": why})
        again = "; start the same command again" if status == PeerLostError.exit_status else ""
        if status == HUNG:  # perhaps it is this process that the others wait for
            faulthandler.dump_traceback(sys.__stderr__ or 2, all_threads=True)
        print(f"error: {why}{again}", file=sys.stderr)
        sys.stderr.flush()
        os._exit(status)


ALONE = Peers()
"""The only process of a run."""
