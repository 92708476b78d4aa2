"""Config in, workdir with a result out: what `warpjax train` and the other commands run; nothing else in warpjax imports it."""
