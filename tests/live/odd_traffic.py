"""Real clients that ask for what is easily misread: pipelines, errors, big values, cursors, transactions, streams.

python -m tests.live.odd_traffic [NAME...]      against the servers of services.py, in their namespace
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

HOST = "127.0.0.1"


def mysql() -> None:
    import mysql.connector
    import pymysql
    import pymysql.cursors

    login: dict[str, Any] = {"host": HOST, "user": "app", "password": "secret", "database": "shop"}
    with contextlib.suppress(pymysql.err.OperationalError):
        pymysql.connect(**login | {"password": "wrong"})
    plain = pymysql.connect(**login, local_infile=True, autocommit=True)
    many = pymysql.constants.CLIENT.MULTI_STATEMENTS
    with plain.cursor() as cursor:
        cursor.execute("CREATE TABLE item (id INT PRIMARY KEY AUTO_INCREMENT, name VARCHAR(300), body LONGTEXT)")
        cursor.executemany("INSERT INTO item (name, body) VALUES (%s, %s)", [(f"n{i}", "b" * i) for i in range(200)])
        cursor.execute(
            "SELECT id, name FROM item WHERE id < 50 -- traceparent='00-" + "ab" * 16 + "-" + "cd" * 8 + "-01'"
        )
        cursor.execute("INSERT INTO item (name, body) VALUES ('big', REPEAT('x', 300000))")
        cursor.execute("SELECT body FROM item WHERE name = 'big'")
        for wrong in ("SELEC 1", "SELECT * FROM nowhere", "INSERT INTO item (id) VALUES (1)"):
            with contextlib.suppress(pymysql.err.MySQLError):
                cursor.execute(wrong)
        with tempfile.NamedTemporaryFile("w", suffix=".csv") as rows:
            rows.write("".join(f"{i}\tloaded {i}\n" for i in range(1000, 1200)))
            rows.flush()
            cursor.execute(f"LOAD DATA LOCAL INFILE '{rows.name}' INTO TABLE item (id, name)")
            with contextlib.suppress(pymysql.err.MySQLError, OSError):
                cursor.execute("LOAD DATA LOCAL INFILE '/nowhere/at/all' INTO TABLE item (id, name)")
    plain.ping()
    plain.select_db("mysql")
    plain.close()
    several = pymysql.connect(**login, client_flag=many)
    with several.cursor() as cursor:
        cursor.execute("SELECT 1; SELECT 2, 3; UPDATE item SET name = 'x' WHERE id = 3")
        while cursor.nextset():
            pass
    several.close()
    streamed = pymysql.connect(**login, cursorclass=pymysql.cursors.SSCursor)
    with streamed.cursor() as cursor:
        cursor.execute("SELECT id, name, body FROM item")
        cursor.fetchall()
    streamed.close()
    for compress in (False, True):
        prepared = mysql.connector.connect(**login, use_pure=True, compress=compress, ssl_disabled=True)
        with prepared.cursor(prepared=True) as cursor:
            for number in range(5):
                cursor.execute("SELECT id, name FROM item WHERE id > %s AND name <> %s LIMIT 20", (number, "é"))
                cursor.fetchall()
        with prepared.cursor() as cursor:
            cursor.execute("SELECT REPEAT('compress me ', 2000)")
            cursor.fetchall()
        prepared.close()


def postgresql() -> None:
    import psycopg

    dsn = f"host={HOST} user=app dbname=postgres"
    with contextlib.suppress(psycopg.OperationalError):
        psycopg.connect(f"host={HOST} user=nobody dbname=postgres")
    with psycopg.connect(dsn, autocommit=True, prepare_threshold=2) as connection:
        connection.execute("CREATE TABLE item (id int PRIMARY KEY, name text, body text)")
        with connection.cursor() as cursor:
            with cursor.copy("COPY item (id, name) FROM STDIN") as copy:
                for number in range(300):
                    copy.write_row((number, f"name {number}"))
            with cursor.copy("COPY item TO STDOUT") as copy:
                list(copy)
            for number in range(5):
                cursor.execute("SELECT id, name FROM item WHERE id < %s AND name <> %s", (number * 10, "x"))
                cursor.fetchall()
            for wrong in ("SELEC 1", "SELECT * FROM nowhere", "INSERT INTO item (id) VALUES (1)", "SELECT 1/0"):
                with contextlib.suppress(psycopg.Error):
                    cursor.execute(wrong)
            cursor.execute("SELECT repeat('x', 50000)")
            cursor.execute("DO $$ BEGIN RAISE NOTICE 'hello'; END $$")
            cursor.execute("LISTEN news")
            cursor.execute("NOTIFY news, 'extra'")
    with psycopg.connect(dsn) as connection:
        with connection.transaction(), connection.cursor("big") as cursor:
            cursor.itersize = 50
            cursor.execute("SELECT * FROM item")
            for _ in cursor:
                pass
        with contextlib.suppress(psycopg.Error), connection.pipeline():
            for number in range(6):
                connection.execute("SELECT name FROM item WHERE id = %s", (number,))
            connection.execute("SELECT * FROM not_there")
            connection.execute("SELECT 7")
        connection.rollback()


def redis() -> None:
    import redis as library

    for protocol in (2, 3):
        client: Any = library.Redis(HOST, 6379, protocol=protocol)
        client.set("user:17:name", "x" * 100_000)
        client.get("user:17:name")
        with client.pipeline(transaction=False) as pipe:
            for number in range(50):
                pipe.set(f"key:{number}", number).incr(f"key:{number}").get(f"key:{number}").delete("nothing")
            pipe.lpop("key:1")
            pipe.execute(raise_on_error=False)
        with client.pipeline() as pipe:
            pipe.hset("h:1", mapping={"a": 1, "b": 2}).hgetall("h:1").zadd("z", {"m": 1.5}).zrange(
                "z", 0, -1, withscores=True
            )
            pipe.lpush("h:1", 1)
            pipe.execute(raise_on_error=False)
        client.eval("return {1, {2, 'x'}, redis.status_reply('fine')}", 0)
        for wrong in ("NOSUCH thing", "GET"):
            with contextlib.suppress(library.ResponseError):
                client.execute_command(*wrong.split())
        hear = client.pubsub()
        hear.subscribe("news", "more")
        hear.psubscribe("w*")
        for _ in range(3):
            hear.get_message(timeout=2)
        for number in range(5):
            client.publish("news", f"item {number}")
            client.publish("weather", "rain")
        for _ in range(10):
            hear.get_message(timeout=2)
        hear.unsubscribe()
        hear.punsubscribe()
        for _ in range(3):
            hear.get_message(timeout=2)
        hear.close()
        client.blpop(["empty"], timeout=1)
        client.close()
    with socket.create_connection((HOST, 6379)) as raw:
        raw.sendall(b"PING\r\nSET inline 1\r\nGET inline\r\n*1\r\n$4\r\nQUIT\r\n")
        while raw.recv(4096):
            pass


def nginx() -> None:
    connection = http.client.HTTPConnection(HOST)
    for method, path, headers in (
        ("GET", "/item/1", {"traceparent": "00-" + "12" * 16 + "-" + "34" * 8 + "-01"}),
        ("GET", "/item/2?x=1", {"Accept-Encoding": "gzip"}),
        ("HEAD", "/item/3", {}),
        ("GET", "/missing", {}),
        ("GET", "/broken", {}),
        ("GET", "/moved", {}),
        ("GET", "/big", {}),
        ("GET", "/big", {"Range": "bytes=100-199"}),
        ("PUT", "/item/9", {}),
        ("POST", "/item/7", {"Expect": "100-continue"}),
    ):
        connection.request(method, path, b"body" * 5000 if method in ("PUT", "POST") else None, headers)
        connection.getresponse().read()
    connection.request(
        "POST",
        "/item/8",
        iter([b"chunk one", b"chunk two" * 500]),
        encode_chunked=True,
        headers={"Transfer-Encoding": "chunked"},
    )
    connection.getresponse().read()
    connection.close()
    with socket.create_connection((HOST, 80)) as raw:
        one = b"GET /item/%d HTTP/1.1\r\nHost: pipelined\r\n\r\n"
        raw.sendall(
            b"".join(one % n for n in range(8)) + b"GET /missing HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        )
        while raw.recv(65536):
            pass
    with socket.create_connection((HOST, 80)) as raw:
        raw.sendall(b"NONSENSE\r\n\r\n")
        while raw.recv(65536):
            pass


def memcached() -> None:
    from pymemcache.client.base import Client

    client = Client((HOST, 11211), default_noreply=False)
    client.set("user:1", b"x" * 50_000)
    client.get("user:1")
    client.get_many([f"user:{i}" for i in range(20)])
    client.add("user:1", b"again")
    client.set("count", b"5")
    client.incr("count", 3)
    client.gets("count")
    client.cas("count", b"9", b"1")
    client.delete("nothing")
    client.set("quiet", b"1", noreply=True)
    client.touch("count", 100)
    client.stats()
    client.version()
    client.flush_all()
    client.quit()
    with socket.create_connection((HOST, 11211)) as raw:
        raw.sendall(
            b"set a 0 0 3\r\nabc\r\nget a b\r\nmg a v t f\r\nms b 2 T60\r\nhi\r\nmn\r\nbogus\r\nget a\r\nquit\r\n"
        )
        while raw.recv(65536):
            pass
    with socket.create_connection((HOST, 11211)) as raw:
        key, value = b"k1", b"v" * 10
        packet = (
            b"\x80\x01" + len(key).to_bytes(2, "big") + b"\x08\x00\x00\x00" + (8 + 12).to_bytes(4, "big") + bytes(12)
        )
        raw.sendall(packet + bytes(8) + key + value)
        raw.sendall(b"\x80\x00\x00\x02" + bytes(4) + b"\x00\x00\x00\x02" + bytes(12) + b"k1")
        raw.sendall(b"\x80\x00\x00\x02" + bytes(4) + b"\x00\x00\x00\x02" + bytes(12) + b"no")
        raw.sendall(b"\x80\x07" + bytes(22))
        while raw.recv(65536):
            pass


def rabbitmq() -> None:
    import pika

    def channel(connection: Any) -> Any:
        return connection.channel()

    parameters = pika.ConnectionParameters(HOST)
    connection = pika.BlockingConnection(parameters)
    first, second = channel(connection), channel(connection)
    first.exchange_declare("events", "topic")
    first.queue_declare("jobs")
    first.queue_bind("jobs", "events", "job.*")
    second.confirm_delivery()
    for number in range(10):
        headers = {"traceparent": "00-" + "56" * 16 + "-" + "78" * 8 + "-01"}
        body = b"b" * (number * 20_000)
        second.basic_publish(
            "events", f"job.{number}", body, pika.BasicProperties(headers=headers, message_id=str(number))
        )
    with contextlib.suppress(pika.exceptions.UnroutableError):
        second.basic_publish("events", "nobody", b"returned", mandatory=True)
    method, _, _ = first.basic_get("jobs")
    first.basic_ack(method.delivery_tag)
    for method, _, _ in first.consume("jobs", inactivity_timeout=1):
        if method is None:
            break
        first.basic_ack(method.delivery_tag)
    first.cancel()
    with contextlib.suppress(pika.exceptions.ChannelClosedByBroker):
        first.queue_declare("not there", passive=True)
    second.queue_delete("jobs")
    connection.close()


def mosquitto() -> None:
    import paho.mqtt.client as mqtt
    from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

    for version in (MQTTProtocolVersion.MQTTv311, MQTTProtocolVersion.MQTTv5):
        client = mqtt.Client(CallbackAPIVersion.VERSION2, f"c{version}", protocol=version)
        seen: list[Any] = []
        client.on_message = lambda _c, _u, message, seen=seen: seen.append(message)
        client.connect(HOST)
        client.loop_start()
        client.subscribe([("sensor/+/t", 1), ("big", 2)])
        time.sleep(0.2)
        for number in range(9):
            client.publish(f"sensor/{number}/t", b"21.5", qos=number % 3).wait_for_publish(5)
        client.publish("big", b"x" * 200_000, qos=2).wait_for_publish(5)
        deadline = time.monotonic() + 5
        while len(seen) < 10 and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(0.3)  # the last acknowledgements
        client.unsubscribe("big")
        time.sleep(0.2)
        client.disconnect()
        client.loop_stop()


def nats() -> None:
    import nats as library

    async def talk() -> None:
        client = await library.connect(f"nats://{HOST}:4222")
        got: list[Any] = []

        async def hear(message: Any) -> None:
            got.append(message)
            if message.reply:
                await client.publish(message.reply, b"pong")

        await client.subscribe("orders.*", cb=hear)
        await client.subscribe("ask", cb=hear)
        await client.flush()
        for number in range(10):
            await client.publish(
                f"orders.{number}",
                b"o" * number * 500,
                headers={"traceparent": "00-" + "9a" * 16 + "-" + "bc" * 8 + "-01"},
            )
        await client.flush()
        await client.request("ask", b"ping", timeout=5)
        with contextlib.suppress(library.errors.NoRespondersError):
            await client.request("nobody", b"?", timeout=5)
        await client.drain()

    asyncio.run(talk())


def dnsmasq() -> None:
    import dns.message
    import dns.query

    for name, kind in (
        ("db.shop.test", "A"), ("db.shop.test", "AAAA"), ("alias.shop.test", "A"), ("_sql._tcp.shop.test", "SRV"),
        ("nothing.test", "A"), ("elsewhere.example", "A"), ("7.0.0.10.in-addr.arpa", "PTR"), ("long.shop.test", "TXT"),
    ):  # fmt: skip
        question = dns.message.make_query(name, kind, use_edns=kind == "A")
        dns.query.udp(question, HOST, 5)
    with socket.create_connection((HOST, 53)) as one:
        for name in ("db.shop.test", "long.shop.test"):
            dns.query.tcp(dns.message.make_query(name, "TXT"), HOST, 5, sock=one)


def grpc() -> None:
    import grpc as library

    with library.insecure_channel(f"{HOST}:50051") as channel:
        get = channel.unary_unary("/shop.v1.Items/Get")
        trace = (("traceparent", "00-" + "de" * 16 + "-" + "f0" * 8 + "-01"),)
        for number in range(10):
            get(b"%d" % number, metadata=trace)
        for wrong, timeout in ((b"nothing", 5), (b"slow", 0.2)):
            with contextlib.suppress(library.RpcError):
                get(wrong, timeout=timeout)
        with contextlib.suppress(library.RpcError):
            channel.unary_unary("/shop.v1.Items/Nope")(b"")
        list(channel.unary_stream("/shop.v1.Items/List")(b""))
        channel.stream_unary("/shop.v1.Items/Add")(iter([b"a" * 40_000, b"b"]))
        list(channel.stream_stream("/shop.v1.Items/Chat")(iter([b"one", b"two", b"three"])))
        waiting = [get.future(b"%d" % number) for number in range(20)]
        for future in waiting:
            future.result()


CLIENTS: dict[str, Callable[[], None]] = {
    "mysql": mysql, "postgresql": postgresql, "redis": redis, "nginx": nginx, "memcached": memcached,
    "rabbitmq": rabbitmq, "mosquitto": mosquitto, "nats": nats, "dnsmasq": dnsmasq, "grpc": grpc,
}  # fmt: skip


def main() -> None:
    for name in sys.argv[1:] or CLIENTS:
        CLIENTS[name]()


if __name__ == "__main__":
    main()
