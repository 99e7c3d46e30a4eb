"""Benchmarks: what penstock does on this machine, in numbers with their circumstances.

Theory of operation. A benchmark measures and reports; it never passes or fails. Each case starts
its own cluster of real processes, repeats what it measures, and gives medians and spread beside
the environment (CPU, versions, load) that they were taken in. What is compared is measured in the
same run, in turns, so that a busy moment of the machine hits both. `penstock bench` runs cases by
name; each module here holds one subject.
"""
