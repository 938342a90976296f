"""From the columns of a batch to one vector an event."""
