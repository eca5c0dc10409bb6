"""The log: frames of events, made durable. What the events mean is not known here."""
