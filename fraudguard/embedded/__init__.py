"""The real Apache Kafka and the real PostgreSQL, from wheels and locked jars: loopback only, for development, tests."""
