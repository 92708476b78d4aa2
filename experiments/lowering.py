from warpjax.runner.machine.lowering import command

command()
