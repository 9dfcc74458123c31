"""Load test, benchmarks, synthetic weights, the oracle engine, capacity plan."""
