"""The parts of `gpt.serve`: what a request asks, how requests are batched, how answers are written, HTTP
around it."""
