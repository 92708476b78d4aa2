"""The tests mirror `warpjax/`; `toy` holds the small problem that they share."""
