#!/usr/bin/env python3
"""Uses the example `kv` the way services do: through redis-py, unchanged, in RESP2 and in RESP3.

    redis_py.py HOST:PORT

The server must be empty and used by nobody else. Ends with a line `N passed, N failed`.
"""

import sys
import threading
import time
import traceback

import redis


def expect(actual, expected):
    assert actual == expected, f"expected {expected!r}, got {actual!r}"


def expect_error(text, call, *arguments, **options):
    try:
        result = call(*arguments, **options)
    except redis.ResponseError as error:
        assert text in str(error), f"expected an error with {text!r}, got {error!r}"
        return
    raise AssertionError(f"expected an error with {text!r}, got {result!r}")


def strings_come_back_as_they_went(client):
    for key, value in ((b"k", b"v"), (b"\x00\xff", bytes(range(256))), ("ключ", "значение"), ("", ""), ("n", 42)):
        expect(client.set(key, value), True)
        expected = value if isinstance(value, bytes) else str(value).encode()
        expect(client.get(key), expected)
        expect(client.strlen(key), len(expected))
    expect(client.get("absent"), None)
    big = b"x\r\n" * 1_000_000
    expect(client.set("big", big), True)
    expect(client.get("big"), big)


def set_has_its_conditions(client):
    expect(client.set("k", "1", xx=True), None)
    expect(client.set("k", "1", nx=True), True)
    expect(client.set("k", "2", nx=True), None)
    expect(client.set("k", "2", get=True), b"1")
    expect(client.set("k", "3", xx=True), True)
    expect(client.getset("k", "4"), b"3")
    expect(client.setnx("k", "5"), False)
    expect(client.getdel("k"), b"4")
    expect(client.exists("k"), 0)


def lifetimes_count_down_and_end(client):
    expect(client.set("k", "v", ex=100), True)
    assert 98 <= client.ttl("k") <= 100
    expect(client.set("k", "w", keepttl=True), True)
    assert 98_000 <= client.pttl("k") <= 100_000
    expect(client.persist("k"), True)
    expect(client.ttl("k"), -1)
    expect(client.set("k", "v", exat=int(time.time()) + 50), True)
    assert 47 <= client.ttl("k") <= 50
    expect(client.expire("k", 200), True)
    assert 198 <= client.ttl("k") <= 200
    expect(client.pexpire("k", 50), True)
    until = time.monotonic() + 5
    while client.exists("k") and time.monotonic() < until:
        time.sleep(0.01)
    expect(client.get("k"), None)
    expect(client.ttl("k"), -2)
    expect(client.expire("k", 10), False)


def counters_count(client):
    expect([client.incr("n"), client.incrby("n", 41), client.decr("n"), client.decrby("n", 41)], [1, 42, 41, 0])
    client.set("n", "text")
    expect_error("not an integer", client.incr, "n")
    client.set("n", 2**63 - 1)
    expect_error("overflow", client.incr, "n")


def many_keys_keep_their_order(client):
    pairs = {f"key:{index}": str(index * 7).encode() for index in range(2000)}
    expect(client.mset(pairs), True)
    expect(client.mget(list(pairs)), list(pairs.values()))
    expect(client.mget(["key:5", "absent", "key:3", "key:5"]), [b"35", None, b"21", b"35"])
    expect(client.exists(*pairs), 2000)
    expect(client.dbsize(), 2000)
    expect(client.delete(*list(pairs)[:500], "absent"), 500)
    expect(client.dbsize(), 1500)
    expect(client.flushall(), True)
    expect(client.dbsize(), 0)


def pipelines_answer_in_order(client):
    pipe = client.pipeline(transaction=False)
    for index in range(3000):
        pipe.set(f"p:{index}", index)
        pipe.incrby(f"p:{index}", 1)
        pipe.get(f"p:{index % 50}")
    answers = pipe.execute()
    expect(answers[0::3], [True] * 3000)
    expect(answers[1::3], [index + 1 for index in range(3000)])
    expect(answers[2::3], [b"%d" % (index % 50 + 1) for index in range(3000)])


