"""Running programs that a model wrote, kept from the rest of the machine."""
