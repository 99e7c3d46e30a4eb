"""The network between simulated processes: calls that may be lost, repeated and overtaken, and
connections that keep order until they break and lose what is under way.

Hosts are names; a host has at most one process at a time. A partition cuts a pair of hosts: what is
sent meanwhile is lost, or arrives after the partition has healed, as TCP would have it.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import grpc

from .clock import Clock, Process, Timer

Done = Callable[[Any, "SimRpcError | None"], None]


class SimRpcError(grpc.RpcError):
    """A call failed; read like gRPC's own."""

    def __init__(self, code: grpc.StatusCode, details: str, named: str = "") -> None:
        super().__init__(f"{code.name}: {details}")
        self._code = code
        self._details = details
        self._named = named

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return self._details

    def trailing_metadata(self) -> tuple[tuple[str, str], ...]:
        return (("penstock-error", self._named),) if self._named else ()


class Server(Protocol):
    """Who answers calls at a host."""

    process: Process

    def serve(self, method: str, request: Any, reply: Done) -> Callable[[], None]:
        """Begins to answer; returns what cancels it."""


class Endpoint(Protocol):
    """One end of a connection."""

    process: Process

    def received(self, connection: Connection, message: Any) -> None: ...
    def disconnected(self, connection: Connection, detail: str) -> None: ...


@dataclass(slots=True)
class Weather:
    """How bad the network is. Probabilities are for each message."""

    lag_s: float = 0.002
    slow: float = 0.0
    lost: float = 0.0
    repeated: float = 0.0


class Network:
    """All hosts and what is under way between them."""

    def __init__(self, clock: Clock, rng: random.Random, weather: Weather) -> None:
        self.clock = clock
        self.rng = rng
        self.weather = weather
        self.servers: dict[str, Server] = {}
        self.connections: list[Connection] = []
        self._cut: dict[frozenset[str], int] = {}
        self._stalled: list[tuple[frozenset[str], Callable[[], None]]] = []
        self._calls: list[Call] = []
        #: The longest time in which the server did not hear a caller, and when it did last.
        self.silence_s: dict[str, float] = {}
        self._heard_s: dict[str, float] = {}
        self._newest: dict[str, int] = {}
        self._up_s = clock.now_s

    def server_up(self) -> None:
        """A server begins to listen: everybody has a fresh time to be heard of."""
        self._up_s = self.clock.now_s

    def server_down(self) -> None:
        """The server ends: what was silent until now was so for as long as that."""
        for name, heard_s in self._heard_s.items():
            silence_s = self.clock.now_s - max(self._up_s, heard_s)
            self.silence_s[name] = max(silence_s, self.silence_s[name])

    def caller_up(self, name: str) -> None:
        """A new process calls under that name."""
        self._heard_s[name], self.silence_s[name] = self.clock.now_s, 0.0
        self._newest[name] = 0

    def arrived(self, name: str, sequence: int) -> None:
        """A call of that host has reached its server; one that was overtaken proves nothing."""
        if name in self._heard_s and not 0 < sequence < self._newest[name]:
            self._newest[name] = sequence or self._newest[name]
            silence_s = self.clock.now_s - max(self._up_s, self._heard_s[name])
            self.silence_s[name] = max(silence_s, self.silence_s[name])
            self._heard_s[name] = self.clock.now_s

    def is_cut(self, a: str, b: str) -> bool:
        return frozenset((a, b)) in self._cut

    def cut(self, a: str, b: str) -> None:
        pair = frozenset((a, b))
        self._cut[pair] = self._cut.get(pair, 0) + 1

    def heal(self, a: str, b: str) -> None:
        pair = frozenset((a, b))
        left = self._cut.get(pair, 0) - 1
        if left > 0:
            self._cut[pair] = left
            return
        self._cut.pop(pair, None)
        waiting = [go for at, go in self._stalled if at == pair]
        self._stalled = [(at, go) for at, go in self._stalled if at != pair]
        for go in waiting:
            go()

    def heal_all(self) -> None:
        for pair in list(self._cut):
            self._cut[pair] = 1
            self.heal(*(pair if len(pair) == 2 else (*pair, *pair)))

    def stall(self, a: str, b: str, go: Callable[[], None]) -> None:
        """Does it when the pair is not cut (any more)."""
        if self.is_cut(a, b):
            self._stalled.append((frozenset((a, b)), go))
        else:
            go()

    def lag_s(self) -> float:
        weather, rng = self.weather, self.rng
        lag_s = rng.random() * 2 * weather.lag_s
        if weather.slow and rng.random() < weather.slow:
            lag_s += rng.random() * 100 * weather.lag_s
        return lag_s

    def call(
        self, caller: Process, host: str, method: str, request: Any, timeout_s: float, done: Done
    ) -> Call:
        """Calls whoever serves at the host; `done` is told, unless the call is cancelled."""
        call = Call(self, caller, host, method, request, done)
        call.deadline = caller.after(
            timeout_s, call.fail, grpc.StatusCode.DEADLINE_EXCEEDED, "too late"
        )
        self._calls = [known for known in self._calls if not known.over]
        self._calls.append(call)
        call.send()
        return call

    def connect(self, client: Endpoint, server: Endpoint, a: str, b: str) -> Connection:
        """A connection between the endpoint at host `a` and the one at `b`."""
        connection = Connection(self, (client, server), (a, b))
        self.connections = [known for known in self.connections if not known.closed]
        self.connections.append(connection)
        return connection

    def process_died(self, process: Process, *, silent: bool) -> None:
        """What others notice: nothing until their own time is over, if the machine died."""
        for call in [call for call in self._calls if call.process is process]:
            if not silent:
                call.lose("the server is gone")
        for connection in self.connections:
            ends = [end.process for end in connection.ends]
            if process in ends and not connection.closed:
                connection.break_off(silent=silent)


