"""What acceptance tests and benchmarks share: real repositories, and a real server as a user starts it."""
