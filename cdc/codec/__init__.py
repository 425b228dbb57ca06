"""Pure codecs: Postgres text, Connect schemas and values, Avro bytes. No I/O in here."""
