"""One folder per further command; none imports another."""
