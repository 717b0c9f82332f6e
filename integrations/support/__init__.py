"""Files, settings, console and processes: nothing here knows a video or a model."""