class Call:
    """One call, from its caller's point of view."""

    __slots__ = (
        "_done",
        "caller",
        "deadline",
        "host",
        "method",
        "net",
        "over",
        "process",
        "request",
        "stop",
    )

    def __init__(
        self, net: Network, caller: Process, host: str, method: str, request: Any, done: Done
    ) -> None:
        self.net = net
        self.caller = caller
        self.host = host
        self.method = method
        self.request = request
        self.over = False
        self.process: Process | None = None
        self.deadline: Timer | None = None
        self.stop: Callable[[], None] | None = None
        self._done = done

    def send(self) -> None:
        net, rng = self.net, self.net.rng
        if net.weather.lost and rng.random() < net.weather.lost:
            self.lose("the request was lost")
            return
        copies = 1 + (net.weather.repeated > 0 and rng.random() < net.weather.repeated)
        for copy in range(copies):
            lag_s = net.lag_s() + (copy and rng.random() * 2)
            net.clock.at(net.clock.now_s + lag_s, None, self._arrive)

    def cancel(self) -> None:
        """Nobody waits any more; the server may hear of that."""
        self.over = True
        if self.deadline is not None:
            self.deadline.cancel()
        if self.stop is not None and self.net.rng.random() < 0.8:
            assert self.process is not None
            self.process.after(self.net.lag_s(), self.stop)

    def fail(self, code: grpc.StatusCode, details: str) -> None:
        self._finish(None, SimRpcError(code, details))

    def lose(self, why: str) -> None:
        """The caller sees a broken connection soon, or nothing until its deadline."""
        if self.net.rng.random() < 0.7:
            self.caller.after(self.net.lag_s(), self.fail, grpc.StatusCode.UNAVAILABLE, why)

    def _arrive(self) -> None:
        net = self.net
        if net.is_cut(self.caller.name, self.host):
            if net.rng.random() < 0.5:
                net.stall(self.caller.name, self.host, self._arrive)
            else:
                self.lose("the network is cut")
            return
        server = net.servers.get(self.host)
        if server is None or not server.process.alive:
            self.lose("nobody listens there")
            return
        self.process = server.process
        net.arrived(self.caller.name, getattr(self.request, "sequence", 0))
        server.process.after(0, self._served, server)

    def _served(self, server: Server) -> None:
        self.stop = server.serve(self.method, self.request, self._answer)

    def _answer(self, reply: Any, error: SimRpcError | None) -> None:
        net = self.net
        if net.weather.lost and net.rng.random() < net.weather.lost:
            self.lose("the reply was lost")
            return
        net.clock.at(net.clock.now_s + net.lag_s(), None, self._return, reply, error)

    def _return(self, reply: Any, error: SimRpcError | None) -> None:
        net = self.net
        if net.is_cut(self.caller.name, self.host):
            if net.rng.random() < 0.5:
                net.stall(self.caller.name, self.host, lambda: self._return(reply, error))
            else:
                self.lose("the network is cut")
            return
        if self.caller.alive:
            self.caller.after(0, self._finish, reply, error)

    def _finish(self, reply: Any, error: SimRpcError | None) -> None:
        if not self.over:
            self.over = True
            if self.deadline is not None:
                self.deadline.cancel()
            self._done(reply, error)


