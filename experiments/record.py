from warpjax.runner.commands.record import command

command()
