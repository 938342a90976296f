"""Pages for people: pictures, tables and words in one HTML file without network (`document`), drawn by `svg`."""
