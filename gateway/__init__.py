"""The proxy: who may call which model, before the call; the bytes of requests and streams, as they come."""
