"""Prompt learners as a fork of CoOp or MaPLe has them, on a CLIP of some thousand weights.

Written from the contract of host codebases, on whatever `dassl` can be imported.
"""
