"""What is the same for every store that mirrors topics: keys, folding, offsets, the store seam."""
