"""What runs in the hub: one `runtime` for all spawners, the `handlers`, the form and the pages."""
