"""Config in, workdir with a result out: what `warpjax train` and the other commands run.

Nothing else in warpjax imports it.
"""
