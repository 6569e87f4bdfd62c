"""Produces keys with librdkafka's murmur2_random, which is what Java clients do: produce.py BROKERS TOPIC < keys."""
import sys

from confluent_kafka import Producer

producer = Producer({"bootstrap.servers": sys.argv[1], "partitioner": "murmur2_random"})
for line in sys.stdin:
    producer.produce(sys.argv[2], key=line.rstrip("\n"), value="python")
assert producer.flush(60) == 0
