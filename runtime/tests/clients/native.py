#!/usr/bin/env python3
"""A client of the native protocol, written from net/PROTOCOL.md alone, against the example `ledger`.

    native.py HOST:PORT

It shows that the text is enough. The accounts must be new and used by nobody else. Ends with a line `N passed, N failed`.
"""

import socket
import struct
import sys
import traceback

HELLO, WELCOME, TELL, ASK, REPLY, ERROR, PING, PONG, GO_AWAY, CREDIT = range(1, 11)
UNKNOWN, OTHER_SCHEMA, ANY_SHARD = 65_535, 65_534, 65_535
WORD = (1 << 64) - 1


def fnv(name, *parts):
    """`f(name; parts)`."""
    value = 0xCBF29CE484222325
    for byte in name.encode() + b"".join(b"\xff" + part.to_bytes(8, "little") for part in parts):
        value = (value ^ byte) * 0x100000001B3 & WORD
    return value


I64, U64 = fnv("i64"), fnv("u64")
REFUSALS = ["NotPositive", "Insufficient", "Overflow", "SameAccount", "Unknown", "Busy"]
MOVED = fnv("result", I64, fnv("enum", *(fnv(name) for name in REFUSALS)))


def schema(reply, **arguments):
    return fnv("call", fnv("message", *(fnv(name, kind) for name, kind in arguments.items())), reply)


MESSAGES = {
    "deposit": schema(MOVED, amount=I64),
    "withdraw": schema(MOVED, amount=I64),
    "balance": schema(I64),
    "transfer": schema(MOVED, to=U64, amount=I64),
}
HELLO_MESSAGES = [(fnv("Account", fnv(name)), kind) for name, kind in MESSAGES.items()]
DEPOSIT, WITHDRAW, BALANCE, TRANSFER = range(4)


def moved(archive):
    """A result of a balance, or a refusal: a tag, and what it is of where that is aligned."""
    tag, refusal, balance = struct.unpack_from("<BB6xq", archive, len(archive) - 16)
    return balance if tag == 0 else REFUSALS[refusal]


def shard_of(key, secret, shards):
    product = (key ^ secret & WORD ^ 0xA0761D6478BD642F) * (secret >> 64 ^ 0xE7037ED1A0B428DB)
    partition = (product & WORD ^ product >> 64) >> 52
    return partition % shards


class Refused(Exception):
    """The node goes away, and says why."""


class Connection:
    def __init__(self, address, messages=None, versions=(1, 1), shard=ANY_SHARD, cluster=0):
        messages = HELLO_MESSAGES if messages is None else messages
        self.socket = socket.create_connection(address, timeout=30)
        self.calls, self.credit, self.frame_bytes_max = 0, 0, 1 << 20
        hello = b"CORESIDE" + struct.pack("<4H", *versions, shard, len(messages)) + cluster.to_bytes(16, "little")
        self.send(HELLO, hello + b"".join(struct.pack("<2Q", *message) for message in messages))
        kind, _, _, content = self.read()
        expect((kind, content[:8]), (WELCOME, b"CORESIDE"))
        self.version, self.shard, self.shards, count = struct.unpack_from("<4H", content, 8)
        fields = struct.unpack_from("<2I2HI", content, 32)
        self.frame_bytes_max, self.calls_max, self.flags, self.share, self.tells_max = fields
        self.secret = int.from_bytes(content[48:64], "little")
        self.numbers = struct.unpack_from(f"<{count}H", content, 64)
        self.versions = list(struct.iter_unpack("<2HQ", content[64 + 2 * count:]))

    def send(self, kind, content=b"", message=0, call=0, time_us=0):
        frame = struct.pack("<I2BH2I", 16 + len(content), kind, 0, message, call, time_us) + content
        self.socket.sendall(frame + bytes(-len(frame) % 16))

    def read(self):
        """The next frame that is not about the connection itself."""
        while True:
            length, kind, code, _, call, _ = struct.unpack("<I2BH2I", self.receive(16))
            assert 16 <= length <= self.frame_bytes_max, length
            content = self.receive(-length % 16 + length - 16)[: length - 16]
            if kind == PING:
                self.send(PONG, call=call)
            elif kind == CREDIT:
                self.credit += sum(count for _, count in struct.iter_unpack("<2I", content))
            elif kind == GO_AWAY:
                raise Refused(code)
            else:
                return kind, code, call, content

    def receive(self, length):
        received = b""
        while len(received) < length:
            part = self.socket.recv(length - len(received))
            if not part:
                raise EOFError
            received += part
        return received

    def message(self, kind, number, key, archive, time_us=0):
        self.calls += kind == ASK
        key = struct.pack("<2Q", key, 0)
        self.send(kind, key + archive, self.numbers[number], self.calls if kind == ASK else 0, time_us)

    def ask(self, number, key, archive=b"", time_us=0):
        self.message(ASK, number, key, archive, time_us)
        kind, code, call, content = self.read()
        expect(call, self.calls)
        return content if kind == REPLY else code

    def amount(self, number, key, amount):
        return moved(self.ask(number, key, struct.pack("<q", amount)))

    def balance(self, key):
        return struct.unpack("<q", self.ask(BALANCE, key))[0]


