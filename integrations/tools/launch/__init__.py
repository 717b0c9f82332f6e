"""``hero-plugin launch``: somebody else's repository, its own script, its own command line, with HERO inside."""
