"""A stand-in for upstream Dassl, as far as prompt learners use it.

Written from the contract of host codebases, not from Dassl's code, and as trusting as Dassl is:
checkpoints are pickles, resuming is strict, names are looked up as they are.
"""