def expect(actual, expected):
    assert actual == expected, f"expected {expected!r}, got {actual!r}"


def expect_refused(code, call, *arguments, **options):
    try:
        result = call(*arguments, **options)
    except Refused as refused:
        return expect(refused.args[0], code)
    raise AssertionError(f"expected a goodbye with code {code}, got {result!r}")


def handshake_says_what_the_node_takes(address):
    other = (HELLO_MESSAGES[DEPOSIT][0], 1)
    node = Connection(address, HELLO_MESSAGES + [(1, 1), other], versions=(1, 9))
    expect(node.version, 1)
    assert all(number < OTHER_SCHEMA for number in node.numbers[:4])
    expect(node.numbers[4:], (UNKNOWN, OTHER_SCHEMA))
    expect(node.versions, [(1, 1, MESSAGES["deposit"])])
    expect_refused(33, Connection, address, versions=(2, 3))
    expect_refused(34, Connection, address, cluster=7)


def asks_are_answered_by_the_entity(address):
    node = Connection(address)
    expect(node.amount(DEPOSIT, 1, 100), 100)
    expect(node.amount(WITHDRAW, 1, 30), 70)
    expect(node.amount(WITHDRAW, 1, 71), "Insufficient")
    expect(node.amount(DEPOSIT, 1, -1), "NotPositive")
    transfer = lambda to: moved(node.ask(TRANSFER, 1, struct.pack("<Qq", to, 20), time_us=5_000_000))
    expect(transfer(2), 50)
    expect(transfer(1), "SameAccount")
    expect((node.balance(1), node.balance(2)), (50, 20))


def answers_find_their_asks(address):
    node = Connection(address)
    for key in range(100, 200):
        node.message(ASK, DEPOSIT, key, struct.pack("<q", key))
    replies = [node.read() for _ in range(100)]
    expect(sorted((call, moved(content)) for _, _, call, content in replies), [(n + 1, n + 100) for n in range(100)])


def credit_comes_back_for_tells(address):
    node = Connection(address)
    told = 4 * node.tells_max
    for number in range(told):
        if number - node.credit >= node.tells_max:
            # There is credit to come, or there would be none left.
            expect(node.balance(3), number)
        node.message(TELL, DEPOSIT, 3, struct.pack("<q", 1))
    expect(node.balance(3), told)
    assert told - node.credit < node.share, node.credit


def every_shard_is_found(address):
    node = Connection(address)
    expect(node.flags & 1, 1)
    lanes = [Connection(address, shard=shard) for shard in range(node.shards)]
    expect([lane.shard for lane in lanes], list(range(node.shards)))
    for key in range(1000, 1100):
        expect(lanes[shard_of(key, node.secret, node.shards)].amount(DEPOSIT, key, key), key)


def errors_say_why(address):
    node = Connection(address)
    expect(node.ask(DEPOSIT, 4, b"short"), 7)
    node.numbers = (*node.numbers, 60_000)
    expect(node.ask(4, 4), 8)
    expect(node.balance(4), 0)


def pings_are_answered(address):
    node = Connection(address)
    node.send(PING, call=77)
    expect(node.read()[::2], (PONG, 77))


def goodbye_is_said_in_both_directions(address):
    node = Connection(address)
    node.message(ASK, BALANCE, 5, b"")
    node.send(GO_AWAY)
    expect(node.read()[0], REPLY)
    expect(node.socket.recv(1), b"")
    node = Connection(address)
    node.message(TELL, DEPOSIT, 5, b"short")
    expect_refused(7, node.read)
    expect(node.socket.recv(1), b"")
    node = Connection(address)
    node.send(HELLO)
    expect_refused(32, node.read)


CASES = [
    handshake_says_what_the_node_takes,
    asks_are_answered_by_the_entity,
    answers_find_their_asks,
    credit_comes_back_for_tells,
    every_shard_is_found,
    errors_say_why,
    pings_are_answered,
    goodbye_is_said_in_both_directions,
]


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    host, port = sys.argv[1].rsplit(":", 1)
    passed = failed = 0
    for case in CASES:
        try:
            case((host, int(port)))
            passed += 1
            print(f"ok      {case.__name__}", flush=True)
        except Exception:
            failed += 1
            print(f"FAILED  {case.__name__}\n{traceback.format_exc()}", flush=True)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
