"""Training a base, plain or with HERO: configs, tasks, engine, run folders, checkpoints."""
