"""``hero-plugin predict``: a trained run's answers to a large file of queries, in shards that can be killed."""
