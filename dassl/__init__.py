"""The part of Dassl's public API that prompt learning uses, on current PyTorch."""
