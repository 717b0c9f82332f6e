"""From video files to moments: features, questions, a page, an app."""
