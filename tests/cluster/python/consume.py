"""Reads topics as anybody would: confluent-kafka with read_committed, schemas by id from the registry, fastavro.

consume.py BROKERS REGISTRY TOPIC[,TOPIC...] UNTIL_FILE

Begins at the start, goes on until UNTIL_FILE exists and nothing came for three seconds; prints one JSON object per record.
"""
import io
import json
import os
import struct
import sys
import time
import urllib.request

import fastavro
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, TopicPartition


def schema(registry, known, schema_id):
    if schema_id not in known:
        with urllib.request.urlopen(f"{registry}/schemas/ids/{schema_id}", timeout=20) as answer:
            known[schema_id] = fastavro.parse_schema(json.loads(json.load(answer)["schema"]))
    return known[schema_id]


def decode(registry, known, value):
    magic, schema_id = struct.unpack(">bI", value[:5])
    assert magic == 0, value[:5]
    body = io.BytesIO(value[5:])
    decoded = fastavro.schemaless_reader(body, schema(registry, known, schema_id), None, return_record_name=True)
    assert not body.read(), "bytes are left behind a value"
    return decoded


def text(value):
    return value.decode() if isinstance(value, bytes) else value


def main(brokers, registry, topics, until):
    consumer = Consumer({
        "bootstrap.servers": brokers, "group.id": "interop", "isolation.level": "read_committed",
        "enable.auto.commit": False, "auto.offset.reset": "error",
    })
    names = topics.split(",")
    metadata = consumer.list_topics(timeout=20).topics
    consumer.assign([TopicPartition(name, it, OFFSET_BEGINNING) for name in names for it in metadata[name].partitions])
    known, deadline, idle_since = {}, time.monotonic() + 110, time.monotonic()
    while not (os.path.exists(until) and time.monotonic() > idle_since + 3):
        assert time.monotonic() < deadline, f"{until} never came"
        message = consumer.poll(0.2)
        if message is None:
            continue
        if message.error():
            # A broker that was just killed comes back.
            if message.error().code() not in (KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN):
                raise SystemExit(str(message.error()))
            continue
        idle_since = time.monotonic()
        value = message.value()
        print(json.dumps({
            "topic": message.topic(), "partition": message.partition(), "offset": message.offset(),
            "key": text(message.key()), "headers": {name: text(it) for name, it in message.headers() or []},
            "value": None if value is None else decode(registry, known, value),
        }, default=str))
    consumer.close()


main(*sys.argv[1:])
