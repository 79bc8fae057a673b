"""Files that people send: keeping, giving, fetching, and making them smaller."""
