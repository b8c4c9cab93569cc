"""The site file: its models (`model`), reading it with file and line (`load`), keeping it fresh (`live`)."""
