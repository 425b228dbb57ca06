"""Runs connectors: a worker, its supervised tasks, and what each kind of task does."""
