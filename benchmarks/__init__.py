"""Side-by-side measurements: ``python -m benchmarks``. Not part of the tests."""
