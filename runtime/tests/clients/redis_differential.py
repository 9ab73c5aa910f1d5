#!/usr/bin/env python3
"""Runs the same commands against redis-server and against the example `kv`, and compares every byte of every reply.

    redis_differential.py --redis HOST:PORT --kv HOST:PORT [--seed N] [--commands N]

Both servers must be empty and used by nobody else: the runs start with FLUSHALL. Redis is the oracle, so no expected
reply is written down here. Sockets are raw, because a client library would hide what is compared. The only replies that
are not compared byte for byte are remaining lifetimes, which may differ by the time between two commands.

Ends with a line `N passed, N failed`; on a failure the seed and the commands before it are shown.
"""

import argparse
import random
import select
import socket
import sys
import time
import traceback

REPLY_TIMEOUT_S = 20.0
LIFETIME_SLACK = {b"TTL": 1, b"PTTL": 1500}
HISTORY_SHOWN = 12


class Link:
    """One raw connection, and the replies on it as they came, byte for byte."""

    def __init__(self, name, address):
        self.name = name
        self.socket = socket.create_connection(address, timeout=REPLY_TIMEOUT_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.received = bytearray()
        self.closed = False

    def send(self, data):
        self.socket.sendall(data)

    def send_in_pieces(self, data, cuts):
        """Sends with a break at each cut, so that commands reach the server in parts."""
        start = 0
        for cut in [*cuts, len(data)]:
            if start:
                time.sleep(0.001)
            self.socket.sendall(data[start:cut])
            start = cut

    def _more(self):
        data = self.socket.recv(1 << 18)
        if not data:
            raise EOFError(f"{self.name} closed the connection")
        self.received += data

    def _take(self, count):
        while len(self.received) < count:
            self._more()
        taken = bytes(self.received[:count])
        del self.received[:count]
        return taken

    def _line(self):
        while (end := self.received.find(b"\r\n")) < 0:
            self._more()
        return self._take(end + 2)

    def reply(self):
        """The next reply, whole and unparsed."""
        line = self._line()
        kind, rest = line[:1], line[1:-2]
        if kind in b"$=!" and rest != b"-1":
            return line + self._take(int(rest) + 2)
        if kind in b"*~>" and rest != b"-1":
            return line + b"".join(self.reply() for _ in range(int(rest)))
        if kind == b"%":
            return line + b"".join(self.reply() for _ in range(2 * int(rest)))
        if kind not in b"+-:$*_#,(":
            raise ValueError(f"{self.name}: not a reply: {line!r}")
        return line

    def call(self, *words):
        self.send(encode(words))
        return self.reply()

    def gather(self, limit_s, enough=lambda data, closed: False):
        """What comes until the server closes, it is enough, or time is up: (bytes, closed). May be called again."""
        until = time.monotonic() + limit_s
        while not self.closed and not enough(bytes(self.received), self.closed):
            left = until - time.monotonic()
            if left <= 0 or not select.select([self.socket], [], [], left)[0]:
                break
            try:
                data = self.socket.recv(1 << 18)
            except ConnectionResetError:
                data = b""
            self.closed = not data
            self.received += data
        return bytes(self.received), self.closed

    def close(self):
        self.socket.close()


def encode(words):
    parts = [b"*%d\r\n" % len(words)]
    for word in words:
        parts.append(b"$%d\r\n%s\r\n" % (len(word), word))
    return b"".join(parts)


def show(words):
    text = " ".join(repr(word)[2:-1] if word else '""' for word in words)
    return text if len(text) < 120 else f"{text[:120]}.."


class Difference(AssertionError):
    pass


def same_reply(words, redis, kv):
    """Equal byte for byte; a positive lifetime may differ by the time that passed between the two."""
    if redis == kv:
        return True
    slack = LIFETIME_SLACK.get(words[0].upper()) if words else None
    if slack is None or redis[:1] != b":" or kv[:1] != b":":
        return False
    ours, theirs = int(kv[1:]), int(redis[1:])
    return ours >= 0 and theirs >= 0 and abs(ours - theirs) <= slack


class Pair:
    """The two servers, given the same bytes."""

    compared = 0

    def __init__(self, where):
        self.where = where
        self.redis = Link("redis", where.redis)
        self.kv = Link("kv", where.kv)
        self.history = []

    def both(self, *words):
        """One command on both, compared; returns the reply."""
        return self.batch([words])[0]

    def batch(self, commands, cuts=()):
        """A pipeline on both, every reply compared in order."""
        data = b"".join(encode(words) for words in commands)
        for link in (self.redis, self.kv):
            link.send_in_pieces(data, cuts)
        replies = []
        for words in commands:
            redis = self.redis.reply()
            try:
                kv = self.kv.reply()
            except (EOFError, OSError, ValueError) as error:
                raise Difference(self._report(words, redis, repr(error).encode())) from error
            if not same_reply(words, redis, kv):
                raise Difference(self._report(words, redis, kv))
            Pair.compared += 1
            self.history.append((words, redis))
            replies.append(redis)
        del self.history[:-HISTORY_SHOWN]
        return replies

    def raw(self, data):
        """The same bytes to both; compares all that comes back and whether the connection is closed."""
        self.redis.send(data)
        self.kv.send(data)
        expected = self.redis.gather(0.15)
        found = self.kv.gather(2.0, lambda *state: state == expected)
        if found == expected:
            # Neither may have more to say.
            expected, found = self.redis.gather(0.0), self.kv.gather(0.05)
        else:
            expected = self.redis.gather(1.0, lambda *state: state == found)
        Pair.compared += 1
        if found != expected:
            raise Difference(
                f"sent  {data[:200]!r}\n"
                f"redis {expected[0][:300]!r}, {'closed' if expected[1] else 'open'}\n"
                f"kv    {found[0][:300]!r}, {'closed' if found[1] else 'open'}"
            )
        self.redis.received.clear()
        self.kv.received.clear()

    def again(self):
        """New connections to both."""
        self.close()
        self.redis = Link("redis", self.where.redis)
        self.kv = Link("kv", self.where.kv)

    def close(self):
        self.redis.close()
        self.kv.close()

    def _report(self, words, redis, kv):
        before = "\n".join(f"  {show(words)} -> {reply[:60]!r}" for words, reply in self.history)
        return f"before:\n{before}\ncommand: {show(words)}\nredis: {redis[:200]!r}\nkv:    {kv[:200]!r}"


# --- Random commands --------------------------------------------------------------------------------------------------

INTEGERS = [
    b"0", b"1", b"-1", b"5", b"10", b"-10", b"42", b"100", b"9223372036854775807", b"-9223372036854775808",
    b"9223372036854775806", b"4611686018427387904",
]
NOT_INTEGERS = [
    b"", b" 1", b"1 ", b"+1", b"01", b"-0", b"00", b"1.0", b"1e3", b"abc", b"0x10", b"9223372036854775808",
    b"-9223372036854775809", b"99999999999999999999999", b"\xff\xfe", b"-", b"1\x00", b"nan",
]
# Other lifetimes are drawn from a range so wide that GT and LT never depend on the millisecond of a command.
WRONG_LIFETIMES = [
    b"0", b"-1", b"-100", b"9223372036854775807", b"9223372036854775", b"9223372036854775808", b"abc", b"1.5", b"",
]
ABSOLUTE = [b"4102444800", b"9999999999"]
ABSOLUTE_PAST = [b"1", b"1000000000"]


def any_case(rng, word):
    return rng.choice([word, word, word.lower(), word.capitalize()])


def value(rng):
    roll = rng.random()
    if roll < 0.30:
        return rng.choice(INTEGERS)
    if roll < 0.40:
        return rng.choice(NOT_INTEGERS)
    if roll < 0.70:
        return rng.randbytes(rng.randrange(0, 24))
    if roll < 0.90:
        return bytes(rng.choices(b"abcdefgh\r\n $*:+-_", k=rng.randrange(1, 100)))
    if roll < 0.99:
        return rng.randbytes(rng.randrange(100, 3000))
    return rng.randbytes(rng.randrange(3000, 70_000))


def lifetime(rng, millis=False):
    if rng.random() < 0.25:
        return rng.choice(WRONG_LIFETIMES)
    return b"%d" % (rng.randrange(100_000, 10**9) if millis else rng.randrange(100, 10**6))


def set_command(rng, key):
    words = [any_case(rng, b"SET"), key(), value(rng)]
    for _ in range(rng.choice([0, 0, 0, 1, 1, 2, 3])):
        option = rng.choice([b"EX", b"PX", b"EXAT", b"PXAT", b"NX", b"XX", b"KEEPTTL", b"GET", b"NX", b"XX", b"GET"])
        words.append(any_case(rng, option))
        if option in (b"EX", b"PX"):
            words.append(lifetime(rng, option == b"PX"))
        elif option in (b"EXAT", b"PXAT"):
            when = rng.choice(ABSOLUTE + ABSOLUTE_PAST + WRONG_LIFETIMES)
            words.append(when + b"000" if option == b"PXAT" and when in ABSOLUTE + ABSOLUTE_PAST else when)
    if rng.random() < 0.04:
        words.append(rng.choice([b"BOGUS", b"EX", b"", b"\x00", b"GETS"]))
    return words


def expire_command(rng, key):
    name = rng.choice([b"EXPIRE", b"PEXPIRE"])
    words = [any_case(rng, name), key(), lifetime(rng, name == b"PEXPIRE")]
    if rng.random() < 0.25:
        words.append(any_case(rng, rng.choice([b"NX", b"XX", b"GT", b"LT", b"BOGUS"])))
        if rng.random() < 0.3:
            words.append(rng.choice([b"NX", b"XX", b"GT", b"LT"]))
    return words


def integer(rng):
    return rng.choice(NOT_INTEGERS) if rng.random() < 0.2 else rng.choice(INTEGERS)


def command(rng, key):
    """One random command. `key` makes keys, so that a run can choose how many there are."""
    keys = [key() for _ in range(rng.choice([1, 1, 2, 3, 8]))]
    pairs = [word for name in keys for word in (name, value(rng))]
    choices = [
        (10, lambda: [b"GET", key()]),
        (16, lambda: set_command(rng, key)),
        (3, lambda: [b"SETNX", key(), value(rng)]),
        (3, lambda: [b"GETSET", key(), value(rng)]),
        (3, lambda: [b"GETDEL", key()]),
        (4, lambda: [b"DEL", *keys]),
        (4, lambda: [b"EXISTS", *keys]),
        (5, lambda: [b"INCR", key()]),
        (4, lambda: [b"INCRBY", key(), integer(rng)]),
        (4, lambda: [b"DECR", key()]),
        (4, lambda: [b"DECRBY", key(), integer(rng)]),
        (6, lambda: [b"APPEND", key(), value(rng)]),
        (4, lambda: [b"STRLEN", key()]),
        (8, lambda: expire_command(rng, key)),
        (5, lambda: [rng.choice([b"TTL", b"PTTL"]), key()]),
        (3, lambda: [b"PERSIST", key()]),
        (5, lambda: [b"MGET", *keys]),
        (4, lambda: [b"MSET", *pairs]),
        (2, lambda: [b"TYPE", key()]),
        (2, lambda: [b"DBSIZE"]),
        (1, lambda: [b"ECHO", value(rng)]),
        (1, lambda: [b"PING"] + ([value(rng)] if rng.random() < 0.5 else [])),
        (0.15, lambda: [b"FLUSHALL"] + rng.choice([[], [b"SYNC"], [b"sync"], [b"BOGUS"]])),
        (1, lambda: [b"MSET", *pairs, key()]),
        (2, lambda: wrong_arity(rng, key)),
        (1, lambda: unknown(rng)),
    ]
    weights, makers = zip(*choices)
    words = rng.choices(makers, weights)[0]()
    return [any_case(rng, words[0]), *words[1:]]


def wrong_arity(rng, key):
    name = rng.choice([
        b"GET", b"SET", b"SETNX", b"GETSET", b"GETDEL", b"DEL", b"EXISTS", b"INCR", b"INCRBY", b"DECR", b"DECRBY",
        b"APPEND", b"STRLEN", b"EXPIRE", b"PEXPIRE", b"TTL", b"PTTL", b"PERSIST", b"MGET", b"MSET", b"TYPE", b"DBSIZE",
        b"ECHO", b"PING",
    ])
    count = rng.choice([0, 0, 1, 4, 5])
    if name in (b"DEL", b"EXISTS", b"MGET", b"MSET", b"SET"):
        count = 0
    if name in (b"EXPIRE", b"PEXPIRE"):
        count = rng.choice([0, 1])
    if name == b"DBSIZE":
        count = rng.choice([1, 3])
    return [name, *(key() for _ in range(count))]


def unknown(rng):
    # Redis cuts an unknown name at a zero byte, because it prints it as a C string: that is not compared.
    name = rng.choice([b"NOSUCH", b"GETT", b"", b"SET ", b"GE\xffT", b"FOO.BAR", b"x" * 200])
    words = [bytes(rng.choices(b"abc 'def", k=rng.randrange(0, 60))) for _ in range(rng.randrange(0, 5))]
    return [name, *words]


# --- Cases ------------------------------------------------------------------------------------------------------------
# A case is a function of (pair, options). Both servers are empty when it starts, on new connections.


def random_run(pair, options, seed, protocol, key_count, largest_batch):
    rng = random.Random(seed)
    if protocol == 3:
        for link in (pair.redis, pair.kv):
            if not link.call(b"HELLO", b"3").startswith(b"%"):
                raise Difference(f"{link.name} did not answer HELLO 3 with a map")
    names = [b"key:%d" % index for index in range(key_count - 3)] + [b"", b"\x00\xff\r\n", b"k" * 300]

    def key():
        return rng.choice(names)

    done = 0
    while done < options.commands:
        commands = []
        for _ in range(rng.randrange(1, largest_batch + 1)):
            words = command(rng, key)
            if words[0].upper() == b"DBSIZE":
                # Redis counts what has expired until somebody looks at it.
                commands.append([b"EXISTS", *names])
            commands.append(words)
        cuts = ()
        if rng.random() < 0.02:
            size = sum(len(encode(words)) for words in commands)
            cuts = sorted(rng.randrange(1, size) for _ in range(3))
        pair.batch(commands, cuts)
        done += len(commands)
    final = [[word, name] for name in names for word in (b"GET", b"TTL")]
    pair.batch([*final, [b"DBSIZE"]])


def lifetimes_end_when_they_should(pair, _options):
    """Short lifetimes, waited for: the value is there before and gone after, by every command that sees it."""
    readers = [
        [b"GET"], [b"EXISTS"], [b"TTL"], [b"PTTL"], [b"TYPE"], [b"STRLEN"], [b"PERSIST"], [b"GETDEL"], [b"DEL"],
        [b"INCR"], [b"APPEND", b"x"], [b"SETNX", b"x"], [b"GETSET", b"x"], [b"MGET"], [b"EXPIRE", b"100"],
        [b"SET", b"x", b"XX"], [b"SET", b"x", b"NX"], [b"SET", b"x", b"KEEPTTL"], [b"SET", b"x", b"GET"],
    ]
    for index in range(len(readers)):
        short = b"short:%d" % index
        pair.both(b"SET", short, b"5", b"PX", b"300")
    pair.both(b"MGET", *(b"short:%d" % index for index in range(len(readers))))
    time.sleep(0.4)
    for index, (name, *rest) in enumerate(readers):
        short = b"short:%d" % index
        pair.both(name, short, *rest)
        pair.both(b"GET", short)
        pair.both(b"TTL", short)
    pair.both(b"SET", b"moved", b"1", b"PX", b"300")
    pair.both(b"PEXPIRE", b"moved", b"60000")
    pair.both(b"SET", b"kept", b"1", b"PX", b"300")
    pair.both(b"PERSIST", b"kept")
    pair.both(b"SET", b"replaced", b"1", b"PX", b"300")
    pair.both(b"SET", b"replaced", b"2")
    time.sleep(0.4)
    pair.both(b"MGET", b"moved", b"kept", b"replaced")


def commands_that_keep_or_drop_a_lifetime(pair, _options):
    for words in (
        [b"INCR", b"k"], [b"INCRBY", b"k", b"3"], [b"DECR", b"k"], [b"APPEND", b"k", b"1"], [b"SET", b"k", b"1"],
        [b"SET", b"k", b"1", b"KEEPTTL"], [b"GETSET", b"k", b"1"], [b"SETNX", b"k", b"1"], [b"MSET", b"k", b"1"],
        [b"SET", b"k", b"1", b"XX", b"GET"], [b"PERSIST", b"k"], [b"EXPIRE", b"k", b"-1"], [b"EXPIRE", b"k", b"0"],
        [b"PEXPIRE", b"k", b"-5"], [b"SET", b"k", b"1", b"EXAT", b"1"], [b"INCRBY", b"k", b"abc"],
    ):
        pair.both(b"SET", b"k", b"7", b"EX", b"500")
        pair.both(*words)
        pair.both(b"TTL", b"k")
        pair.both(b"EXISTS", b"k")
        pair.both(b"GET", b"k")


def counters_stop_at_their_limits(pair, _options):
    for start in (*INTEGERS, *NOT_INTEGERS):
        for words in (
            [b"INCR", b"n"], [b"DECR", b"n"], [b"INCRBY", b"n", b"9223372036854775807"],
            [b"INCRBY", b"n", b"-9223372036854775808"], [b"DECRBY", b"n", b"-9223372036854775808"],
            [b"DECRBY", b"n", b"9223372036854775807"], [b"DECRBY", b"n", b"-9223372036854775807"],
        ):
            pair.both(b"SET", b"n", start)
            pair.both(*words)
            pair.both(b"GET", b"n")
    for text in NOT_INTEGERS:
        pair.both(b"INCRBY", b"n", text)
        pair.both(b"DECRBY", b"n", text)


def every_byte_in_keys_and_values(pair, _options):
    for byte in range(256):
        word = bytes([byte])
        pair.both(b"SET", word, word * 3)
        pair.both(b"GET", word)
        pair.both(b"APPEND", word, b"\r\n$5\r\n" + word)
        pair.both(b"GET", word)
        pair.both(b"STRLEN", word)
    pair.both(b"DBSIZE")


def large_values_and_many_keys(pair, _options):
    rng = random.Random(1)
    big = rng.randbytes(2_000_000)
    pair.both(b"SET", b"big", big)
    pair.both(b"GET", b"big")
    pair.both(b"APPEND", b"big", big)
    pair.both(b"STRLEN", b"big")
    pair.both(b"GETDEL", b"big")
    names = [b"many:%d" % index for index in range(5_000)]
    pair.both(b"MSET", *(word for name in names for word in (name, name * 2)))
    pair.both(b"MGET", *names, b"absent", *reversed(names))
    pair.both(b"EXISTS", *names, *names)
    pair.both(b"DBSIZE")
    pair.both(b"DEL", *names[::2], *names[:10])
    pair.both(b"DBSIZE")


def a_deep_pipeline_keeps_its_order(pair, _options):
    pair.batch([[b"INCR", b"n:%d" % (index % 97)] for index in range(20_000)])
    pair.batch([[b"GET", b"n:%d" % index] for index in range(100)])


def flushall_stands_in_its_place_in_a_pipeline(pair, _options):
    for _ in range(50):
        names = [b"f:%d" % index for index in range(20)]
        fill = [[b"SET", name, b"1"] for name in names]
        read = [[b"GET", name] for name in names]
        pair.batch([*fill, [b"DBSIZE"], [b"FLUSHALL"], [b"DBSIZE"], *read, *fill, [b"DBSIZE"], *read])


def connection_commands(pair, _options):
    for words in (
        [b"PING"], [b"PING", b""], [b"PING", b"a", b"b"], [b"ECHO"], [b"ECHO", b"x"], [b"SELECT", b"0"], [b"SELECT"],
        [b"SELECT", b"-1"], [b"SELECT", b"9999"], [b"SELECT", b"abc"], [b"AUTH", b"x"], [b"AUTH", b"default", b"x"],
        [b"AUTH"], [b"CLIENT", b"GETNAME"], [b"CLIENT", b"SETNAME", b"me"], [b"CLIENT", b"GETNAME"],
        [b"CLIENT", b"SETNAME", b"a b"], [b"CLIENT", b"GETNAME"], [b"CLIENT", b"SETNAME", b""], [b"CLIENT", b"GETNAME"],
        [b"CLIENT"], [b"CLIENT", b"NOSUCH"], [b"HELLO", b"4"], [b"HELLO", b"1"], [b"HELLO", b"abc"],
    ):
        pair.both(*words)
    pair.raw(encode([b"QUIT"]))


def hello_changes_the_protocol(pair, _options):
    pair.both(b"SET", b"k", b"1")
    for version in (b"3", b"2", b"3"):
        for link in (pair.redis, pair.kv):
            kind = link.call(b"HELLO", version)[:1]
            if kind != (b"%" if version == b"3" else b"*"):
                raise Difference(f"{link.name}: HELLO {version} answered {kind}")
        pair.batch([[b"GET", b"absent"], [b"MGET", b"k", b"absent"], [b"SET", b"k", b"2", b"NX"], [b"PING"], [b"GET"]])


def inline_commands(pair, _options):
    for line in (
        b"PING\r\n", b"PING\n", b"\r\n", b"\n", b"   PING   \r\n", b"SET k v\r\n", b"GET k\r\n", b"get k\n",
        b'SET k "a b"\r\n', b"GET k\r\n", b"SET k 'a\\'b'\r\n", b"GET k\r\n", b'SET k "\\x41\\n\\t\\"\\\\"\r\n',
        b"GET k\r\n", b'SET k ""\r\n', b"GET k\r\n", b"PING\r\nPING\r\nGET k\r\n", b"NOSUCH a b\r\n", b"GET\r\n",
        b"\tPING\t\r\n",
    ):
        pair.raw(line)


def broken_protocol(pair, _options):
    """What is wrong is said, and the connection is closed where Redis closes it."""
    for data in (
        b"*abc\r\n", b"*1x\r\n", b"*99999999999\r\n", b"*2147483648\r\n", b"*-2\r\nPING\r\n", b"*0\r\nPING\r\n",
        b"*-1\r\nPING\r\n", b"*1\r\nPING\r\n", b"*1\r\n+PING\r\n", b"*1\r\n:4\r\n", b"*1\r\n$abc\r\n", b"*1\r\n$-1\r\n",
        b"*1\r\n$-2\r\n", b"*1\r\n$99999999999\r\n", b"*1\r\n$536870913\r\n", b"*2\r\n$3\r\nGET\r\n$\r\n",
        b"*1\r\n\r\n", b'SET k "open\r\n', b"SET k 'open\r\n", b'SET k "a"b\r\n', b"*1\r\n$4\r\nPING\r\n*x\r\n",
        b"*" + b"1" * 70_000, b"*1\r\n$" + b"1" * 70_000, b"A" * 70_000, b"*+1\r\n$4\r\nPING\r\n", b"*01\r\n",
        b"* 1\r\n", b"*\r\n", b"*1\r\n$ 4\r\nPING\r\n", b"*1\r\n$+4\r\nPING\r\n",
        b"*1\r\n$4\r\nPINGxx*1\r\n$4\r\nPING\r\n",
    ):
        pair.again()
        pair.raw(data)


def byte_by_byte(pair, _options):
    data = encode([b"SET", b"slow", b"a\r\nb"]) + encode([b"GET", b"slow"]) + b"PING\r\n"
    for link in (pair.redis, pair.kv):
        link.send_in_pieces(data, range(1, len(data)))
    for _ in range(3):
        if pair.redis.reply() != pair.kv.reply():
            raise Difference("replies to commands that arrived byte by byte differ")


def cases(options):
    plain = [
        connection_commands, hello_changes_the_protocol, inline_commands, broken_protocol, byte_by_byte,
        lifetimes_end_when_they_should, commands_that_keep_or_drop_a_lifetime, counters_stop_at_their_limits,
        every_byte_in_keys_and_values, large_values_and_many_keys, a_deep_pipeline_keeps_its_order,
        flushall_stands_in_its_place_in_a_pipeline,
    ]
    for case in plain:
        yield case.__name__, case
    for offset, (protocol, key_count, largest_batch) in enumerate(
        (protocol, key_count, batch) for protocol in (2, 3) for key_count in (5, 60) for batch in (1, 40)
    ):
        seed = options.seed + offset

        def run(pair, options, seed=seed, protocol=protocol, key_count=key_count, batch=largest_batch):
            random_run(pair, options, seed, protocol, key_count, batch)

        yield f"random_run seed={seed} resp{protocol} keys={key_count} pipeline<={largest_batch}", run


def address(text):
    host, port = text.rsplit(":", 1)
    return host, int(port)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--redis", type=address, required=True, metavar="HOST:PORT")
    parser.add_argument("--kv", type=address, required=True, metavar="HOST:PORT")
    parser.add_argument("--seed", type=int, default=1, help="first seed of the random runs")
    parser.add_argument("--commands", type=int, default=4000, help="commands in each random run")
    parser.add_argument("--only", default="", help="only the cases whose name contains this")
    options = parser.parse_args()
    passed = failed = 0
    for name, case in cases(options):
        if options.only not in name:
            continue
        pair = None
        try:
            pair = Pair(options)
            pair.both(b"FLUSHALL")
            case(pair, options)
            passed += 1
            print(f"ok      {name}", flush=True)
        except Exception as error:
            failed += 1
            detail = str(error) if isinstance(error, Difference) else traceback.format_exc()
            print(f"FAILED  {name}\n{detail}\n", flush=True)
        finally:
            if pair:
                pair.close()
    print(f"{Pair.compared} replies compared with Redis's")
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
