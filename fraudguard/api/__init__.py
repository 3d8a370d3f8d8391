"""The REST door: FastAPI over the decision store and Kafka. Imports no torch, no engine and no stream."""
