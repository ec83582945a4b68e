"""Running a model, or a circuit, at the cost of its nonzeros: the plan of what varies, the runtime that reads it, and
circuits as programs."""
