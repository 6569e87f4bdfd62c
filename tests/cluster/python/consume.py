"""Reads topics as anybody would: confluent-kafka with read_committed, schemas by id from the registry, fastavro.

consume.py BROKERS REGISTRY TOPIC[,TOPIC...] UNTIL_FILE

Goes on until UNTIL_FILE exists and every partition was read to its end; prints one JSON object per record.
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
        "enable.auto.commit": False, "enable.partition.eof": True, "auto.offset.reset": "error",
    })
    names = topics.split(",")
    metadata = consumer.list_topics(timeout=20).topics
    places = [TopicPartition(name, it, OFFSET_BEGINNING) for name in names for it in metadata[name].partitions]
    consumer.assign(places)
    at_end, known, deadline = set(), {}, time.monotonic() + 110
    while not (os.path.exists(until) and len(at_end) == len(places)):
        assert time.monotonic() < deadline, f"only {at_end} of {places} were read"
        last_look = os.path.exists(until)
        message = consumer.poll(0.2)
        if message is None:
            continue
        place = (message.topic(), message.partition())
        if message.error():
            if message.error().code() == KafkaError._PARTITION_EOF:
                # An end that was met before everything was written is none.
                (at_end.add if last_look else at_end.discard)(place)
            elif not message.error().retriable() and message.error().code() not in (
                    KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN):
                raise SystemExit(str(message.error()))
            continue
        value = message.value()
        print(json.dumps({
            "topic": place[0], "partition": place[1], "offset": message.offset(), "key": text(message.key()),
            "headers": {name: text(it) for name, it in message.headers() or []},
            "value": None if value is None else decode(registry, known, value),
        }, default=text))
    # An end told before the file was there is told again: the consumer seeks nowhere, so ask where it stands.
    consumer.close()


main(*sys.argv[1:])
