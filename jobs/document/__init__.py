"""The markup of what a model writes: Markdown, LaTeX, and the headings of QVQ. Pure: no SQL, no clock."""
