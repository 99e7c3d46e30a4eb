"""The `penstock` command: one small file for each sub-command, put together in `main`.

Nothing here decides anything: a command reads its options, calls the package that does the work
and prints the result, for people by default and as JSON with `--json`. Heavy imports (TensorFlow)
happen inside the commands, so that `--help` and the dispatcher start at once. Errors that
penstock raises on purpose become one line on standard error and the exit code of their class
(`penstock.errors`); a traceback on the terminal is a bug.
"""
