"""Transforms of records and the predicates that choose them, under the class names of Debezium and Kafka Connect."""
