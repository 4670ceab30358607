"""Benchmarks: each prints a ratio against a peer that is measured in the same run.

build rebuild gateway start soak      the programs: `python -m bench.NAME`
stage system busy pauses host         what is measured, on what, and how quiet it was
contestants page rounds crowd memory  measuring
census processes                      what is left afterwards
times result targets report picture   what was found, judged and shown
"""
