"""The mathematics of dense-reward PPO: pure functions of [B, T] tensors, no I/O, no state, no change in place.

Every function takes a bool `response_mask` [B, T], True = a sampled token. What stands at a masked position
(a pad) never matters, NaN included, and comes out as exactly 0.
"""
