"""Models whose circuit is known because it was set by hand, and faults planted into it: known answers for the tests,
the benchmarks and the documentation."""
