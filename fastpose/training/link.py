"""The line between the processes of a job: who is there, what they agree on, and that one of them has ended.

Collectives know none of it: a process that waits in one for another that was killed, stopped or cut off waits for half
an hour, or for ever. So each process keeps one connection to the leader (rank 0), on which a thread sends a sign of
life every two seconds. A connection that closes without a word, or that is silent for too long, ends the job with a
sentence; words of the processes (what they train, that they have arrived somewhere) travel on it as well, and waiting
for these has no limit as long as everyone lives.
"""

from __future__ import annotations

import hmac
import ipaddress
import json
import os
import selectors
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

BEAT = 2.0
"""Seconds between two signs of life."""

SILENCE = 40.0
"""Seconds without one after which a process counts as dead."""

GRACE = 5.0
"""Seconds in which a process that learns of it may end by itself."""

EXIT_CODE = 2
_LONGEST = 1 << 24  # bytes of one message
_FIRST = 1 << 10  # of the first line, which a stranger may send
_STRANGERS = 16  # connections at a time that have not yet shown the token

Message = dict[str, Any]


class LostProcess(ConnectionError):
    """Another process of the job has ended, or does not answer."""


class _Line:
    """One connection, in messages of one line each; ``token`` is the line that the other end has to begin with."""

    def __init__(self, connection: socket.socket, token: str = "") -> None:
        connection.settimeout(SILENCE)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.connection, self.rank = connection, -1
        self.heard = time.monotonic()
        self.ended = False
        self.reason = ""  # that it gave for its end
        self._token = token.encode()
        self._rest, self._sending = b"", threading.Lock()

    def begin(self, token: str) -> None:
        """Send the line without which the leader listens to nobody; raises ``OSError``."""
        self.connection.sendall(token.encode() + b"\n")

    def send(self, message: Message) -> None:
        """Send a message; whoever does not take it is found by the other end of the line."""
        with suppress(OSError), self._sending:
            self.connection.sendall(json.dumps(message).encode() + b"\n")

    def receive(self) -> list[Message] | None:
        """Return the messages that have come, None where the other end has closed or is a stranger's.

        Called when there is something; nothing that a stranger sends is taken apart.
        """
        try:
            data = self.connection.recv(1 << 16)
        except OSError:
            return None
        self.heard = time.monotonic()
        *lines, self._rest = (self._rest + data).split(b"\n")
        if self._token and lines:
            if not hmac.compare_digest(lines.pop(0), self._token):
                return None
            self._token = b""
        if not data or len(self._rest) > (_FIRST if self._token else _LONGEST):
            return None
        try:
            return [dict(json.loads(line)) for line in lines]
        except (ValueError, TypeError, RecursionError):
            return None


