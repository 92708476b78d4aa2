"""warpjax against the same work by PyTorch by hand, `torch.func`, `higher`, `torchopt`, and flax under `vmap`."""
