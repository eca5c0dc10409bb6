"""How a program or a command comes to a grid: it opens a directory as its owner, or attaches to the owner as a guest."""