def an_error_in_a_pipeline_stands_in_its_place(client):
    pipe = client.pipeline(transaction=False)
    pipe.set("text", "x").incr("text").get("text").execute_command("NOSUCH", "a").ping()
    answers = pipe.execute(raise_on_error=False)
    expect([answers[0], answers[2], answers[4]], [True, b"x", True])
    assert isinstance(answers[1], redis.ResponseError) and "not an integer" in str(answers[1]), answers[1]
    assert isinstance(answers[3], redis.ResponseError) and "unknown command" in str(answers[3]), answers[3]


def transactions_are_refused_clearly(client):
    for command in ("MULTI", "EXEC", "DISCARD"):
        expect_error(f"unknown command '{command}'", client.execute_command, command)
    pipe = client.pipeline(transaction=True)
    pipe.incr("k")
    expect_error("unknown command", pipe.execute)
    expect(client.ping(), True)


def append_type_and_echo(client):
    expect([client.append("a", "one"), client.append("a", b"\x00two")], [3, 7])
    expect(client.get("a"), b"one\x00two")
    expect([client.type("a"), client.type("absent")], [b"string", b"none"])
    expect(client.echo("hello"), b"hello")
    expect(client.ping(), True)


def the_connection_has_a_name_and_a_number(client):
    with client.client() as one:
        expect(one.client_setname("worker-1"), True)
        expect(one.client_getname() in ("worker-1", b"worker-1"), True)
        assert isinstance(one.client_id(), int)
    expect(client.select(0), True)
    assert "redis_version" in client.info()
    assert len(client.execute_command("COMMAND")) > 0


def wrong_use_is_answered_and_the_connection_goes_on(client):
    with client.client() as one:
        number = one.client_id()
        expect_error("wrong number of arguments", one.execute_command, "GET")
        expect_error("syntax error", one.execute_command, "SET", "k", "v", "BOGUS")
        expect_error("unknown command", one.execute_command, "LPUSH", "k", "v")
        expect_error("invalid expire", one.execute_command, "SET", "k", "v", "EX", "0")
        expect(one.client_id(), number)


def threads_lose_no_increment(client):
    failures = []

    def work():
        try:
            for _ in range(500):
                client.incr("shared")
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expect(failures, [])
    expect(client.get("shared"), b"4000")


def connections_come_and_go(client):
    options = client.connection_pool.connection_kwargs
    options = {name: options[name] for name in ("host", "port", "protocol")}
    for index in range(200):
        one = redis.Redis(**options)
        expect(one.set("visitor", index), True)
        one.close()
    expect(client.get("visitor"), b"199")


CASES = [
    strings_come_back_as_they_went,
    set_has_its_conditions,
    lifetimes_count_down_and_end,
    counters_count,
    many_keys_keep_their_order,
    pipelines_answer_in_order,
    an_error_in_a_pipeline_stands_in_its_place,
    transactions_are_refused_clearly,
    append_type_and_echo,
    the_connection_has_a_name_and_a_number,
    wrong_use_is_answered_and_the_connection_goes_on,
    threads_lose_no_increment,
    connections_come_and_go,
]


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    host, port = sys.argv[1].rsplit(":", 1)
    passed = failed = 0
    for protocol in (2, 3):
        client = redis.Redis(host=host, port=int(port), protocol=protocol, socket_timeout=30)
        for case in CASES:
            name = f"{case.__name__} resp{protocol}"
            try:
                client.flushall()
                case(client)
                passed += 1
                print(f"ok      {name}", flush=True)
            except Exception:
                failed += 1
                print(f"FAILED  {name}\n{traceback.format_exc()}", flush=True)
        client.close()
    print(f"redis-py {redis.__version__}")
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
