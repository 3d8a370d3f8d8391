"""Kafka in, Kafka out: the Faust worker around the pipeline."""
