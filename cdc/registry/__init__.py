"""The schema registry: a client for any Confluent-compatible one, and an embedded one.

The embedded registry keeps its state on a compacted ``_schemas`` topic in the record format of Confluent's
Schema Registry, so that either may take over from the other with all ids unchanged. Its parts, from pure to I/O::

    avro, compatibility     an Avro schema's canonical text; may a reader with one schema read another's data
    records, state          the topic's records and what they add up to
    plans                   a request → the records that carry it out, or why not
    log, store              the topic, and requests against it, safe with several workers on one topic
    app                     Confluent's REST API
    client                  what converters use, against this or any other registry
"""
