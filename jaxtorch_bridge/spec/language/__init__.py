"""What contracts are written in: shapes, sizes, dtypes, static arguments, versions."""
