"""How programs and commands come to a grid: as the owner of a directory, or as a guest of its owner."""
