"""Carries frames between workers. ZeroMQ is imported here and nowhere else."""
