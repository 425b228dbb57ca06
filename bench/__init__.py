"""Measurements on real servers: ``python -m bench.<name>``; what each measures is in ``docs/benchmarks.md``.

Every command starts its own servers on free ports, proves that both ends are equal before it prints a figure, and puts
beside each figure the ceiling that it measured in the same run.
"""
