"""What a user starts: training on any data, previews, the demo."""