class Link:
    """This process's end of the line; see the module.

    Args:
        rank, size: of this process, and of all.
        host: the machine of this process: its name, and behind a space what tells it from others of that name.
        token: what all processes of this job know; others are not listened to.
    """

    def __init__(self, rank: int, size: int, host: str, token: str) -> None:
        self.rank, self.size, self.host, self.token = rank, size, host, token
        self.verdict = ""
        self.dead: set[int] = set()
        self.hosts = {rank: host}
        self._said = ""  # the machine on which the sentence of the verdict is said already
        self.finished = threading.Event()  # the main thread needs no watching any more
        self._undisturbed = False
        self._listening: socket.socket | None = None
        self._strangers: list[_Line] = []
        self._lines: dict[int, _Line] = {}
        self._heard: dict[str, dict[int, str]] = {}
        self._open: dict[str, list[str]] = {}
        self._changed = threading.Condition()
        self._limit: tuple[float, Callable[[], str]] | None = None
        self._selector = selectors.DefaultSelector()
        self._thread = threading.Thread(target=self._watch, name="fastpose-link", daemon=True)
        self._closed = False
        self._doom = 0.0
        self._beaten = time.monotonic()
        self._turn = 0

    # ---- beginning ---------------------------------------------------------------------------------------------

    def listen(self, address: str = "") -> int:
        """Open the leader's end at an address of this machine (everywhere where none is given); return its port."""
        both = not address and socket.has_dualstack_ipv6()
        family = socket.AF_INET6 if both or ":" in address else socket.AF_INET
        waiting = _STRANGERS + self.size
        listening = socket.create_server((address, 0), family=family, dualstack_ipv6=both, backlog=waiting)
        listening.setblocking(False)  # one that is gone again must not be waited for
        self._selector.register(listening, selectors.EVENT_READ)
        self._listening = listening
        self._thread.start()
        return int(listening.getsockname()[1])

    def connect(self, address: tuple[str, int], seconds: float) -> None:
        """Open the end of another process; raises ``OSError``."""
        line = _Line(socket.create_connection(address, timeout=seconds))
        line.rank = 0
        line.begin(self.token)
        self._add(line)
        line.send({"hello": self.rank, "host": self.host})
        self._thread.start()

    def outward(self) -> str:
        """Return the address that another machine of the job knows this one by, empty where there is none."""
        for line in list(self._lines.values()):
            with suppress(OSError):
                own = line.connection.getsockname()[0].removeprefix("::ffff:")
                if not ipaddress.ip_address(own).is_loopback:
                    return str(own)
        return ""

    # ---- for the main thread -----------------------------------------------------------------------------------

    def gather(self, text: str, *, seconds: float | None = None) -> list[str]:
        """Return the texts of all processes by rank, when all have called this as often.

        Raises:
            LostProcess: one of them has ended, or is not there after ``seconds``.
        """
        self._turn += 1
        key = str(self._turn)
        # The leader knows who is missing, so it speaks first.
        limit = seconds and seconds + (GRACE if self.rank else 0)
        with self.within(limit, lambda: f"{self._named(self._absent(key))} not there within {seconds:.0f} s"):
            self._say(key, self.rank, text)
            with self._changed:
                while key not in self._open and not self.verdict:
                    self._changed.wait(1.0)
                texts = self._open.pop(key, None)
        lost = self.lost() if texts is None else None
        if lost is not None:
            raise lost
        return texts or []

    @contextmanager
    def within(self, seconds: float | None, sentence: Callable[[], str]) -> Iterator[None]:
        """End the job with a sentence if the body takes longer."""
        self._limit = (time.monotonic() + seconds, sentence) if seconds else None
        try:
            yield
        finally:
            self._limit = None

    @contextmanager
    def undisturbed(self) -> Iterator[None]:
        """Let the body come to its end though the job has to end: it needs nobody else, and must not be cut off."""
        self._undisturbed = True
        try:
            yield
        finally:
            self._doom = time.monotonic() + GRACE
            self._undisturbed = False

    def lost(self, seconds: float = 0.0) -> BaseException | None:
        """Return the error that says who has ended, waiting so long for it to be known; None where all live.

        On every machine one process speaks; for the others it is a ``SystemExit``.
        """
        with self._changed:
            self._changed.wait_for(lambda: self.verdict, seconds)
        if not self.verdict:
            return None
        return LostProcess(self.verdict) if self._speaks() else SystemExit(EXIT_CODE)

    def fail(self, sentence: str) -> bool:
        """Tell the others why this process ends; return whether the leader says the same on this machine."""
        self._tell({"end": sentence})
        leader = self._lines.get(0)
        if leader is not None:
            with self._changed:
                self._changed.wait_for(lambda: leader.ended, GRACE)
        self._part(GRACE)
        return leader is not None and leader.reason == sentence and self.hosts.get(0) == self.host

    def leave(self) -> None:
        """Say that this process has done its work; the leader goes last."""
        self._tell({"end": ""})
        self._part(SILENCE)

    def _part(self, seconds: float) -> None:
        self.finished.set()
        if self.rank == 0:
            with self._changed:
                self._changed.wait_for(
                    lambda: all(line.ended or line.rank in self.dead for line in self._lines.values()), seconds
                )
        self._closed = True
        self._thread.join()
        for key in list(self._selector.get_map().values()):
            key.fileobj.close()  # type: ignore[union-attr]
        self._selector.close()

    # ---- the thread --------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        while not self._closed:
            try:
                self._attend()
            except Exception as error:  # whatever it is: a job that nobody watches could wait for ever
                self._end(
                    f"{self._named([self.rank])} has lost its line to the others ({type(error).__name__}: {error})"
                )
            overdue = self.verdict and time.monotonic() > self._doom
            if overdue and not self._undisturbed and not self.finished.is_set():
                self._die()  # the main thread may wait in a collective for ever

    def _attend(self) -> None:
        """Read what has come in a moment, give the sign of life, look for who gives none."""
        for key, _ in self._selector.select(BEAT / 8):
            self._read(key.fileobj, key.data)
        now = time.monotonic()
        if now - self._beaten > 4 * BEAT:  # this process was stopped: what the others sent meanwhile is yet to be read
            for line in self._lines.values():
                line.heard = now
        if now - self._beaten >= BEAT:
            self._beaten = now
            self._tell({})
        self._judge(now)

    def _judge(self, now: float) -> None:
        """Look for those that are silent, and for a limit that has passed."""
        for line in [line for line in self._strangers if now - line.heard > SILENCE]:
            self._let_go(line)
        for line in [] if self.verdict else list(self._lines.values()):
            if not line.ended and now - line.heard > SILENCE:
                self._end(f"{self._named([line.rank])} has not answered for {SILENCE:g} s", line.rank)
        limit = self._limit
        if limit is not None and now > limit[0]:
            self._end(limit[1]())

    def _die(self) -> None:
        if self._speaks():
            print(f"fastpose: {self.verdict}", file=sys.stderr, flush=True)
        os._exit(EXIT_CODE)

    def _read(self, source: Any, line: _Line | None) -> None:
        if line is None:
            self._accept(source)
            return
        messages = line.receive()
        for message in messages or []:
            self._take(line, message)
        if messages is None:
            self._let_go(line)
            known, spoke, line.ended = self._lines.get(line.rank) is line, line.ended, True
            if known and not spoke and not self.finished.is_set():
                self._end(f"{self._named([line.rank])} has ended without a word (killed, or out of memory)", line.rank)

    def _accept(self, listening: socket.socket) -> None:
        """Open a line to whoever has called; the oldest of too many strangers has to go."""
        try:
            connection = listening.accept()[0]
        except OSError:  # gone again, or no file descriptor is left: there may be one later
            time.sleep(BEAT / 8)
            return
        if len(self._strangers) >= _STRANGERS + self.size:
            self._let_go(self._strangers[0])
        self._add(_Line(connection, self.token))

    def _add(self, line: _Line) -> None:
        self._selector.register(line.connection, selectors.EVENT_READ, line)
        if line.rank >= 0:
            self._lines[line.rank] = line
        else:
            self._strangers.append(line)

    def _let_go(self, line: _Line) -> None:
        if line.connection.fileno() < 0:
            return
        self._selector.unregister(line.connection)
        line.connection.close()
        if line in self._strangers:
            self._strangers.remove(line)

    def _take(self, line: _Line, message: Message) -> None:
        """Act on one message."""
        if line.rank < 0:
            self._welcome(line, message)
        elif "verdict" in message:
            self._end(message["verdict"], *message["dead"], said=message["said"])
        elif "end" in message:
            line.ended, line.reason = True, message["end"]
            if message["end"]:
                host = self.hosts.get(line.rank, "")
                self._end(f"{self._named([line.rank])} has ended: {message['end']}", line.rank, said=host)
            with self._changed:
                self._changed.notify_all()
        elif "say" in message:
            self._collect(message["say"], line.rank, message["text"])
        elif "open" in message:
            self.hosts = dict(enumerate(message["hosts"]))
            self._release(message["open"], message["texts"])

    def _welcome(self, line: _Line, message: Message) -> None:
        """Take in a process that says who it is; when the last has come, nobody else can come."""
        rank = message.get("hello", 0)
        if rank in self._lines or not 0 < rank < self.size:
            line.send({"verdict": f"RANK: {rank} of {self.size} is taken, or none of these", "dead": [], "said": ""})
            return
        line.rank, self.hosts[rank] = rank, message["host"]
        self._lines[rank] = line
        self._strangers.remove(line)
        if len(self._lines) == self.size - 1 and self._listening is not None:
            self._selector.unregister(self._listening)
            self._listening.close()

    # ---- words -------------------------------------------------------------------------------------------------

    def _say(self, key: str, rank: int, text: str) -> None:
        if self.rank == 0:
            self._collect(key, rank, text)
        else:
            self._tell({"say": key, "text": text})

    def _collect(self, key: str, rank: int, text: str) -> None:
        """Keep a text, and give all of a key to everyone when the last has come."""
        with self._changed:
            texts = self._heard.setdefault(key, {})
            texts[rank] = text
            if len(texts) < self.size:
                return
            del self._heard[key]
        every = [texts[number] for number in range(self.size)]
        self._tell({"open": key, "texts": every, "hosts": [self.hosts[number] for number in range(self.size)]})
        self._release(key, every)

    def _release(self, key: str, texts: list[str]) -> None:
        with self._changed:
            self._open[key] = texts
            self._changed.notify_all()

    def _absent(self, key: str) -> list[int]:
        there = self._heard.get(key, {}) if self.rank == 0 else dict.fromkeys(range(1, self.size), "")
        return [rank for rank in range(self.size) if rank not in there]

    def _tell(self, message: Message) -> None:
        for line in list(self._lines.values()):
            line.send(message)

    def _end(self, verdict: str, *dead: int, said: str = "") -> None:
        """Take note of why the job ends; the leader tells the others."""
        if self.verdict:
            return
        with self._changed:
            self.verdict, self._doom = verdict, time.monotonic() + GRACE
            self._said = said
            self.dead.update(dead)
            self._changed.notify_all()
        if self.rank == 0:
            self._tell({"verdict": verdict, "dead": list(dead), "said": said})

    def _speaks(self) -> bool:
        """Whether this process is the first that lives on its machine, and nobody has said it there."""
        here = [rank for rank, host in self.hosts.items() if host == self.host and rank not in self.dead]
        return self._said != self.host and self.rank == min(here, default=self.rank)

    def _named(self, ranks: list[int]) -> str:
        if len(ranks) != 1:
            return f"processes {', '.join(map(str, ranks))} of {self.size}"
        host = self.hosts.get(ranks[0], "").partition(" ")[0]
        return f"process {ranks[0]} of {self.size}" + (f" (on {host})" if host else "")