class _Broken:
    """Stands in the queue behind the last message that still arrives."""

    def __init__(self, detail: str) -> None:
        self.detail = detail


@dataclass(slots=True)
class _Way:
    """What is under way to one end, in order; an arrival takes the first."""

    queue: deque[Any] = field(default_factory=deque)
    arrives_s: float = 0.0
    over: bool = False


class Connection:
    """Two ends; a message of end 0 goes to end 1 and the other way round."""

    def __init__(self, net: Network, ends: tuple[Endpoint, Endpoint], hosts: tuple[str, str]):
        self.ends = ends
        self.hosts = hosts
        self.number = 0  # the server's own number for it
        self.closed = False
        self._net = net
        self._ways = (_Way(), _Way())  # by receiving end

    def send(self, end: int, message: Any) -> None:
        """Sends from that end."""
        if not self.closed:
            self._put(1 - end, message)

    def close(self, end: int) -> None:
        """That end closes it: the other one gets what was sent before, then the end."""
        if not self.closed:
            self.closed = True
            self._ways[end].over = True
            self._put(1 - end, _Broken("the other end closed the connection"))

    def break_off(self, *, silent: bool = False) -> None:
        """It breaks: of what is under way each end gets a first part, and hears of it in time."""
        if self.closed:
            return
        self.closed = True
        rng = self._net.rng
        for end, way in enumerate(self._ways):
            for _ in range(rng.randrange(len(way.queue) + 1)):
                way.queue.pop()
            way.arrives_s = self._net.clock.now_s + rng.random() * (20.0 if silent else 0.02)
            self._put(end, _Broken("the connection broke"))

    def _put(self, end: int, message: Any) -> None:
        self._ways[end].queue.append(message)
        self._travel(end)

    def _travel(self, end: int) -> None:
        net, way = self._net, self._ways[end]
        way.arrives_s = max(way.arrives_s, net.clock.now_s + net.lag_s())
        net.clock.at(way.arrives_s, None, self._arrive, end)

    def _arrive(self, end: int) -> None:
        if self._net.is_cut(*self.hosts):
            # TCP sends it again and again; what follows stalls behind it.
            self._net.stall(*self.hosts, lambda: self._travel(end))
            return
        way = self._ways[end]
        if way.queue:
            self.ends[end].process.after(0, self._deliver, end, way.queue.popleft())

    def _deliver(self, end: int, message: Any) -> None:
        way = self._ways[end]
        if way.over:
            return
        if isinstance(message, _Broken):
            way.over = True
            self.ends[end].disconnected(self, message.detail)
        else:
            self.ends[end].received(self, message)
