from warpjax.runner.commands.plot import command

command()
