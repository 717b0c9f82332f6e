"""Known bases: for each an adapter and, for four of them, a reference implementation."""
