"""Pages that people look at: self-contained HTML with charts, readable in light and dark, on a phone and on paper."""
