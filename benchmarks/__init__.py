"""Side-by-side measurements: ``python -m benchmarks``. Tests run them small, and assert no time."""
