"""What the terminal shows: tables, waterfalls, progress. Pure where it can be."""
