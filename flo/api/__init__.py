"""What the floors above the machines agree on: contracts, views, errors. Nothing here knows how any of it is done."""
