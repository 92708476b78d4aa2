from warpjax.runner.commands.check import command

command()
