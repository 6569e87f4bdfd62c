"""Prints where each key of a topic lies, partition and key: places.py BROKERS TOPIC"""
import sys
import time

from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

consumer = Consumer({"bootstrap.servers": sys.argv[1], "group.id": "places", "enable.auto.commit": False})
partitions = consumer.list_topics(sys.argv[2], timeout=20).topics[sys.argv[2]].partitions
consumer.assign([TopicPartition(sys.argv[2], it, OFFSET_BEGINNING) for it in partitions])
ends = {it: consumer.get_watermark_offsets(TopicPartition(sys.argv[2], it), timeout=20)[1] for it in partitions}
deadline = time.monotonic() + 60
while any(ends.values()):
    assert time.monotonic() < deadline, f"left: {ends}"
    message = consumer.poll(0.2)
    if message is not None and not message.error():
        print(f"{message.partition()}\t{message.key().decode()}")
        if message.offset() + 1 >= ends[message.partition()]:
            ends[message.partition()] = 0
consumer.close()
