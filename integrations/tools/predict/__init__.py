"""Answer a large file of queries by a trained run, in shards that may be killed: ``hero-plugin predict``."""
