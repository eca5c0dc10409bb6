"""The grid: nodes, their partitions, and the ways into them."""
